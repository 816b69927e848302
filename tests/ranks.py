"""Several processes on gloo for a test: `run_ranks(function, 2, ...)`."""

import os
import socket
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.multiprocessing

from training.distributed import start_world


def run_ranks(function: Callable[..., Any], size: int, *arguments: Any) -> list[Any]:
    """Call `function(world, *arguments)` in `size` new processes; their results by rank.

    The function must be importable (module level); results must survive torch.save.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with tempfile.TemporaryDirectory() as folder:
        torch.multiprocessing.spawn(
            _one_rank, (size, port, folder, function, arguments), nprocs=size, join=True
        )
        return [torch.load(Path(folder) / f"{rank}.pt", weights_only=False) for rank in range(size)]


def _one_rank(rank, size, port, folder, function, arguments):
    os.environ |= {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(size),
        "LOCAL_WORLD_SIZE": str(size),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }
    with start_world("cpu") as world:
        torch.save(function(world, *arguments), Path(folder) / f"{rank}.pt")
