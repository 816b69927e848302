"""Growth of the vocabulary of a model folder."""
