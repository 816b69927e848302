"""Benchmarks and studies; the product imports none of them."""

import conf.interrupt  # noqa: F401 answers Ctrl-C while a benchmark imports the rest
