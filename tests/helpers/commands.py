"""The commands of the project by name, and the module of each."""

import importlib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
NAMES = ("train", "benchmark", *sorted(p.stem for p in (ROOT / "scripts").glob("[!_]*.py")))
MODULES = {"train": "train", "benchmark": "experiments.benchmarks.__main__"}


def module_of(name):
    """The module whose `main` is a command."""
    return MODULES.get(name, f"scripts.{name}")


def register_all():
    """Import every command, so that `conf.command.COMMANDS` and Hydra know them all."""
    for name in NAMES:
        importlib.import_module(module_of(name))
