"""Merging, interpolation and export of model folders."""
