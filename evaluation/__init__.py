"""Benchmarks, their scoring, and the statistics that tell a difference from noise."""
