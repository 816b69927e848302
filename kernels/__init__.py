"""Triton operations, one per file: reference, forward and backward side by side."""
