"""The same questions for lm-evaluation-harness, so that an outside program can check the scores.

Every task becomes a .yaml and a .jsonl file of its own. A line has the whole text before an answer
(demonstrations included, so that the harness is run with none of its own) and the answers. Broken
questions are left out, and in a cloze those that have no text of their own.
"""

import json
from dataclasses import dataclass
from pathlib import Path

from evaluation.benchmarks.items import Task
from evaluation.multiple_choice.config import AskConfig, check_tasks
from evaluation.multiple_choice.prompts import Prompt, write_prompts
from storage.lock import fsync_folder


@dataclass(kw_only=True)
class HarnessConfig(AskConfig):
    """Which questions are written, and how they are asked."""

    benchmarks: str | None = None
    """Folder of the benchmarks' files; the tasks of the embedded sample need none."""
    tasks: list[str]
    """Names of tasks, or of groups of them."""
    variant: str = "released"
    """`released`, `cleaned` or `both`."""
    out: str
    """Folder for the files; must not exist."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_tasks(self.tasks, self.variant, self.shots_of)


def export_harness(config: HarnessConfig, tasks: list[Task]) -> list[str]:
    """Write all tasks; returns the names that the harness knows them by.

    Raises:
        ValueError: `out` exists, or a question cannot be asked this way.
    """
    out = Path(config.out)
    if out.exists():
        raise ValueError(f"out={out} exists; choose another folder, or remove it")
    written = {f"jiuzhou_{task.name}_{task.variant}": write_prompts(task, config) for task in tasks}
    out.mkdir(parents=True)
    for (name, prompts), task in zip(written.items(), tasks, strict=True):
        asked = [
            _line(item.id, prompt)
            for item, prompt in zip(task.items, prompts, strict=True)
            if prompt is not None and prompt.body
        ]
        (out / f"{name}.jsonl").write_text("".join(asked), encoding="utf-8")
        blank = next(prompt.blank for prompt in prompts if prompt is not None)
        (out / f"{name}.yaml").write_text(_task(name, out, blank, config), encoding="utf-8")
    fsync_folder(out)
    return list(written)


def _line(id: str, prompt: Prompt) -> str:
    fields = {
        "id": id,
        "context": prompt.context,
        "choices": prompt.choices,
        "answer": prompt.answer,
    }
    return json.dumps(fields, ensure_ascii=False) + "\n"


def _task(name: str, out: Path, blank: str, config: AskConfig) -> str:
    """JSON, which is YAML too, but for the file, which the harness finds from anywhere."""
    # Bytes, as `cloze` divides by them; letters are one byte each, so that both are the same.
    metric = "acc_bytes" if config.scoring == "cloze" else "acc"
    return (
        json.dumps(
            {
                "task": name,
                "dataset_path": "json",
                "dataset_kwargs": {"data_files": {"test": str((out / f"{name}.jsonl").resolve())}},
                "test_split": "test",
                "output_type": "multiple_choice",
                "doc_to_text": "context",
                "doc_to_choice": "choices",
                "doc_to_target": "answer",
                "target_delimiter": blank,
                "num_fewshot": 0,
                "metric_list": [
                    {"metric": metric, "aggregation": "mean", "higher_is_better": True}
                ],
            },
            indent=1,
        )
        + "\n"
    )
