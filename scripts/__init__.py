"""The other verbs, one command per file."""
