"""Evaluation of a model on tasks: predictions on disk, and their summary.

All questions are checked before the first is asked. They are asked in blocks, and process 0 writes
the predictions. With `variant=both` a question that is equal in both variants is asked once.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tqdm import tqdm

from evaluation.benchmarks.items import Task
from evaluation.multiple_choice.accuracy import summarize
from evaluation.multiple_choice.answer import PreparedItem, answer, prepare
from evaluation.multiple_choice.config import AskConfig, EvaluateConfig
from evaluation.multiple_choice.predictions import (
    open_predictions,
    read_predictions,
)
from evaluation.scoring.requests import Request
from model.transformer import Mistral
from pretrained.load import model_digest
from storage.atomic import write_json
from storage.journal import append_lines, check_settings
from storage.lock import only_writer
from tokenizer.tokenizer import Tokenizer
from training.distributed import World


def evaluate_tasks(
    config: EvaluateConfig,
    tasks: Sequence[Task],
    model: Mistral,
    tokenizer: Tokenizer,
    world: World,
) -> dict[str, Any]:
    """Answer every unanswered question; write and return `summary.json`; all processes call it.

    Raises:
        ValueError: a question cannot be asked, or `out` belongs to another command.
    """
    prepared = [prepare(task, config, tokenizer, model.config) for task in tasks]
    out = Path(config.out)
    files = [out / f"{file_stem(task)}.jsonl" for task in tasks]
    model_settings = {
        "model": model_digest(model),
        "tokenizer": tokenizer.fingerprint,
        "dtype": str(model.lm_head.weight.dtype).removeprefix("torch."),
    }
    settings = [
        task_settings(task, questions, config) | model_settings
        for task, questions in zip(tasks, prepared, strict=True)
    ]

    def check() -> None:
        for file, own in zip(files, settings, strict=True):
            check_settings(file, own)
        out.mkdir(parents=True, exist_ok=True)

    world.run_on_rank0(check)
    with _locked_by_main(out, world):
        summary: dict[str, Any] = {}
        known: dict[Request, tuple[float, ...]] = {}
        for task, questions, file, own in zip(tasks, prepared, files, settings, strict=True):
            _write(file, own, questions, known, config, model, world)
            predictions = read_predictions(file)
            known = {
                q.request: p.nats
                for q, p in zip(questions, predictions, strict=True)
                if q.request is not None
            }
            summary[file_stem(task)] = {
                **{name: own[name] for name in ("task", "variant", "shots", "scoring", "limit")},
                "moved_borders": sum(q.boundary_shift > 0 for q in questions),
                "problems": len(task.problems),
                **summarize(predictions, task.categories),
            }
        world.run_on_rank0(lambda: write_json(out / "summary.json", summary))
    return summary


def file_stem(task: Task) -> str:
    """Name of the files of a task, without extension."""
    return task.name if task.variant == "released" else f"{task.name}.{task.variant}"


def task_settings(
    task: Task, questions: Sequence[PreparedItem], config: AskConfig
) -> dict[str, Any]:
    """Settings that decide the answers to a task, without the model."""
    prompts = [None if q.prompt is None else asdict(q.prompt) for q in questions]
    for prompt in prompts:
        if prompt is not None:
            del prompt["place"]  # depends on the path of the files
    spelled = json.dumps([[q.item.id for q in questions], prompts], ensure_ascii=False)
    return {
        "task": task.name,
        "variant": task.variant,
        "shots": config.shots_for(task.name),
        "demonstration_seed": config.demonstration_seed,
        "prompt_language": (
            task.language if config.prompt_language == "auto" else config.prompt_language
        ),
        "scoring": config.scoring,
        "limit": config.limit,
        "questions": len(questions),
        "files": task.files,
        "categories": task.categories,
        "prompts": hashlib.sha256(spelled.encode()).hexdigest(),
    }


def _write(
    file: Path,
    settings: dict[str, Any],
    questions: Sequence[PreparedItem],
    known: Mapping[Request, tuple[float, ...]],
    config: EvaluateConfig,
    model: Mistral,
    world: World,
) -> None:
    """Answer the questions that are missing in a file, block by block."""
    done = [0]

    def open_file() -> None:
        done[0] = open_predictions(file, settings, config.save_every)

    world.run_on_rank0(open_file)
    first = world.from_main(done[0])
    total = len(questions)
    with tqdm(
        total=total, initial=first, desc=file.stem, unit="question", disable=not world.is_main
    ) as bar:
        while first < total:
            block = questions[first : first + config.save_every]
            predictions = answer(
                block,
                model,
                config.scoring,
                world,
                config.batch_tokens,
                known=known,
                bar=bar,
            )
            lines = [asdict(prediction) for prediction in predictions]
            world.run_on_rank0(lambda lines=lines: append_lines(file, lines))
            first += len(block)
            bar.update(first - bar.n)
    world.barrier()  # the other processes read the file


@contextmanager
def _locked_by_main(out: Path, world: World) -> Iterator[None]:
    with ExitStack() as stack:
        world.run_on_rank0(lambda: stack.enter_context(only_writer(out / ".lock", out)))
        yield
