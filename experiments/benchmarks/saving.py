"""Checkpoints, exports and opening them again, against plain files as large as a checkpoint.

These are one file or as many as a checkpoint has, whichever is written faster.
"""

import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch

from experiments.benchmarks.harness.common import DrawnWeights
from experiments.benchmarks.harness.workloads import Saving
from model.config import ModelConfig
from model.transformer import Mistral
from model.weights import fill
from pretrained.safetensors_folder import load_pretrained, save_pretrained
from training.checkpoint.checkpointer import CheckpointConfig, Checkpointer
from training.checkpoint.manifest import THREADS
from training.checkpoint.state import state_tensors
from training.distributed import start_world
from training.optim import OptimConfig, build_optimizer

PIECE = 1 << 24


def measure(work: Saving, side: str) -> dict:
    """MB per second of each, from the call to the name on the disk, in a folder of `work.place`."""
    assert side == "ours"
    with start_world("cpu") as world, tempfile.TemporaryDirectory(dir=work.place) as place:
        model = Mistral(ModelConfig(**work.shape))
        fill(model, DrawnWeights(model, world.device))
        optimizer = build_optimizer(model, OptimConfig())
        for parameter in model.parameters():
            parameter.grad = torch.zeros_like(parameter)
        optimizer.step()  # which makes the moments
        folder = Path(place)
        state = sum(x.nbytes for x in state_tensors(model, optimizer, 0).values())
        weights = sum(x.nbytes for x in model.parameters())
        piece = os.urandom(min(state, PIECE))
        # None is removed on the clock: neither is a plain file.
        settings = CheckpointConfig(asynchronous=False, keep_last=work.times + 1)
        meanwhile = CheckpointConfig(keep_last=work.times + 1)

        def save(keeper: Checkpointer, step: int) -> None:
            keeper.save(step, model, optimizer)
            keeper.wait()

        with (
            Checkpointer(folder / "checkpoints", settings, world) as keeper,
            Checkpointer(folder / "asynchronous", meanwhile, world) as asynchronous,
        ):
            saving, copying, exporting, one_file, some_files = _seconds(
                work,
                lambda n: save(keeper, n),
                lambda n: save(asynchronous, n),
                lambda n: save_pretrained(model, folder / f"export-{n}"),
                lambda n: _write(folder / f"plain-{n}", state, piece),
                lambda n: _write_some(folder / f"part-{n}", state, piece),
                before=lambda n: _remove(folder, n - 1),
            )
            newest = work.times
            loading, opening, reading = _seconds(
                work,
                lambda _: keeper.load(newest, model, optimizer),
                lambda _: load_pretrained(folder / f"export-{newest}"),
                lambda _: _read(folder / f"plain-{newest}"),
            )
    writing = min(one_file, some_files)
    write, read = (state / seconds / 1e6 for seconds in (writing, reading))
    return {
        "figures": {
            "checkpoint_mb_per_second": state / saving / 1e6,
            "asynchronous_checkpoint_mb_per_second": state / copying / 1e6,
            "checkpoint_load_mb_per_second": state / loading / 1e6,
            "export_mb_per_second": weights / exporting / 1e6,
            "open_mb_per_second": weights / opening / 1e6,
        },
        "ceilings": {
            "checkpoint_mb_per_second": write,
            "asynchronous_checkpoint_mb_per_second": write,
            "checkpoint_load_mb_per_second": read,
            "export_mb_per_second": write,
            "open_mb_per_second": read,
        },
        "machine": {"write_mb_per_second": write, "read_mb_per_second": read},
    }


def _seconds(
    work: Saving,
    *actions: Callable[[int], object],
    before: Callable[[int], object] | None = None,
) -> list[float]:
    """Median of each of some actions, which take turns, for a disk's rate changes by the minute.

    Each round begins with another one, so that no action always comes first or last. The first
    round is not counted: the memory that it gets may be the first that the machine has given.

    Args:
        before: is done before each round, off the clock.
    """
    seconds: list[list[float]] = [[] for _ in actions]
    for number in range(work.times + 1):
        if before:
            before(number)
        for place in range(number, number + len(actions)):
            which = place % len(actions)
            start = time.perf_counter()
            actions[which](number)
            seconds[which].append(time.perf_counter() - start)
    return [statistics.median(taken[1:]) for taken in seconds]


def _remove(folder: Path, number: int) -> None:
    """Remove what a round has written, so that the next gets that memory for its pages: memory that
    a virtual machine has never touched costs as much as writing, whoever happens to get it."""
    plain = (f"plain-{number}", f"part-{number}-*")
    names = (*plain, f"export-{number}", f"*/step-{number:08d}")
    for path in [path for name in names for path in folder.glob(name)]:
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def _write(path: Path, size: int, piece: bytes) -> None:
    """A file that is on the disk afterwards."""
    with path.open("wb") as file:
        for start in range(0, size, PIECE):
            file.write(piece[: size - start])
        file.flush()
        os.fsync(file.fileno())


def _write_some(path: Path, size: int, piece: bytes) -> None:
    """The same bytes in as many files at a time as a checkpoint has."""
    with ThreadPoolExecutor(THREADS) as pool:
        parts = [path.with_name(f"{path.name}-{part}") for part in range(THREADS)]
        list(pool.map(lambda part: _write(part, size // THREADS, piece), parts))


def _read(path: Path) -> None:
    """The files just written, so from the page cache, as when a fresh export is opened."""
    into = bytearray(PIECE)
    with path.open("rb", buffering=0) as file:
        while file.readinto(into):
            pass
