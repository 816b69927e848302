"""Checkpoints of the training state, and the exported folder."""
