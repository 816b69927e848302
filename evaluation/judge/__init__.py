"""Pairwise comparison by a judge model."""
