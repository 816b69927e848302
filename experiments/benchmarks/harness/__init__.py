"""Launcher, runner and tables of the benchmarks."""
