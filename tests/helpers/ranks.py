"""Functions in new processes, several on gloo if asked: `run_ranks(function, 2, ...)`.

A fork server imports torch and the project once; each process is a fork of it, ready in
milliseconds, and may be killed without harm.
"""

import multiprocessing
import multiprocessing.connection
import os
import signal
import socket
import tempfile
import traceback
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import torch

from training.distributed import start_world

_server = multiprocessing.get_context("forkserver")
_server.set_forkserver_preload(["tests.helpers.preloaded"])


def run_ranks(function: Callable[..., Any], size: int, *arguments: Any) -> list[Any]:
    """Call `function(world, *arguments)` in `size` new processes; their results by rank.

    The function must be importable (module level); results must survive torch.save.
    """
    with tempfile.TemporaryDirectory() as folder:
        processes = start_ranks(_in_world, size, folder, function, arguments)
        wait_for_all(processes)
        for rank in range(size):
            if (failure := Path(folder) / f"{rank}.txt").exists():
                raise AssertionError(f"rank {rank} of {size}:\n{failure.read_text()}")
        assert all(process.exitcode == 0 for process in processes)
        return [torch.load(Path(folder) / f"{rank}.pt", weights_only=False) for rank in range(size)]


def start_ranks(function: Callable[..., Any], size: int, *arguments: Any) -> list[BaseProcess]:
    """Begin `function(*arguments)` in `size` processes that see what torchrun would tell them."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    processes = [
        _server.Process(target=_one_rank, args=(rank, size, port, function, arguments))
        for rank in range(size)
    ]
    for process in processes:
        process.start()
    return processes


def wait_for_all(processes: list[BaseProcess]) -> None:
    """Wait, as torchrun does: when one process fails, the others are ended."""
    waiting = {process.sentinel: process for process in processes}
    while waiting:
        for sentinel in multiprocessing.connection.wait(list(waiting)):
            process = waiting.pop(sentinel)
            process.join()
            if process.exitcode:
                kill_all(list(waiting.values()))


def kill_all(processes: list[BaseProcess]) -> None:
    """kill -9."""
    for process in processes:
        if process.is_alive():
            os.kill(process.pid, signal.SIGKILL)
        process.join()


def _one_rank(rank, size, port, function, arguments):
    os.environ |= {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(size),
        "LOCAL_WORLD_SIZE": str(size),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }
    function(*arguments)


def _in_world(folder, function, arguments):
    place = Path(folder) / os.environ["RANK"]
    try:
        with start_world("cpu") as world:
            torch.save(function(world, *arguments), place.with_suffix(".pt"))
    except BaseException:
        place.with_suffix(".txt").write_text(traceback.format_exc())
        raise SystemExit(1) from None
