"""Floor 1, the database: one schema, one writer thread with group commit, readers beside it."""
