"""Replay of logged steps."""
