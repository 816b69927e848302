"""The other verbs, one command per file."""

import conf.interrupt  # noqa: F401 answers Ctrl-C while a command imports the rest
