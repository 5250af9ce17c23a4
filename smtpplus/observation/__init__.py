"""Floor 3, those who watch: they consume events and change nothing on a message's path."""
