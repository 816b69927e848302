"""Both stages on real text, against a control (docs/results/real_run.md)."""
