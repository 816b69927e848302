"""The learning rate as a pure function of the step.

A *span* is a run of stages under one schedule: a stage with `lr: restart` begins one, a stage with
`lr: continue` prolongs the one before.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from data.rows.curriculum import StagePlan

KINDS = ("cosine", "wsd", "constant", "linear")


@dataclass(kw_only=True)
class ScheduleConfig:
    """The shape of the learning rate over a span."""

    kind: str = "cosine"
    """`cosine`, `linear` (both from the peak to the floor), `wsd` (constant, then a 1 - sqrt
    cooldown; Hu et al. 2024, Hägele et al. 2024), or `constant`."""
    warmup_fraction: float = 0.02
    """Part of the span during which the rate rises linearly from zero."""
    cooldown_fraction: float = 0.2
    """Part of the span that wsd spends falling; only wsd has one."""
    floor: float = 0.1
    """End of the decay, as a fraction of the peak: the rate that would follow the last step."""

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"schedule.kind={self.kind!r}: one of {', '.join(KINDS)}")
        for name in ("warmup_fraction", "cooldown_fraction", "floor"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"schedule.{name}={getattr(self, name)}: must be in [0, 1]")
        if self.kind == "wsd" and self.warmup_fraction + self.cooldown_fraction > 1:
            raise ValueError(
                "schedule.warmup_fraction + schedule.cooldown_fraction exceed 1: "
                f"{self.warmup_fraction} + {self.cooldown_fraction}"
            )


@dataclass(frozen=True)
class Span:
    """Steps under one schedule."""

    first_step: int
    steps: int
    peak_lr: float


def spans_of(stages: Sequence[StagePlan], peak_lr: float) -> list[Span]:
    """Cut the stages of a run into spans.

    Raises:
        ValueError: the first stage continues something that this run does not contain.
    """
    spans: list[Span] = []
    for plan in stages:
        if plan.config.lr == "restart":
            spans.append(Span(plan.first_step, plan.steps, plan.config.peak_lr or peak_lr))
            continue
        if not spans:
            raise ValueError(
                f"curriculum.stages.{plan.name}.lr=continue, but this run begins with that stage; "
                "run the earlier stage in the same run, or set lr=restart"
            )
        last = spans[-1]
        spans[-1] = Span(last.first_step, last.steps + plan.steps, last.peak_lr)
    return spans


def learning_rate(step: int, spans: Sequence[Span], config: ScheduleConfig) -> float:
    """The rate that update number `step` (from 0) uses."""
    span = next(span for span in reversed(spans) if step >= span.first_step)
    return span.peak_lr * multiplier(step - span.first_step, span.steps, config)


def multiplier(step: int, steps: int, config: ScheduleConfig) -> float:
    """Fraction of the peak at a step of a span: positive, whatever the floor.

    Warm-up reaches the peak with its last step. Decay is that of a span one step longer: the floor
    is reached after the last step, so that every step, also the only one, moves the weights.
    """
    warmup = round(config.warmup_fraction * steps)
    if step < warmup:
        return (step + 1) / warmup
    if config.kind == "constant":
        return 1.0
    decay_steps = steps - warmup
    if config.kind == "wsd":
        decay_steps = round(config.cooldown_fraction * steps)
    done = max(0.0, (step + 1 - (steps - decay_steps)) / (decay_steps + 1))
    fall = {
        "cosine": lambda: 0.5 * (1 - math.cos(math.pi * done)),
        "linear": lambda: done,
        "wsd": lambda: math.sqrt(done),
    }[config.kind]()
    return 1 - (1 - config.floor) * fall
