"""Checks against other programs and on other hardware; each is a command."""
