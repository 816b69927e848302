"""The study of instruction tuning on the embedded sample (docs/results/instruct.md)."""
