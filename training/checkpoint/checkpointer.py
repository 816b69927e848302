"""Checkpoints: complete or absent.

    checkpoints/step-00000100/   DCP shards of weights and optimizer, and COMPLETE.json with the
                                 size and CRC-32 of every file
    checkpoints/step-00000200.tmp/   a save that was interrupted; never read, removed by the next
    checkpoints/step-00000300.damaged/   did not match its marker when it was to be loaded

A folder is never written twice: DCP would leave old metadata over new shards after a crash, and
load the mixture without a word. The data position is the step, and randomness derives from
(seed, step, row), so weights, optimizer and step are all there is to save.

Training continues while a checkpoint is written: `save` copies the state to host memory, and a
thread of each process, with a separate gloo group, writes the files, their checksums and the
marker, and renames the folder. One checkpoint is written at a time.
"""

import math
import shutil
import sys
import time
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import torch
import torch.distributed.checkpoint as dcp
from torch import Tensor
from torch.distributed.checkpoint.api import CheckpointException

from model.transformer import Mistral
from storage.atomic import fsync
from training.checkpoint.manifest import (
    MARKER,
    Writer,
    differences,
    finished,
    read_marker,
    reason,
    write_manifest,
)
from training.checkpoint.state import checkpoint_bytes, match_moments, state_tensors
from training.distributed import World
from training.optimizer import TrainingOptimizer
from training.parallelize import local_bytes


@dataclass(kw_only=True)
class CheckpointConfig:
    """Schedule of checkpoints and exports."""

    every: int = field(default=500, metadata={"launch": True})
    """Steps between checkpoints; the last step is always saved."""
    keep_last: int = field(default=2, metadata={"launch": True})
    """Number of newest checkpoints to keep."""
    keep_every: int | None = field(default=None, metadata={"launch": True})
    """Also keep every checkpoint whose step is a multiple of this number."""
    asynchronous: bool = field(default=True, metadata={"launch": True})
    """Write during training, from a copy of the state in host memory; false waits."""
    export_every: int | None = field(default=None, metadata={"launch": True})
    """Steps between HF folders under `exports/`; the final one is in `model/`."""
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
    """Saves and restores a model and its optimizer under one folder.

    As a context manager it waits at the end for what is being written.
    """

    def __init__(self, folder: Path, config: CheckpointConfig, world: World) -> None:
        self.folder = folder
        self.config = config
        self.world = world
        self._background = world.background_group()
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="checkpoint")
        self._writing: tuple[int, Future[float]] | None = None
        self._stood_still: list[float] = []
        self._took: list[float] = []

    def __enter__(self) -> "Checkpointer":
        return self

    def __exit__(self, kind: object, error: BaseException | None, _: object) -> None:
        try:
            self.wait()
        except ValueError as problem:
            if error is None:
                raise
            print(f"{problem}; then: {error!r}", file=sys.stderr)  # neither hides the other
        finally:
            self._thread.shutdown()

    def save(self, step: int, model: Mistral, optimizer: TrainingOptimizer) -> None:
        """Begin to write the state after `step` updates; every process must call it.

        Raises:
            ValueError: the previous checkpoint was not written, or this one does not fit the disk.
        """
        begun = time.perf_counter()
        self.wait()
        self.world.run_on_rank0(lambda: self._check_room(checkpoint_bytes(model, optimizer)))
        state = {  # of CPU tensors no copy where training waits
            name: tensor.to("cpu", copy=self.config.asynchronous)
            for name, tensor in state_tensors(model, optimizer, step).items()
        }
        self._writing = step, self._thread.submit(self._write, step, state)
        if not self.config.asynchronous:
            self.wait()
        self._stood_still.append(time.perf_counter() - begun)

    def wait(self) -> None:
        """Return when nothing is being written any more; every process must call it.

        Raises:
            ValueError: the checkpoint in flight could not be written.
        """
        if self._writing is None:
            return
        (step, future), self._writing = self._writing, None
        try:
            self._took.append(future.result())
        except (CheckpointException, OSError, ValueError) as error:
            raise ValueError(
                f"checkpoint of step {step} could not be written to {self.folder} "
                f"({reason(error)}). Fix the cause and run the same command again; it resumes from "
                "the previous checkpoint"
            ) from error

    def check_space(self, model: Mistral, optimizer: TrainingOptimizer, steps: int) -> None:
        """Refuse a run whose checkpoints do not fit on the disk; every process must call it.

        Args:
            steps: of the whole run; one checkpoint more than are kept exists at a time.

        Raises:
            ValueError: names the needed and the free space.
        """
        saves = -(-steps // self.config.every)
        kept = self.config.keep_last + 1
        if self.config.keep_every is not None:
            both = math.lcm(self.config.every, self.config.keep_every)
            kept += saves * self.config.every // both
        count = min(saves, kept) - len(self.steps())
        needed = checkpoint_bytes(model, optimizer) * max(count, 1)
        self.world.run_on_rank0(lambda: self._check_room(needed))

    def _check_room(self, needed: int) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        for leftover in self.folder.glob("step-*.tmp"):
            shutil.rmtree(leftover)
        free = shutil.disk_usage(self.folder).free
        if free < needed:
            raise ValueError(
                f"{self.folder}: {needed / 2**30:.3g} GiB are needed for checkpoints and "
                f"{free / 2**30:.3g} GiB are free; make room, keep fewer (checkpoint.keep_last, "
                "checkpoint.keep_every) or set another runs_folder, then run the same command again"
            )

    def summary(self) -> str:
        """Mean time of saving, and the part of it during which training waited."""
        if not self._took:
            return "no checkpoint written"
        still, took = (sum(x) / len(x) for x in (self._stood_still, self._took))
        return (
            f"{len(self._took)} checkpoints written in {took:.2f} s each; training waited "
            f"{still:.2f} s for each"
        )

    def _write(self, step: int, state: dict[str, Tensor]) -> float:
        """The work of the background thread: complete or absent, then prune; returns seconds."""
        begun = time.perf_counter()
        world, final = self._background, self.folder / f"step-{step:08d}"
        partial = final.with_name(final.name + ".tmp")
        world.run_on_rank0(partial.mkdir)
        writer = Writer(partial)
        dcp.save(state, storage_writer=writer, process_group=world.group)
        written = world.gather(writer.files)
        world.run_on_rank0(lambda: self._publish(partial, final, written))
        return time.perf_counter() - begun

    def _publish(self, partial: Path, final: Path, written: list[dict[str, dict]]) -> None:
        write_manifest(partial, written)
        partial.rename(final)
        fsync(self.folder)
        self._prune()

    def load_latest(self, model: Mistral, optimizer: TrainingOptimizer) -> int | None:
        """Restore the newest sound checkpoint; returns its step, or None if there is none at all.

        Damaged ones are reported, and put aside as `.damaged` once an older one is loaded.

        Raises:
            ValueError: there are or were checkpoints, but all are damaged, or a sound one cannot
                be read. Nothing has been touched then.
        """
        damaged = []
        for step, folder in reversed(self._complete()):
            damage = self.damage(step)
            if damage is None:
                self.load(step, model, optimizer)
                self.world.run_on_rank0(lambda: self._put_aside(damaged))
                return step
            self.world.print(f"checkpoint {folder} is damaged ({damage})")
            damaged.append(folder)
        if damaged or self.world.from_main(any(self.folder.glob("step-*.damaged"))):
            # From step 0 the run would overwrite the log of what is lost.
            raise ValueError(
                f"{self.folder}: every checkpoint is damaged; restore one, or set another name to "
                "start a new run"
            )
        return None

    def _put_aside(self, damaged: list[Path]) -> None:
        """Rename damaged checkpoints, because their steps are written again."""
        for folder in damaged:
            aside = folder.with_name(folder.name + ".damaged")
            shutil.rmtree(aside, ignore_errors=True)
            folder.rename(aside)

    def load(self, step: int, model: Mistral, optimizer: TrainingOptimizer) -> None:
        """Restore one checkpoint, without `damage`'s look at it; every process must call it.

        Moments that it does not have are forgotten.

        Raises:
            ValueError: it cannot be read.
        """
        match_moments(model, optimizer, self._names(step))
        state = state_tensors(model, optimizer, step)
        self._read(step, state)
        if (found := int(state["step"])) != step:
            raise ValueError(
                f"{self.folder / f'step-{step:08d}'} holds the state of step {found}; give it its "
                "own name back, or remove it"
            )

    def differences(self, step: int, model: Mistral, optimizer: TrainingOptimizer) -> list[str]:
        """Names of tensors that differ from the present state in any bit.

        Every process must call it; all get the same answer. One tensor is read at a time.

        Raises:
            ValueError: it cannot be read.
        """
        state, saved_names = state_tensors(model, optimizer, step), self._names(step)
        different = sorted(state.keys() ^ saved_names)
        for name, tensor in state.items():
            if name in different:
                continue
            saved = torch.empty_like(tensor)
            self._read(step, {name: saved})
            if not torch.equal(local_bytes(saved), local_bytes(tensor)):
                different.append(name)
        return sorted({name for names in self.world.gather(different) for name in names})

    def _names(self, step: int) -> set[str]:
        """Names of the tensors of a checkpoint, as process 0 reads them."""
        names: set[str] = set()
        reader = dcp.FileSystemReader(self.folder / f"step-{step:08d}")
        self.world.run_on_rank0(lambda: names.update(reader.read_metadata().state_dict_metadata))
        return self.world.from_main(names)

    def _read(self, step: int, state: dict[str, Tensor]) -> None:
        """Fill tensors in place; touches nothing on the disk."""
        folder = self.folder / f"step-{step:08d}"
        try:
            dcp.load(state, storage_reader=dcp.FileSystemReader(folder))
        except CheckpointException as error:  # derives from BaseException
            raise ValueError(reason(error)) from error

    def damage(self, step: int) -> str | None:
        """Reason to distrust a checkpoint, or None; every process reads a part of the files."""
        folder = self.folder / f"step-{step:08d}"
        files = read_marker(folder)
        names, found = sorted(files)[self.world.rank :: self.world.dp_size], []
        try:
            found = differences(folder, {name: files[name] for name in names})
            problem = None
        except OSError as error:  # of the disk, and perhaps a passing one: no verdict
            problem = f"{folder} cannot be read ({error}); fix the cause and run again"
        if problem := next(filter(None, self.world.gather(problem)), None):
            raise ValueError(problem)
        found = self.world.gather(found)
        if not any(name.endswith(".distcp") for name in files):
            return f"{MARKER} is missing or unreadable"
        return next((damage for part in found for damage in part if damage), None)

    def steps(self) -> list[int]:
        """Steps of the finished checkpoints, oldest first."""
        return [step for step, _ in self._complete()]

    def _complete(self) -> list[tuple[int, Path]]:
        # As process 0 sees them: all must agree.
        return self.world.from_main(finished(self.folder) if self.world.is_main else [])

    def _prune(self) -> None:
        every = self.config.keep_every
        for step, folder in finished(self.folder)[: -self.config.keep_last]:
            if every is None or step % every:
                # Out of sight first, so that a crash in between leaves nothing half-removed.
                shutil.rmtree(folder.rename(folder.with_name(folder.name + ".tmp")))
