"""Parts of one update around the forward and the backward pass: settings, result, profiler."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import torch
import torch.profiler

from data.rows.curriculum import Curriculum
from data.rows.curriculum_config import REPLAY
from data.rows.loader import Batch
from model.transformer import Mistral
from training.distributed import World
from training.freeze import freeze
from training.optim import set_learning_rates
from training.schedule import ScheduleConfig, Span, learning_rate


def begin_step(
    step: int,
    plan: Curriculum,
    model: Mistral,
    optimizer: torch.optim.Optimizer,
    spans: Sequence[Span],
    schedule: ScheduleConfig,
) -> float:
    """Apply the settings of a step's stage: moments, trained parameters, learning rates.

    Args:
        step: number of the update, from 0.
        spans: steps of each learning-rate schedule.

    Returns:
        The learning rate before the multipliers of the parameter groups.
    """
    stage = plan.stage_at(step)
    if step == stage.first_step and stage.config.moments == "reset":
        optimizer.state.clear()
    freeze(model, optimizer, stage.config.trains)
    lr = learning_rate(step, spans, schedule)
    set_learning_rates(optimizer, lr, stage.config.lr_multipliers)
    return lr


@dataclass(frozen=True)
class StepResult:
    """Figures of one update.

    Attributes:
        loss_nats: mean over all supervised tokens of the step.
        grad_norm: of the trained parameters, before clipping.
        flops: of the model, over all ranks.
        sources: mean loss and number of supervised tokens of each source.
        rows: (row of the run, mean loss) of the rows that this rank computed.
    """

    loss_nats: float
    grad_norm: float
    flops: int
    sources: dict[str, dict[str, float]]
    rows: list[tuple[int, float]]

    def gather_rows(self, world: World) -> list[tuple[int, float]]:
        """`rows` of all ranks, in the order of the run; every process must call this method."""
        return sorted(chain(*world.gather(self.rows)))


def step_result(
    model: Mistral,
    batches: list[Batch],
    row_losses: list[torch.Tensor],
    *,
    sources: Mapping[str, str],
    grad_norm: float,
    supervised: float,
    tokens: int,
    pairs: int,
    world: World,
) -> StepResult:
    """Sum the figures of an update over all ranks; every process must call this function.

    Args:
        batches: micro-batches of this rank.
        row_losses: nats of each row of each micro-batch.
        sources: sources of the run, by name.
        grad_norm: global norm before clipping.
        supervised: supervised tokens of the step, over all ranks.
        tokens: tokens of the step, over all ranks.
        pairs: (query, key) pairs of attention in `batches`.
    """
    by_source = _sum_by_source(sources, batches, row_losses, world)
    (all_pairs,) = world.sum([pairs])
    return StepResult(
        loss_nats=sum(nats for nats, _ in by_source.values()) / supervised,
        grad_norm=grad_norm,
        flops=model.config.training_flops(
            tokens,
            int(all_pairs),
            frozen_layers=not model.model.norm.weight.requires_grad,
            frozen_head=not model.lm_head.weight.requires_grad,
        ),
        sources={
            name: {"loss_nats": nats / count, "tokens": int(count)}
            for name, (nats, count) in by_source.items()
        },
        rows=[
            pair
            for batch, nats in zip(batches, row_losses, strict=True)
            for pair in _loss_by_row(batch, nats)
        ],
    )


def _sum_by_source(
    sources: Mapping[str, str], batches: list[Batch], row_losses: list[torch.Tensor], world: World
) -> dict[str, tuple[float, float]]:
    """(nats, supervised tokens) of each source in a step, over all ranks; replay is one source."""
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


def _loss_by_row(batch: Batch, nats: torch.Tensor) -> Iterator[tuple[int, float]]:
    """(row of the run, nats per supervised token) of the rows with supervised tokens."""
    counts = (batch.labels >= 0).sum(1).tolist()
    for row, total, count in zip(batch.rows, nats.tolist(), counts, strict=True):
        if count:
            yield row, total / count


@contextmanager
def profiler(folder: Path, enabled: bool, rank: int) -> Iterator[Callable[[], None]]:
    """Yield a function to call after each step; it traces steps 3 to 5 of this start.

    The trace is written to profile/rank-N.json, for chrome://tracing or Perfetto.
    """
    if not enabled:
        yield lambda: None
        return
    target = folder / "profile" / f"rank-{rank}.json"
    target.parent.mkdir(exist_ok=True)
    with torch.profiler.profile(
        schedule=torch.profiler.schedule(wait=1, warmup=1, active=3, repeat=1),
        on_trace_ready=lambda trace: trace.export_chrome_trace(str(target)),
    ) as trace:
        yield trace.step
