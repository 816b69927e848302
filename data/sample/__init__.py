"""The embedded corpus: a world of facts in two languages, written by a grammar at first use."""
