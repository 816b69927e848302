"""Studies: scripts, configurations, tests and results behind docs/results."""
