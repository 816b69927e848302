"""Benchmarks: registry, readers, cleaning."""
