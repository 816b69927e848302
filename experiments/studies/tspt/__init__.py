"""The controlled study of two-stage pre-adaptation pre-training (docs/results/tspt.md)."""
