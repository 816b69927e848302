"""Prepared sources to training rows: shards, packing, curriculum, loader."""
