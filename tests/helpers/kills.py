"""kill -9 at a chosen instant of a run, from inside it."""

import importlib
import os
import signal
import sys
from collections.abc import Callable
from functools import wraps
from pathlib import Path

from tests.helpers.ranks import start_ranks, wait_for_all
from tests.helpers.runs import configure
from train import train


def kill_self() -> None:
    """What a machine that loses power does to a process."""
    os.kill(os.getpid(), signal.SIGKILL)


def kill_at_call(name: str, count: int, partly: Callable[..., None] | None = None) -> None:
    """Die at the n-th call of a function or method, before it does anything.

    Args:
        name: module and place in it, e.g. `train:train_step` or `torch:Tensor.backward`.
        partly: gets the arguments of that call first, and does the part of it that is done.
    """
    module, path = name.split(":")
    owner = importlib.import_module(module)
    *parents, attribute = path.split(".")
    for parent in parents:
        owner = getattr(owner, parent)
    original, calls = getattr(owner, attribute), 0

    @wraps(original)
    def counted(*arguments, **options):
        nonlocal calls
        calls += 1
        if calls == count:
            if partly is not None:
                partly(*arguments, **options)
            kill_self()
        return original(*arguments, **options)

    setattr(owner, attribute, counted)


def count_file_operations(folder: Path, kill_at: int | None = None) -> list[str]:
    """Record every operation on files below a folder from now on; die before the n-th."""
    seen = []
    watched = {"open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.truncate"}

    def hook(event, arguments):
        if event in watched and str(folder) in str(arguments[0]):
            seen.append(f"{event} {Path(str(arguments[0])).name}")
            if len(seen) - 1 == kill_at:
                kill_self()

    sys.addaudithook(hook)
    return seen


def run_training(
    arguments: list[str],
    ranks: int,
    kill: tuple[str, int, int] | None = None,
    output: Path = Path(os.devnull),
    partly: Callable[..., None] | None = None,
) -> int:
    """Train in `ranks` processes; returns the exit code of the first that failed, or 0.

    Args:
        kill: (function, n, rank): that rank dies at the n-th call of the function.
        output: file for what the processes print.
        partly: of `kill_at_call`.
    """
    processes = start_ranks(_train, ranks, arguments, kill, output, partly)
    wait_for_all(processes)
    killed = kill[2] if kill else 0
    return processes[killed].exitcode


def _train(arguments, kill, output, partly):
    with output.open("a") as file:
        os.dup2(file.fileno(), sys.stdout.fileno())
        os.dup2(file.fileno(), sys.stderr.fileno())
    name, count, rank = kill or (None, 0, 0)
    if name and int(os.environ["RANK"]) == rank:
        kill_at_call(name, count, partly)
    train(configure(*arguments))
