"""Memory and time of a run, calculated before it starts."""
