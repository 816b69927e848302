"""Benchmarks that a run answers while it trains."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from evaluation.benchmarks.registry import check_tasks, open_tasks
from evaluation.multiple_choice.answer import PreparedItem, accuracies, prepare
from evaluation.multiple_choice.config import AskConfig
from evaluation.scoring.loglikelihood import BATCH_TOKENS
from model.config import ModelConfig
from model.transformer import Mistral
from tokenizer.tokenizer import Tokenizer
from training.distributed import World


@dataclass(kw_only=True)
class TasksConfig(AskConfig):
    """Benchmarks during training, and their frequency."""

    names: list[str] = field(default_factory=list)
    """Tasks, or groups of tasks; empty: no benchmarks."""
    benchmarks: str | None = None
    """Folder of the benchmarks' files; not needed for the embedded sample."""
    variant: str = "cleaned"
    """`released` or `cleaned` rows, or `both`."""
    every: int = 1000
    """Steps between evaluations; the start and the last step are always evaluated."""
    batch_tokens: int = BATCH_TOKENS
    """Tokens of a forward pass."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.names:
            check_tasks(self.names, self.variant, self.shots_per_task)
        for name in ("every", "batch_tokens"):
            if getattr(self, name) < 1:
                raise ValueError(f"tasks.{name}={getattr(self, name)}: must be at least 1")


@dataclass(frozen=True)
class TrainingTasks:
    """Prepared questions of every task; false without tasks."""

    questions: Mapping[str, Sequence[PreparedItem]]
    config: TasksConfig

    def __bool__(self) -> bool:
        return bool(self.questions)

    def ask(self, model: Mistral, world: World) -> dict[str, dict[str, float | None]]:
        """Accuracy and mean margin of each task; see `accuracies`."""
        size = self.config.batch_tokens
        return accuracies(self.questions, model, self.config, world, batch_tokens=size)


def prepare_tasks(config: TasksConfig, tokenizer: Tokenizer, shape: ModelConfig) -> TrainingTasks:
    """Prepare the questions of every task of a configuration, as this tokenizer spells them.

    Raises:
        ValueError: files are missing or malformed, or a question cannot be asked.
    """
    if not config.names:
        return TrainingTasks({}, config)
    several = config.variant == "both"
    try:
        questions = {
            f"{task.name}.{task.variant}" if several else task.name: prepare(
                task, config, tokenizer, shape
            )
            for task in open_tasks(config.names, config.benchmarks, config.variant, config.limit)
        }
    except ValueError as error:
        raise ValueError(
            f"{error} (in a run these options are tasks.benchmarks, tasks.shots ...)"
        ) from None
    return TrainingTasks(questions, config)
