"""The module of each primary config in conf/."""

BENCHMARK = "experiments.benchmarks.__main__"


def module_of(name):
    """The module that registers the schema of a primary config."""
    return {"train": "train", "benchmark": BENCHMARK}.get(name, f"scripts.{name}")
