"""Floor 4, the operator's side: the command line and what it controls."""
