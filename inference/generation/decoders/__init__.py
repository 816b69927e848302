"""Decode steps that are written a second time for speed, and their guard."""
