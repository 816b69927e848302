"""Raw records to prepared sources."""
