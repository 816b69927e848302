"""Work before, after and around a run."""
