"""ModelComparison of two models on the same questions, with tests."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from evaluation.multiple_choice.accuracy import split_by_category, text_table
from evaluation.multiple_choice.predictions import (
    Prediction,
    read_predictions,
    read_settings,
)
from evaluation.statistics import Interval, mcnemar, paired_bootstrap
from storage.atomic import write_json
from storage.journal import differing

OF_THE_MODEL = ("model", "tokenizer", "dtype")
"""Settings that may differ: they identify the model."""


@dataclass(kw_only=True)
class CompareConfig:
    """Folders to compare."""

    a: str
    """Folder that `scripts.evaluate` wrote for the first model."""
    b: str
    """Folder of the second model."""
    out: str | None = None
    """A .json file for the comparison; null: print the table only."""
    seed: int = 0
    """Seed of the bootstrap."""

    def __post_init__(self) -> None:
        if self.seed < 0:
            raise ValueError(f"seed={self.seed}: must be at least 0")
        if self.out is not None and not self.out.endswith(".json"):
            raise ValueError(f"out={self.out}: must be a .json file")


@dataclass(frozen=True)
class ModelComparison:
    """Model b minus model a on some questions.

    Attributes:
        a, b: micro accuracy of each model.
        difference: b minus a; `interval`: of the difference, 95 %, by resampling questions.
        only_a, only_b: questions on which model a, or model b, scored more than the other.
        p: McNemar's exact p of no difference.
    """

    task: str
    category: str
    questions: int
    a: float
    b: float
    difference: float
    interval: Interval
    only_a: int
    only_b: int
    p: float


def compare_folders(config: CompareConfig) -> list[ModelComparison]:
    """Compare every task by category.

    Raises:
        ValueError: a folder has no or unfinished predictions, or the two folders differ in tasks
            or settings; the message names them.
    """
    one, other = _files(config.a), _files(config.b)
    if missing := one.keys() ^ other.keys():
        raise ValueError(
            f"only one of a={config.a} and b={config.b} has answered {', '.join(sorted(missing))}; "
            "evaluate the other model on them too"
        )
    pairs = [_open_pair(one[name], other[name]) for name in one]
    return [
        compare_predictions(name, category, a, b, config.seed)
        for name, (first, second, categories) in zip(one, pairs, strict=True)
        for (category, a), b in zip(
            split_by_category(first, categories).items(),
            split_by_category(second, categories).values(),
            strict=True,
        )
    ]


def compare_predictions(
    task: str, category: str, a: Sequence[Prediction], b: Sequence[Prediction], seed: int
) -> ModelComparison:
    """Compare predictions for the same questions, in the same order."""
    differences = [y.correct - x.correct for x, y in zip(a, b, strict=True)]
    only_a, only_b = sum(d < 0 for d in differences), sum(d > 0 for d in differences)
    return ModelComparison(
        task=task,
        category=category,
        questions=len(a),
        a=sum(x.correct for x in a) / len(a),
        b=sum(y.correct for y in b) / len(b),
        difference=sum(differences) / len(a),
        interval=paired_bootstrap(differences, seed=seed),
        only_a=only_a,
        only_b=only_b,
        p=mcnemar(only_a, only_b),
    )


def comparison_table(comparisons: Sequence[ModelComparison]) -> str:
    """Table with a line per task and category."""
    head = ["task", "category", "questions", "a %", "b %", "b - a [95 %]"]
    lines = []
    for c in comparisons:
        low, high = c.interval
        lines.append(
            [
                *(c.task, c.category, f"{c.questions:,}", f"{100 * c.a:.1f}", f"{100 * c.b:.1f}"),
                f"{100 * c.difference:+.1f} [{100 * low:+.1f}, {100 * high:+.1f}]",
                *(f"{c.only_a:,}", f"{c.only_b:,}", f"{c.p:.2g}"),
            ]
        )
    return text_table([*head, "only a", "only b", "McNemar p"], lines)


def write_comparison(path: Path, comparisons: Sequence[ModelComparison]) -> None:
    """Write comparisons as JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, [asdict(c) for c in comparisons])


def _files(folder: str) -> dict[str, Path]:
    """Files of predictions in a folder, by name."""
    if not Path(folder).is_dir():
        raise ValueError(f"{folder}: no such folder; give a folder that scripts.evaluate wrote")
    files = {path.stem: path for path in Path(folder).glob("*.jsonl")}
    if not files:
        raise ValueError(f"{folder}: no predictions; give a folder that scripts.evaluate wrote")
    return dict(sorted(files.items()))


def _open_pair(one: Path, other: Path) -> tuple[list[Prediction], list[Prediction], dict[str, str]]:
    settings = [_shared_settings(file) for file in (one, other)]
    if different := differing(*settings):
        raise ValueError(
            f"{one} and {other} differ in {', '.join(different)}; compare answers to the same "
            "questions with the same settings"
        )
    both = [read_predictions(file) for file in (one, other)]
    for file, predictions in zip((one, other), both, strict=True):
        if len(predictions) < settings[0]["questions"]:
            raise ValueError(
                f"{file}: {len(predictions):,} of {settings[0]['questions']:,} questions are "
                "answered; run the command that created it again to finish it"
            )
    return both[0], both[1], settings[0]["categories"]


def _shared_settings(file: Path) -> dict[str, Any]:
    settings = read_settings(file)
    return {name: value for name, value in settings.items() if name not in OF_THE_MODEL}
