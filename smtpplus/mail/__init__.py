"""Floor 0, the vocabulary of mail: pure values and functions. No Twisted, clock, file or database."""
