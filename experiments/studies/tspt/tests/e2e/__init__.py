"""Tests of the study that start processes."""
