"""Checkpoints: complete or absent.

    checkpoints/step-00000100/   DCP shards of weights and optimizer, and COMPLETE.json with the
                                 size and SHA-256 of every file
    checkpoints/step-00000200.tmp/   a save that was interrupted; never read, removed by the next
    checkpoints/step-00000300.damaged/   did not match its marker when it was to be loaded

A folder is never written twice: DCP would leave old metadata over new shards after a crash, and
load the mixture without a word. The data position is the step, and randomness derives from
(seed, step, row), so weights, optimizer and step are all there is to save.
"""

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.distributed.checkpoint as dcp
from torch import Tensor, nn
from torch.distributed.checkpoint.api import CheckpointException

from data.shards import sha256_of
from model.weights import make_durable
from training.distributed import World
from training.parallelize import clean_named_parameters

MARKER = "COMPLETE.json"


@dataclass(kw_only=True)
class CheckpointConfig:
    """When state is saved and what is kept."""

    every: int = 500
    """Steps between checkpoints; the last step is always saved."""
    keep_last: int = 2
    """Newest checkpoints kept."""
    keep_every: int | None = None
    """Keep also each checkpoint whose step is a multiple of this."""
    export_every: int | None = None
    """Steps between HF folders under `exports/`, beside the final one in `model/`."""
    export_dtype: str = "float32"
    """Dtype of exported weights: `float32` loses nothing, `bfloat16` halves the folder."""

    def __post_init__(self) -> None:
        for name in ("every", "keep_last", "keep_every", "export_every"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"checkpoint.{name}={value}: must be at least 1")
        if self.export_dtype not in ("float32", "bfloat16"):
            raise ValueError(f"checkpoint.export_dtype={self.export_dtype!r}: float32 or bfloat16")


class Checkpointer:
    """Saves and restores a model and its optimizer under one folder."""

    def __init__(self, folder: Path, config: CheckpointConfig, world: World) -> None:
        self.folder = folder
        self.config = config
        self.world = world

    def save(self, step: int, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        """Write the state after `step` updates, then prune; every process must call it."""
        final = self.folder / f"step-{step:08d}"
        partial = final.with_name(final.name + ".tmp")
        if self.world.is_main:
            for leftover in self.folder.glob("step-*.tmp"):
                shutil.rmtree(leftover)
            partial.mkdir(parents=True)
        self.world.barrier()
        dcp.save(_state(model, optimizer, step), storage_writer=dcp.FileSystemWriter(partial))
        self.world.barrier()
        if self.world.is_main:
            _seal(partial)
            partial.rename(final)
            make_durable(self.folder)
            self._prune()
        self.world.barrier()

    def load_latest(self, model: nn.Module, optimizer: torch.optim.Optimizer) -> int | None:
        """Restore the newest sound checkpoint; returns its step, or None if there is none.

        A damaged one is reported, put aside as `.damaged`, and the one before is tried.
        """
        for step, folder in reversed(self._complete()):
            damage = self.world.from_main(_damage(folder) if self.world.is_main else None)
            if damage is None:
                state = _state(model, optimizer, step)
                try:
                    dcp.load(state, storage_reader=dcp.FileSystemReader(folder))
                except CheckpointException as error:  # derives from BaseException
                    damage = str(error)
                else:
                    assert int(state["step"]) == step
                    return step
            if self.world.is_main:
                # Its step will be saved again, and a folder is never written twice.
                aside = folder.with_name(folder.name + ".damaged")
                shutil.rmtree(aside, ignore_errors=True)
                folder.rename(aside)
                print(f"checkpoint {folder} is damaged ({damage}); trying the one before")
        return None

    def steps(self) -> list[int]:
        """Steps of the finished checkpoints, oldest first."""
        return [step for step, _ in self._complete()]

    def _complete(self) -> list[tuple[int, Path]]:
        # As process 0 sees them: all must agree.
        return self.world.from_main(_finished(self.folder) if self.world.is_main else [])

    def _prune(self) -> None:
        every = self.config.keep_every
        for step, folder in _finished(self.folder)[: -self.config.keep_last]:
            if every is None or step % every:
                # Out of sight first, so that a crash in between leaves nothing half-removed.
                shutil.rmtree(folder.rename(folder.with_name(folder.name + ".tmp")))


def _finished(folder: Path) -> list[tuple[int, Path]]:
    """(step, folder) of every finished checkpoint, oldest first."""
    numbers = [(path.name.removeprefix("step-"), path) for path in folder.glob("step-*")]
    return sorted((int(number), path) for number, path in numbers if number.isdigit())


def _state(model: nn.Module, optimizer: torch.optim.Optimizer, step: int) -> dict[str, Tensor]:
    """All tensors to save, by name; optimizer state that does not exist yet is created.

    Loading happens in place, so the same dictionary serves both directions.
    """
    state: dict[str, Tensor] = {"step": torch.tensor(step)}
    for name, parameter in clean_named_parameters(model):
        state[f"model.{name}"] = parameter.detach()
        if parameter.requires_grad:
            for key, value in _moments(optimizer, parameter).items():
                state[f"optimizer.{name}.{key}"] = value
    return state


def _moments(optimizer: torch.optim.Optimizer, parameter: nn.Parameter) -> dict[str, Tensor]:
    moments = optimizer.state[parameter]
    if not moments:
        # What AdamW itself starts from on its first step.
        moments["step"] = torch.zeros((), dtype=torch.float32, device=parameter.device)
        moments["exp_avg"] = torch.zeros_like(parameter)
        moments["exp_avg_sq"] = torch.zeros_like(parameter)
    return moments


def _seal(folder: Path) -> None:
    """Write the marker that makes a checkpoint complete, and make all of it durable."""
    files = {}
    for path in _files(folder):
        make_durable(path)
        files[path.name] = {"size": path.stat().st_size, "sha256": sha256_of(path)}
    marker = folder / MARKER
    marker.write_text(json.dumps({"files": files}, indent=1), encoding="utf-8")
    make_durable(marker)
    make_durable(folder)


def _damage(folder: Path) -> str | None:
    """Why a checkpoint cannot be trusted, or None."""
    marker = folder / MARKER
    if not marker.is_file():
        return f"no {MARKER}"
    for name, entry in json.loads(marker.read_text(encoding="utf-8"))["files"].items():
        path = folder / name
        if not path.is_file():
            return f"{name} is missing"
        if (size := path.stat().st_size) != entry["size"]:
            return f"{name} has {size} bytes, not {entry['size']}"
        if sha256_of(path) != entry["sha256"]:
            return f"{name} has changed since it was written"
    return None


def _files(folder: Path) -> Iterator[Path]:
    return (path for path in sorted(folder.iterdir()) if path.is_file() and path.name != MARKER)
