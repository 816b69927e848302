"""The study of vocabulary growth and of initial rows (docs/results/vocabulary.md)."""
