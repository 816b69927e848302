"""What one update tells: losses by source and by row, over all ranks."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch

from data.rows.curriculum_config import REPLAY
from data.rows.loader import Batch
from training.distributed import World


@dataclass(frozen=True)
class StepResult:
    """One update.

    Attributes:
        loss_nats: mean over all supervised tokens of the step.
        grad_norm: of what is trained, before clipping.
        flops: of the model, over all ranks.
        sources: mean loss and tokens of each source.
        rows: (row of the run, mean loss) of each row that this rank has seen.
    """

    loss_nats: float
    grad_norm: float
    flops: int
    sources: dict[str, dict[str, float]]
    rows: list[tuple[int, float]]


def sum_by_source(
    sources: Iterable[str], batches: list[Batch], row_losses: list[torch.Tensor], world: World
) -> dict[str, tuple[float, float]]:
    """(nats, supervised tokens) of each source in a step, over all ranks; replay counts as one."""
    names = sorted({*sources, REPLAY})
    sums = torch.zeros(2, len(names), dtype=torch.float64)
    for batch, losses in zip(batches, row_losses, strict=True):
        tokens = (batch.labels >= 0).sum(1)
        for source, nats, count in zip(batch.sources, losses.cpu(), tokens, strict=True):
            if source:
                sums[:, names.index(source)] += torch.stack([nats, count])
    total = world.sum(sums.flatten().tolist())
    by_name = zip(names, total[: len(names)], total[len(names) :], strict=True)
    return {name: (nats, tokens) for name, nats, tokens in by_name if tokens}


def loss_by_row(batch: Batch, nats: torch.Tensor) -> Iterator[tuple[int, float]]:
    """(row of the run, nats per supervised token) of the rows that have any."""
    counts = (batch.labels >= 0).sum(1).tolist()
    for row, total, count in zip(batch.rows, nats.tolist(), counts, strict=True):
        if count:
            yield row, total / count
