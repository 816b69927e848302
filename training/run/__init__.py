"""The run folder: settings, log, resume, plots."""
