"""Studies: arms, comparison, report."""
