"""How far to go from a base to what was tuned from it: a given share of the way, or as far as a
budget of forgetting allows.

On the straight line between the two (WiSE-FT, Wortsman et al. 2022), much of what was tuned is
often there while little of the general ability is gone. Nothing promises that the loss rises evenly
along it: what is taken is the largest weight that was measured within the budget.
"""

import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from pretrained.merged import Folder, TaskArithmetic
from tokenizer.tokenizer import Tokenizer
from tools.merging.general_loss import AsWritten, GeneralLoss, GeneralLossConfig, general_loss
from tools.merging.line_search import largest_within, next_place

RECORD = "blend.json"
MAX_EVALUATIONS = 6
"""Of one search, that of the base included."""


@dataclass(kw_only=True)
class BlendConfig(GeneralLossConfig):
    """A point of the line from a base to the exported folder."""

    blend: str | None = None
    """What `folder` was tuned from (HF folder, run or adapter): written is blend + t * (folder -
    blend). Where the vocabulary has grown in between, new rows are those of `folder`."""
    blend_weight: float | None = None
    """t, from 0 (all of the base) to 1 (all of `folder`)."""
    max_general_bits_per_byte: float | None = None
    """The largest rise of the general loss over that of the base, in bits per byte; the largest t
    measured within it is taken. Negative: the loss must have fallen by so much."""

    def __post_init__(self) -> None:
        super().__post_init__()
        weight, budget = self.blend_weight, self.max_general_bits_per_byte
        if weight is not None and not 0 <= weight <= 1:
            raise ValueError(f"blend_weight={weight}: must lie in [0, 1]")
        if budget is not None and not math.isfinite(budget):
            raise ValueError(f"max_general_bits_per_byte={budget}: must be finite")
        if self.blend is None:
            for name in ("blend_weight", "max_general_bits_per_byte"):
                if getattr(self, name) is not None:
                    raise ValueError(f"{name} needs blend=<what the folder was tuned from>")
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
class Fit:
    """What a search has found.

    Attributes:
        budget: that was asked for.
        base: the loss of the base.
        measured: weight -> loss, in the order they were measured.
        weight: the largest one within the budget.
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
) -> Fit:
    """Find the largest weight whose general loss is within the budget, in a few measurements.

    Args:
        line: from the base to the only tuned model.
        tokenizers: of the base and of the tuned model.
        dtype: in which the blend will be written, see `AsWritten`.
        say: told of every measurement.

    Raises:
        ValueError: no measured weight is within the budget, or a loss is not finite.
    """
    budget = config.max_general_bits_per_byte
    assert budget is not None
    ours, theirs = tokenizers
    ((tuned, _),) = line.tuned
    with general_loss(config) as measure:
        base = measure(f"blend={line.base.folder}", line.base, ours, "stored")
        limit = base.mean + budget
        say(f"base: {base} general bits per byte; at most {limit:.4f} are allowed")
        measured: dict[float, GeneralLoss] = {}
        losses: dict[float, float] = {}
        if _begins_at_base(line, dtype) and ours.fingerprint == theirs.fingerprint:
            losses[0.0] = base.mean
        place: float | None = 1.0
        while place is not None and 1 + len(measured) < MAX_EVALUATIONS:
            what = f"{tuned.folder} blended at {place:g}"
            loss = measured[place] = measure(what, line.at(place), theirs, dtype)
            losses[place] = loss.mean
            verdict = "within" if loss.mean <= limit else "over"
            say(f"weight {place:.4f}: {loss}, {loss.mean - base.mean:+.4f}, {verdict} the budget")
            both = 0.0 in losses or losses[1.0] <= limit
            place = next_place(losses, limit) if both else 0.0
    weight = largest_within(losses, limit)
    if weight is None:
        best = min(losses, key=losses.__getitem__)
        raise ValueError(
            f"max_general_bits_per_byte={budget:g}: no blend that was measured keeps it; the best "
            f"is {losses[best] - base.mean:+.4f} at weight {best:.4f}; allow that, or train with "
            "more replay"
        )
    return Fit(budget, base, measured, weight)


def _begins_at_base(line: TaskArithmetic, dtype: str) -> bool:
    """Whether weight 0, as it is written, is the base itself."""
    if line.base.config.vocab_size != line.config.vocab_size:
        return False
    written = AsWritten(line, dtype)
    return all(
        torch.promote_types(line.base.dtype(name), written.dtype(name)) == written.dtype(name)
        for name in line.shapes
    )


def describe_blend(blend: TaskArithmetic, fit: Fit | None) -> bytes:
    """The content of `blend.json`: what was blended, at which weights, and why."""
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
