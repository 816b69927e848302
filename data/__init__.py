"""Documents -> shards -> rows: row n of a run is a pure function of (config, n)."""
