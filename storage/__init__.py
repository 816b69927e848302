"""Files: atomic writing, locks, continued logs, checksums."""
