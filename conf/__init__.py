"""The Hydra tree and its schema."""
