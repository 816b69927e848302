"""Simulation of a training step: the real code as rank 0 of many, without data or devices.

Tensors are torch's fake tensors, which have shapes and no values. The process group is torch's fake
group, which returns at once. The counted collectives and the counted memory check the formulas of
`tools.planning.step_time` and `tools.planning.memory`.
"""

from collections import Counter
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.distributed as dist
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.distributed._tools.fsdp2_mem_tracker import FSDPMemTracker
from torch.testing._internal.distributed.fake_pg import FakeStore
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from model.adapters import add_lora
from model.config import ModelConfig
from model.device import compute_dtype
from model.lora.layer import LoraConfig
from model.transformer import Mistral
from training.distributed import World
from training.optim import OptimConfig, build_optimizer
from training.parallelize import ParallelConfig, build_mesh, parallelize, sum_over_replicas


@dataclass(frozen=True)
class SimulatedStep:
    """Collectives of one optimizer step on rank 0.

    Attributes:
        calls: collective -> number of calls.
        sizes: collective -> bytes of its whole (gathered, unscattered) tensors over all calls.
        peak: kind of memory, as named by torch's tracker -> bytes at the peak.
    """

    calls: dict[str, int]
    sizes: dict[str, int]
    peak: dict[str, int]

    @property
    def peak_bytes(self) -> int:
        """Peak of all kinds together."""
        return self.peak["Total"]


def simulate(
    shape: ModelConfig,
    parallel: ParallelConfig,
    *,
    ranks: int,
    rows: int,
    row_length: int,
    lora: LoraConfig | None = None,
    micro_batches: int = 1,
) -> SimulatedStep:
    """Run two steps (forward, loss of fully supervised rows, backward, AdamW) and count the second.

    No process group may exist. Fake tensors cannot be compiled, so blocks are not compiled and
    attention is banded.

    Args:
        rows: rows of each micro-batch.

    Raises:
        ValueError: the strategy does not fit the number of ranks.
    """
    assert not dist.is_initialized()
    dist.init_process_group("fake", rank=0, world_size=ranks, store=FakeStore())
    try:
        return _second_step(shape, parallel, ranks, (micro_batches, rows, row_length), lora)
    finally:
        dist.destroy_process_group()


def _second_step(
    shape: ModelConfig,
    parallel: ParallelConfig,
    ranks: int,
    batch: tuple[int, int, int],
    lora: LoraConfig | None,
) -> SimulatedStep:
    micro_batches, rows, row_length = batch
    parallel = replace(parallel, compile=False)
    device = torch.device("cpu")
    mesh = build_mesh(parallel, World(rank=0, dp_size=ranks, device=device, threads=1))
    with FakeTensorMode(allow_non_fake_inputs=True):
        model = Mistral(shape)
        if lora is not None:
            add_lora(model, lora, compute_dtype(parallel.dtype, device))
        parallelize(model, parallel, mesh)
        optimizer = build_optimizer(model, OptimConfig())
        tokens = torch.zeros(rows, row_length, dtype=torch.long)
        tracker = FSDPMemTracker(model, optimizer)
        tracker.track_inputs((tokens,))
        count = _Collectives()
        for _ in range(2):  # the first creates the moments
            count = _Collectives()
            with tracker, count:
                for number in range(1, micro_batches + 1):
                    tracker.reset_mod_stats()
                    sum_over_replicas(model, now=number == micro_batches)
                    losses: Any = model(tokens, labels=tokens, supervised=tokens.numel())
                    (losses.total * (ranks / tokens.numel() / micro_batches)).backward()
                optimizer.step()
                optimizer.zero_grad(set_to_none=True)
        (peak,) = tracker.get_tracker_snapshot("peak").values()
    return SimulatedStep(dict(count.calls), dict(count.sizes), {str(k): v for k, v in peak.items()})


class _Collectives(TorchDispatchMode):
    """Counts the collectives of a step."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: Counter[str] = Counter()
        self.sizes: Counter[str] = Counter()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):  # noqa: ANN001, ANN204
        out = function(*args, **(kwargs or {}))
        if function.namespace == "c10d":
            name = function.name().removeprefix("c10d::").strip("_")
            self.calls[name] += 1
            tensors = [x for x in tree_leaves((args, out)) if isinstance(x, torch.Tensor)]
            self.sizes[name] += max(x.nbytes for x in tensors)
        return out
