"""How questions are asked, and of which model."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

from evaluation.benchmarks.items import Task
from evaluation.benchmarks.registry import GROUPS, VARIANTS, expand_names, open_task
from evaluation.scoring.loglikelihood import BATCH_TOKENS
from model.device import DTYPES

SCORINGS = ("letters", "perplexity", "cloze")
LANGUAGES = ("en", "zh")

LM_EVAL = "lm_eval:"
"""Prefix of the name of a task of lm-evaluation-harness."""
RESULTS = "lm_eval.json"
"""File of the results of such tasks."""

T = TypeVar("T")


@dataclass(kw_only=True)
class AskConfig:
    """How questions are asked."""

    shots: int = 5
    """Solved questions of the same subject that precede each one."""
    shots_of: dict[str, int] = field(default_factory=dict, metadata={"free_keys": True})
    """Another number of them for some tasks: `shots_of={geobench: 0}`."""
    demonstration_seed: int | None = None
    """Draws the solved questions, anew for each subject; null takes the first ones in order."""
    prompt_language: str = "auto"
    """Of the words around the questions: `en`, `zh`; `auto` is that of the questions."""
    scoring: str = "letters"
    """`letters`: the likeliest letter; `perplexity`: the letter that makes the whole prompt
    likeliest per token; `cloze`: the option whose text is likeliest per byte, letters unseen."""
    limit: int | None = None
    """Questions per task at most, always the same ones: they are spaced evenly over the task, so
    that its subjects are all represented; null asks all."""

    def __post_init__(self) -> None:
        if self.demonstration_seed is not None and self.demonstration_seed < 0:
            raise ValueError(f"demonstration_seed={self.demonstration_seed}: must be at least 0")
        if self.limit is not None and self.limit < 1:
            raise ValueError(f"limit={self.limit}: must be at least 1; null asks all questions")
        for name, shots in {"shots": self.shots, **self.shots_of}.items():
            if shots < 0:
                field_name = "shots" if name == "shots" else f"shots_of.{name}"
                raise ValueError(f"{field_name}={shots}: must be at least 0")
        try:
            expand_names(list(self.shots_of))
        except ValueError as error:
            raise ValueError(f"shots_of: {error}") from None
        for name, choices in (
            ("scoring", SCORINGS),
            ("prompt_language", ("auto", *LANGUAGES)),
        ):
            if getattr(self, name) not in choices:
                raise ValueError(f"{name}={getattr(self, name)!r}: one of {', '.join(choices)}")

    def shots_for(self, task: str) -> int:
        """Solved questions before each one of a task: its own number, its group's, or `shots`."""
        if task in self.shots_of:
            return self.shots_of[task]
        groups = (name for name, members in GROUPS.items() if task in members)
        return next((self.shots_of[g] for g in groups if g in self.shots_of), self.shots)


def check_tasks(tasks: list[str], variant: str, shots_of: dict[str, int]) -> None:
    """ValueError for unknown names, and for shots of a task that is not asked."""
    if not tasks:
        raise ValueError("tasks: name at least one")
    names = set(expand_names(tasks))
    for name in shots_of:
        if names.isdisjoint(expand_names([name])):
            raise ValueError(f"shots_of.{name}: it is not among tasks={','.join(tasks)}")
    if variant not in (*VARIANTS, "both"):
        raise ValueError(f"variant={variant!r}: one of {', '.join(VARIANTS)}, both")


def open_tasks(
    names: list[str], benchmarks: str | None, variant: str, limit: int | None = None
) -> list[Task]:
    """Tasks by name, each in the variants asked for, with at most `limit` questions each.

    Raises:
        ValueError: files are missing or malformed.
    """
    variants = VARIANTS if variant == "both" else (variant,)
    tasks = [
        open_task(name, benchmarks, variant=one) for name in expand_names(names) for one in variants
    ]
    return [replace(task, items=tuple(spread(task.items, limit))) for task in tasks]


def spread(items: Sequence[T], limit: int | None) -> Sequence[T]:
    """At most `limit` items, evenly spaced; the first item is always among them."""
    if limit is None or limit >= len(items):
        return items
    return [items[n * len(items) // limit] for n in range(limit)]


@dataclass(kw_only=True)
class EvaluateConfig(AskConfig):
    """Which model is asked which questions."""

    folder: str
    """HF folder, finished run or adapter folder."""
    base: str | None = None
    """Of an adapter, where it does not lie where the adapter says."""
    benchmarks: str | None = None
    """Folder of the benchmarks' files; the tasks of the embedded sample need none."""
    tasks: list[str]
    """Names of tasks or of groups of tasks; `lm_eval:<name>` is a task of lm-evaluation-harness,
    which has its own prompts, of which `shots` and `limit` alone are set here."""
    variant: str = "released"
    """`released` counts every row as published figures do, `cleaned` only sound and distinct
    ones, `both` reports them side by side."""
    out: str
    """Folder of predictions and summary; the same command goes on where it stopped."""
    dtype: str = "auto"
    """`float32`, `bfloat16`; `auto` is bfloat16 on CUDA, else float32."""
    device: str = "auto"
    """`auto`, `cpu` or `cuda`."""
    batch_tokens: int = BATCH_TOKENS
    """Tokens of a forward pass; changes speed, memory and the last bits."""
    save_every: int = 512
    """Questions between two writes to disk, answered by all processes together."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.own_tasks or not self.tasks:
            check_tasks(self.own_tasks, self.variant, self.shots_of)
        if self.lm_eval_tasks:
            self._check_lm_eval()
        if self.dtype not in ("auto", *DTYPES):
            raise ValueError(f"dtype={self.dtype!r}: one of auto, {', '.join(DTYPES)}")
        for name in ("batch_tokens", "save_every"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)}: must be at least 1")

    @property
    def own_tasks(self) -> list[str]:
        """Names of this project's tasks and groups."""
        return [name for name in self.tasks if not name.startswith(LM_EVAL)]

    @property
    def lm_eval_tasks(self) -> list[str]:
        """Names of tasks of lm-evaluation-harness, as the harness spells them."""
        return [name.removeprefix(LM_EVAL) for name in self.tasks if name.startswith(LM_EVAL)]

    def _check_lm_eval(self) -> None:
        for name in ("scoring", "prompt_language", "demonstration_seed", "shots_of"):
            default = AskConfig.__dataclass_fields__[name]
            value = getattr(self, name)
            if value and value != default.default:
                raise ValueError(
                    f"{name}={value}: tasks named lm_eval:... define this themselves; evaluate "
                    "them in a separate command"
                )
        if (results := Path(self.out, RESULTS)).exists():
            raise ValueError(f"{results} exists; choose another out, or remove the file")
