"""Configuration of an evaluation: model, tasks, prompts, scoring."""

from dataclasses import dataclass, field
from pathlib import Path

from evaluation.benchmarks.registry import GROUPS, check_tasks, expand_names
from evaluation.scoring.loglikelihood import BATCH_TOKENS
from model.device import DTYPES

SCORINGS = ("letters", "perplexity", "cloze")
LANGUAGES = ("en", "zh")

LM_EVAL = "lm_eval:"
"""Prefix of the name of a task of lm-evaluation-harness."""
RESULTS = "lm_eval.json"
"""File of the results of such tasks."""


@dataclass(kw_only=True)
class AskConfig:
    """Prompts and scoring."""

    shots: int = 5
    """Solved questions of the same subject before each question."""
    shots_per_task: dict[str, int] = field(default_factory=dict, metadata={"free_keys": True})
    """Number of solved questions of some tasks or groups: `shots_per_task={geobench: 0}`."""
    demonstration_seed: int | None = None
    """Seed of a random choice of solved questions per subject; null: the first ones."""
    prompt_language: str = "auto"
    """Language of the words around the questions: `en`, `zh`, or `auto` (the questions' own)."""
    scoring: str = "letters"
    """`letters`: likeliest letter; `perplexity`: letter with the likeliest whole prompt per token;
    `cloze`: option whose text is likeliest per byte, without letters in the prompt."""
    limit: int | None = None
    """Most questions per task, evenly spaced over it, so that all subjects are represented and the
    choice is always the same; null: all."""

    def __post_init__(self) -> None:
        if self.demonstration_seed is not None and self.demonstration_seed < 0:
            raise ValueError(f"demonstration_seed={self.demonstration_seed}: must be at least 0")
        if self.limit is not None and self.limit < 1:
            raise ValueError(f"limit={self.limit}: must be at least 1; null asks all questions")
        for name, shots in {"shots": self.shots, **self.shots_per_task}.items():
            if shots < 0:
                field_name = "shots" if name == "shots" else f"shots_per_task.{name}"
                raise ValueError(f"{field_name}={shots}: must be at least 0")
        try:
            expand_names(list(self.shots_per_task))
        except ValueError as error:
            raise ValueError(f"shots_per_task: {error}") from None
        for name, choices in (
            ("scoring", SCORINGS),
            ("prompt_language", ("auto", *LANGUAGES)),
        ):
            if getattr(self, name) not in choices:
                raise ValueError(f"{name}={getattr(self, name)!r}: one of {', '.join(choices)}")

    def shots_for(self, task: str) -> int:
        """Number of solved questions of a task: its entry, that of its group, or `shots`."""
        if task in self.shots_per_task:
            return self.shots_per_task[task]
        groups = (name for name, members in GROUPS.items() if task in members)
        return next(
            (self.shots_per_task[g] for g in groups if g in self.shots_per_task), self.shots
        )


@dataclass(kw_only=True)
class EvaluateConfig(AskConfig):
    """Model and tasks."""

    folder: str
    """HF folder, finished run or adapter folder."""
    base: str | None = None
    """Base model of an adapter, if its path differs from the one in the adapter."""
    benchmarks: str | None = None
    """Folder of the benchmarks' files; not needed for the embedded sample."""
    tasks: list[str]
    """Names of tasks or of groups of tasks; `lm_eval:<name>` is a task of lm-evaluation-harness,
    which has its own prompts, of which `shots` and `limit` alone are set here."""
    variant: str = "released"
    """`released`: every row, like published figures; `cleaned`: distinct rows without faults;
    `both`: next to each other."""
    out: str
    """Folder of predictions and summary; the same command continues an interrupted one."""
    dtype: str = "auto"
    """`float32`, `bfloat16`; `auto` is bfloat16 on CUDA, else float32."""
    device: str = "auto"
    """`auto`, `cpu` or `cuda`."""
    batch_tokens: int = BATCH_TOKENS
    """Tokens of a forward pass; changes speed, memory and the last bits."""
    save_every: int = 512
    """Questions between writes to disk, over all processes."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.own_tasks or not self.tasks:
            check_tasks(self.own_tasks, self.variant, self.shots_per_task)
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
        for name in ("scoring", "prompt_language", "demonstration_seed", "shots_per_task"):
            default = AskConfig.__dataclass_fields__[name]
            value = getattr(self, name)
            if value and value != default.default:
                raise ValueError(
                    f"{name}={value}: tasks named lm_eval:... define this themselves; evaluate "
                    "them in a separate command"
                )
        if (results := Path(self.out, RESULTS)).exists():
            raise ValueError(f"{results} exists; choose another out, or remove the file")
