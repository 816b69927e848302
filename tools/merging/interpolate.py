"""Interpolation between a base and a model tuned from it, at a given weight or within a budget.

On the straight line between the two (WiSE-FT, Wortsman et al. 2022) a point often keeps much of
what was tuned while it loses little of the general ability. The loss need not rise evenly along the
line: the result is the largest weight that was measured within the budget.
"""

import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch

from pretrained.merged import Folder
from tokenizer.tokenizer import Tokenizer
from tools.merging.arithmetic import TaskArithmetic
from tools.merging.general_loss import AsWritten, GeneralLoss, GeneralLossConfig, general_loss

RECORD = "blend.json"
MAX_EVALUATIONS = 6
"""Evaluations of one search, that of the base included."""


@dataclass(kw_only=True)
class BlendConfig(GeneralLossConfig):
    """A point on the line from a base to the exported folder."""

    blend: str | None = None
    """Base from which `folder` was tuned (HF folder, run or adapter). Written is blend + t *
    (folder - blend). Rows of a grown vocabulary that the base lacks are those of `folder`."""
    blend_weight: float | None = None
    """t, from 0 (the base) to 1 (`folder`)."""
    max_general_bits_per_byte: float | None = None
    """Largest rise of the general loss over that of the base, in bits per byte; t is the largest
    weight that was measured within it. A negative value requires the loss to fall."""

    def __post_init__(self) -> None:
        super().__post_init__()
        weight, budget = self.blend_weight, self.max_general_bits_per_byte
        if weight is not None and not 0 <= weight <= 1:
            raise ValueError(f"blend_weight={weight}: must be in [0, 1]")
        if budget is not None and not math.isfinite(budget):
            raise ValueError(f"max_general_bits_per_byte={budget}: must be finite")
        if self.blend is None:
            for name in ("blend_weight", "max_general_bits_per_byte"):
                if getattr(self, name) is not None:
                    raise ValueError(f"{name} needs blend=<base from which the folder was tuned>")
        elif (weight is None) == (budget is None):
            raise ValueError(
                f"blend={self.blend} needs either blend_weight=<0 to 1> or "
                "max_general_bits_per_byte=<such as 0.02>"
            )
        if (budget is None) == bool(self.general):
            raise ValueError(
                f"general={self.general} with max_general_bits_per_byte={budget}: a budget needs "
                "general=[<prepared sources>], and nothing else does"
            )


@dataclass(frozen=True)
class BlendFit:
    """Result of a search within a budget.

    Attributes:
        budget: largest allowed rise of the general loss.
        base: loss of the base.
        measured: weight -> loss, in the order of the measurements.
        weight: largest measured weight within the budget.
    """

    budget: float
    base: GeneralLoss
    measured: dict[float, GeneralLoss]
    weight: float


def fit_budget(
    config: BlendConfig,
    line: TaskArithmetic,
    tokenizers: tuple[Tokenizer, Tokenizer],
    dtype: str,
    say: Callable[[str], None],
) -> BlendFit:
    """Find by bisection the largest weight whose general loss is within the budget.

    Args:
        line: from the base to the only tuned model.
        tokenizers: of the base and of the tuned model.
        dtype: dtype in which the blend will be written, see `AsWritten`.
        say: called with one line per measurement.

    Raises:
        ValueError: no measured weight is within the budget, or a loss is not finite.
    """
    budget = config.max_general_bits_per_byte
    assert budget is not None
    base_tokenizer, tokenizer = tokenizers
    ((tuned, _),) = line.tuned
    with general_loss(config) as measure:
        base = measure(f"blend={line.base.folder}", line.base, base_tokenizer, "stored")
        limit = base.mean + budget
        say(f"base: {base} general bits per byte; at most {limit:.4f} are allowed")
        measured: dict[float, GeneralLoss] = {}
        losses: dict[float, float] = {}
        if _starts_at_base(line, dtype) and base_tokenizer.fingerprint == tokenizer.fingerprint:
            losses[0.0] = base.mean
        weight: float | None = 1.0
        while weight is not None and 1 + len(measured) < MAX_EVALUATIONS:
            name = f"{tuned.folder} blended at {weight:g}"
            loss = measured[weight] = measure(name, line.at(weight), tokenizer, dtype)
            losses[weight] = loss.mean
            verdict = "within" if loss.mean <= limit else "over"
            say(f"weight {weight:.4f}: {loss}, {loss.mean - base.mean:+.4f}, {verdict} the budget")
            weight = next_weight(losses, limit)
    found = largest_within(losses, limit)
    if found is None:
        best = min(losses, key=losses.__getitem__)
        raise ValueError(
            f"max_general_bits_per_byte={budget:g}: no measured blend keeps this budget; the best "
            f"is {losses[best] - base.mean:+.4f} at weight {best:.4f}; allow that, or train with "
            "more replay"
        )
    return BlendFit(budget, base, measured, found)


def largest_within(losses: dict[float, float], limit: float) -> float | None:
    """The largest weight whose loss is within the limit; None if there is none."""
    return max((weight for weight, loss in losses.items() if loss <= limit), default=None)


def next_weight(losses: dict[float, float], limit: float) -> float | None:
    """The next weight to measure; None if weight 1 is within the limit.

    That is 0 if it is not known; else the middle between the largest weight within the limit and
    the next measured one; if none is within the limit, the middle of the wider gap next to the
    smallest loss.

    Args:
        losses: weight -> loss, with weight 1.
    """
    weights = sorted(losses)
    within = largest_within(losses, limit)
    if within == 1.0:
        return None
    if 0.0 not in losses:
        return 0.0
    gaps = list(pairwise(weights))
    if within is not None:
        low, high = gaps[weights.index(within)]
    else:
        best = min(weights, key=losses.__getitem__)
        low, high = max((gap for gap in gaps if best in gap), key=lambda gap: gap[1] - gap[0])
    return (low + high) / 2


def _starts_at_base(line: TaskArithmetic, dtype: str) -> bool:
    """Check if the tensors written at weight 0 are those of the base."""
    if line.base.config.vocab_size != line.config.vocab_size:
        return False
    written = AsWritten(line, dtype)
    return all(
        torch.promote_types(line.base.dtype(name), written.dtype(name)) == written.dtype(name)
        for name in line.shapes
    )


def describe_blend(blend: TaskArithmetic, fit: BlendFit | None) -> bytes:
    """Content of `blend.json`: the models, their weights, and the measurements of a search."""
    record: dict[str, Any] = {
        "base": _describe(blend.base),
        "tuned": [_describe(tuned) | {"weight": weight} for tuned, weight in blend.tuned],
        "shared_rows": blend.shared_rows,
    }
    if fit is not None:
        record |= {
            "max_general_bits_per_byte": fit.budget,
            "base_loss": _figures(fit.base),
            "evaluations": [{"weight": t} | _figures(loss) for t, loss in fit.measured.items()],
        }
    return (json.dumps(record, indent=2) + "\n").encode()


def _describe(source: Folder) -> dict[str, str]:
    return {"folder": str(source.folder), "digest": source.digest}


def _figures(loss: GeneralLoss) -> dict[str, Any]:
    return {"general_bits_per_byte": loss.mean, "bits_per_byte": loss.bits_per_byte}
