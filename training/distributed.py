"""The processes of a run: one per device, joined in a group whether torchrun started them or not.

A single process also forms a group, so that the loop needs no special case.
"""

import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import torch
import torch.distributed as dist

from model.device import choose_device, keep_freed_memory
from storage.errors import system_error

T = TypeVar("T")

_LAUNCHER = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


@dataclass(frozen=True)
class World:
    """This process among all.

    Attributes:
        rank: its number, from 0.
        dp_size: number of processes; each computes its own rows (data parallelism).
        device: where it computes.
        threads: CPU threads it uses.
        group: what its collectives run on; None means the default group.
        backend: of collectives on the CPU.
    """

    rank: int
    dp_size: int
    device: torch.device
    threads: int
    group: dist.ProcessGroup | None = None
    backend: str = "gloo"

    def background_group(self) -> "World":
        """The same processes with a separate CPU group, for the background thread."""
        return replace(self, group=dist.new_group(backend=self.backend))

    @property
    def is_main(self) -> bool:
        """True on rank 0, which writes the run folder and prints."""
        return self.rank == 0

    def sum(self, values: Sequence[float]) -> list[float]:
        """Element-wise sum over all processes in fp64; every process must call it."""
        total = torch.tensor(values, dtype=torch.float64)
        dist.all_reduce(total, group=self.group)
        return total.tolist()

    def from_main(self, value: T) -> T:
        """Process 0's value, on every process."""
        box = [value]
        dist.broadcast_object_list(box, src=0, group=self.group)
        return box[0]

    def print(self, message: str) -> None:
        """Print once, from process 0."""
        if self.is_main:
            print(message, flush=True)

    def gather(self, value: T) -> list[T]:
        """Every process's value, by rank, on every process."""
        values: list[Any] = [None] * self.dp_size
        dist.all_gather_object(values, value, group=self.group)
        return values

    def run_on_rank0(self, work: Callable[[], None]) -> None:
        """Run a function on rank 0; its ValueError or OSError is a ValueError on all ranks."""
        problem = None
        if self.is_main:
            try:
                work()
            except ValueError as error:
                problem = str(error)
            except OSError as error:
                problem = system_error(error)
        if problem := self.from_main(problem):
            raise ValueError(problem)

    def barrier(self) -> None:
        """Wait for all processes."""
        dist.barrier(group=self.group)

    def check_agreement(self, what: str, value: str) -> None:
        """ValueError on every process unless all hold the same value."""
        values = self.gather(value)
        if len(set(values)) > 1:
            ranks = [rank for rank, other in enumerate(values) if other != values[0]]
            raise ValueError(
                f"{what} of ranks {ranks} differs from rank 0's; start all ranks with the same one"
            )


@contextmanager
def start_world(device: str) -> Iterator[World]:
    """Join the process group that torchrun describes, or form a group of one.

    CPU collectives run on gloo in addition to NCCL, so that objects and counts never touch the
    device. One process needs neither an address nor a network interface.

    Raises:
        ValueError: the device is unknown or absent, or a variable of the launcher is wrong.
    """
    launch = read_launch(os.environ)
    if launch.ignored:
        print(
            f"{', '.join(launch.ignored)} without RANK: ignored, this is a run of one process "
            "(torchrun starts several)",
            file=sys.stderr,
        )
    rank, size = launch.rank, launch.size
    chosen = choose_device(device, launch.local_rank)
    # torchrun sets one thread per process; we share out all cores instead.
    threads = max(1, _usable_cores() // launch.local_size)
    torch.set_num_threads(threads)
    backend = "gloo"
    if chosen.type == "cpu":
        keep_freed_memory()
    else:
        torch.cuda.set_device(chosen)
        # Read once, at the process's first product: for runs that ask for a fixed order, and of no
        # consequence to others.
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        backend = "cpu:gloo,cuda:nccl"
    on_cpu = "gloo"
    if size > 1:
        dist.init_process_group(backend)
    else:
        on_cpu = _join_alone(backend)
    try:
        yield World(rank=rank, dp_size=size, device=chosen, threads=threads, backend=on_cpu)
    finally:
        dist.destroy_process_group()


def _join_alone(backend: str) -> str:
    """Form a group of one; returns what its CPU collectives run on.

    gloo wants a network interface even then. Where there is none, torch's own stand-in for it does:
    its collectives return their input, which is correct for one process.
    """
    options: dict[str, Any] = {"store": dist.HashStore(), "rank": 0, "world_size": 1}
    try:
        dist.init_process_group(backend, **options)
    except RuntimeError as error:
        if "interface" not in str(error):
            raise
        if dist.is_initialized():
            dist.destroy_process_group()
        import torch.testing._internal.distributed.fake_pg  # noqa: F401 registers the backend

        dist.init_process_group(backend.replace("gloo", "fake"), **options)
        return "fake"
    return "gloo"


@dataclass(frozen=True)
class Launch:
    """Launch of this process.

    Attributes:
        local_rank, local_size: its number on this machine, and how many there are.
        ignored: variables of a launcher that mean nothing here, with their values.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    local_size: int = 1
    ignored: tuple[str, ...] = ()


def read_launch(environment: Mapping[str, str]) -> Launch:
    """Rank and world size from a launcher such as torchrun; a process without RANK is alone.

    An empty variable is an absent one: job templates export names without values.

    Raises:
        ValueError: a variable is not a number, out of range, or missing; the message names it.
    """
    given = {name: environment.get(name, "").strip() for name in _LAUNCHER}
    numbers: dict[str, int] = {}
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_PORT"):
        if not given[name]:
            continue
        if not re.fullmatch(r"[0-9]{1,9}", given[name]):
            raise ValueError(
                f"{name}={given[name]!r} in the environment is not a whole number >= 0; unset "
                f"{name}, or start with torchrun, which sets it"
            )
        numbers[name] = int(given[name])
    if "RANK" not in numbers:
        sizes = {name: numbers.get(name, 1) for name in ("WORLD_SIZE", "LOCAL_WORLD_SIZE")}
        wrong = [f"{name}={size}" for name, size in sizes.items() if size != 1]
        return Launch(local_rank=numbers.get("LOCAL_RANK", 0), ignored=tuple(wrong))
    rank, size = numbers["RANK"], numbers.get("WORLD_SIZE", 0)
    if rank >= size:
        shown = f"WORLD_SIZE={size}" if "WORLD_SIZE" in numbers else "no WORLD_SIZE"
        raise ValueError(
            f"RANK={rank} with {shown} in the environment: ranks are numbered from 0 to "
            "WORLD_SIZE - 1; start with torchrun, or unset RANK to run one process"
        )
    for name in ("MASTER_ADDR", "MASTER_PORT"):
        if size > 1 and not given[name]:
            raise ValueError(
                f"RANK={rank} and WORLD_SIZE={size} without {name} in the environment: start with "
                "torchrun, which sets it, or unset RANK to run one process"
            )
    return Launch(
        rank=rank,
        size=size,
        local_rank=numbers.get("LOCAL_RANK", 0),
        local_size=max(1, numbers.get("LOCAL_WORLD_SIZE", 1)),
    )


@contextmanager
def deterministic_algorithms(wanted: bool) -> Iterator[None]:
    """Select algorithms that add in a fixed order, inside the context and if `wanted`.

    The setting is torch's; the attention backends of this project read it too. Operations without
    such an algorithm raise a RuntimeError. cuBLAS needs the environment variable that `start_world`
    sets.
    """
    memory: Any = torch.utils.deterministic  # a module with a property
    before, fills = torch.get_deterministic_debug_mode(), memory.fill_uninitialized_memory
    if wanted:
        torch.use_deterministic_algorithms(True)
        # Uninitialized memory is never read here; filling it would cost a pass over all memory.
        memory.fill_uninitialized_memory = False
    try:
        yield
    finally:
        torch.set_deterministic_debug_mode(before)
        memory.fill_uninitialized_memory = fills


def _usable_cores() -> int:
    if hasattr(os, "sched_getaffinity"):  # Linux: what this process may use
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
