"""Tests of the arms and of their rows."""
