"""Measurements of `python -m scripts.benchmark suite=...`, each in a process of its own."""
