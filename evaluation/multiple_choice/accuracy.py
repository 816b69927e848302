"""Accuracies of predictions: micro and macro, by category, with intervals, and as a table."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from tabulate import tabulate

from evaluation.multiple_choice.predictions import Prediction
from evaluation.statistics import Interval, macro_interval, wilson

OVERALL = "all"
"""Name for all categories together."""
SAMPLES = 2_000
"""Samples of a bootstrap: enough for limits that are printed to a tenth of a percent."""


@dataclass(frozen=True)
class Accuracy:
    """Accuracy of a model on some questions.

    Attributes:
        questions: number of questions; broken ones are scored incorrect.
        broken: number of questions that were not asked.
        chance: expected accuracy of guessing, given the number of choices of each question.
        micro: share of correct answers.
        micro_interval: of `micro`, 95 %, Wilson's, for the nearest whole number of correct answers.
        macro: unweighted mean over subjects of the share of correct answers.
        macro_interval: of `macro`, 95 %, by resampling the questions within each subject.
        margin: mean difference in log-likelihood, in the unit of the scoring, between the right
            choice and the likeliest wrong one; None if no question has one.
    """

    questions: int
    broken: int
    chance: float
    micro: float
    micro_interval: Interval
    macro: float
    macro_interval: Interval
    margin: float | None


def accuracy(predictions: Sequence[Prediction]) -> Accuracy:
    """Accuracy on some questions, at least one."""
    scores = by_subject(predictions)
    correct = sum(p.correct for p in predictions)
    return Accuracy(
        questions=len(predictions),
        broken=sum(not p.nats for p in predictions),
        chance=sum(1 / len(p.nats) for p in predictions if p.nats) / len(predictions),
        micro=correct / len(predictions),
        micro_interval=wilson(round(correct), len(predictions)),
        macro=macro_accuracy(predictions),
        macro_interval=macro_interval(list(scores.values()), samples=SAMPLES),
        margin=_mean_margin(predictions),
    )


def by_subject(predictions: Sequence[Prediction]) -> dict[str, list[float]]:
    """Scores of the questions, by subject."""
    scores: dict[str, list[float]] = {}
    for prediction in predictions:
        scores.setdefault(prediction.subject, []).append(prediction.correct)
    return scores


def macro_accuracy(predictions: Sequence[Prediction]) -> float:
    """Unweighted mean over subjects of the share of correct answers."""
    scores = by_subject(predictions).values()
    return sum(sum(one) / len(one) for one in scores) / len(scores)


def split_by_category(
    predictions: Sequence[Prediction], categories: Mapping[str, str]
) -> dict[str, list[Prediction]]:
    """Predictions by category, without empty categories; `all` comes last."""
    split: dict[str, list[Prediction]] = {name: [] for name in categories.values()}
    for prediction in predictions:
        split[categories[prediction.subject]].append(prediction)
    return {name: one for name, one in split.items() if one} | {OVERALL: list(predictions)}


def summarize(predictions: Sequence[Prediction], categories: Mapping[str, str]) -> dict[str, Any]:
    """Accuracy by category, by subject and, where a value is not rare, by tag; for summary.json."""
    subjects, tags = {}, {}
    for prediction in predictions:
        subjects.setdefault(prediction.subject, []).append(prediction)
        for name, value in prediction.tags.items():
            tags.setdefault(name, {}).setdefault(value, []).append(prediction)
    return {
        "categories": {
            name: asdict(accuracy(one))
            for name, one in split_by_category(predictions, categories).items()
        },
        "subjects": {name: _briefly(one) for name, one in subjects.items()},
        # A tag with a different value for most questions is an identifier, not a group.
        "tags": {
            name: {value: _briefly(one) for value, one in sorted(values.items())}
            for name, values in tags.items()
            if 10 * len(values) <= len(predictions)
        },
    }


def _briefly(predictions: Sequence[Prediction]) -> dict[str, Any]:
    """Accuracy without the fields that need several subjects."""
    correct = sum(p.correct for p in predictions)
    return {
        "questions": len(predictions),
        "micro": correct / len(predictions),
        "micro_interval": wilson(round(correct), len(predictions)),
        "margin": _mean_margin(predictions),
    }


def _mean_margin(predictions: Sequence[Prediction]) -> float | None:
    margins = [p.margin for p in predictions if p.margin is not None]
    return sum(margins) / len(margins) if margins else None


def table(summary: Mapping[str, Mapping[str, Any]]) -> str:
    """Accuracies by category of every task, with its variants next to each other.

    Args:
        summary: result of `summarize` for each file of predictions, with its `task` and `variant`.
    """
    variants = list(dict.fromkeys(one["variant"] for one in summary.values()))
    rows: dict[tuple[str, str], dict[str, Any]] = {}
    for one in summary.values():
        for category, found in one["categories"].items():
            rows.setdefault((one["task"], category), {})[one["variant"]] = found
    head = ["task", "category"]
    for variant in variants:
        head += [f"questions ({variant})", "chance", "micro % [95 %]", "macro % [95 %]", "margin"]
    lines = []
    for (task, category), found in rows.items():
        line = [task, category]
        for variant in variants:
            line += _cells(found[variant]) if variant in found else [""] * 5
        lines.append(line)
    return text_table(head, lines)


def _cells(found: Mapping[str, Any]) -> list[str]:
    cells = [f"{found['questions']:,}", f"{100 * found['chance']:.1f}"]
    for kind in ("micro", "macro"):
        low, high = found[f"{kind}_interval"]
        cells.append(f"{100 * found[kind]:.1f} [{100 * low:.1f}, {100 * high:.1f}]")
    return [*cells, "" if found["margin"] is None else f"{found['margin']:+.3f}"]


def text_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Table for a terminal: two columns of text, then numbers."""
    sides = ["left", "left", *["right"] * (len(head) - 2)]
    return tabulate(rows, head, tablefmt="plain", colalign=sides, disable_numparse=True)
