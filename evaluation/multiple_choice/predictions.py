"""Predictions of a model, one per question, in files that the same command continues.

`<task>.jsonl` has a line per question in the order of the task, appended and forced to disk in
blocks; `<task>.settings.json` next to it has the settings. The same command continues after the
last complete block, a different command is refused, so that interruptions do not change a file.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evaluation.benchmarks.items import LETTERS, Item
from evaluation.multiple_choice.prompts import Prompt
from storage.journal import cut_lines, open_journal, settings_file


@dataclass(frozen=True)
class Prediction:
    """Answer of a model to one question.

    Attributes:
        id: of the question.
        answer: letter of the right choice; A in a cloze with distractors, which follow it.
        prediction: letter of the likeliest choice, or letters of equally likely ones; empty if the
            question is broken.
        correct: 1 or 0, or 1/n if n choices are likeliest and the right choice is one of them: the
            mean score of drawing one of them.
        nats: negative log-likelihood of each choice, in nats: `letters` unscaled, `perplexity` per
            id of the whole prompt, `cloze` per UTF-8 byte of the choice.
        margin: difference in log-likelihood between the right choice and the likeliest wrong one;
            None if the question is broken or has one choice.
        tags: of the question.
    """

    id: str
    subject: str
    answer: str
    prediction: str
    correct: float
    nats: tuple[float, ...]
    margin: float | None
    tags: dict[str, str]


def predict(item: Item, prompt: Prompt | None, nats: Sequence[float]) -> Prediction:
    """Prediction from the negative log-likelihoods of the choices.

    Args:
        prompt: None for a broken question.

    Raises:
        ValueError: a log-likelihood is not finite.
    """
    if prompt is None:
        right = item.letters[item.answer] if item.answer < len(item.letters) else ""
        return Prediction(item.id, item.subject, right, "", 0.0, (), None, item.tags)
    if not all(map(math.isfinite, nats)):
        raise ValueError(
            f"{item.place}: the log-likelihoods {list(nats)} are not finite; the weights are "
            "damaged, or dtype= is too narrow for them"
        )
    likeliest = [n for n, x in enumerate(nats) if x == min(nats)]
    wrong = [x for n, x in enumerate(nats) if n != prompt.answer]
    return Prediction(
        id=item.id,
        subject=item.subject,
        answer=LETTERS[prompt.answer],
        prediction="".join(LETTERS[n] for n in likeliest),
        correct=1 / len(likeliest) if prompt.answer in likeliest else 0.0,
        nats=tuple(nats),
        margin=min(wrong) - nats[prompt.answer] if wrong else None,
        tags=item.tags,
    )


def open_predictions(file: Path, settings: dict[str, Any], save_every: int) -> int:
    """Create or continue a file; returns the number of its predictions: all, or complete blocks.

    A last block that was not finished is cut off.
    """
    lines = open_journal(file, settings)
    if len(lines) < settings["questions"]:
        lines = lines[: len(lines) // save_every * save_every]
        cut_lines(file, lines)
    return len(lines)


def read_predictions(file: Path) -> list[Prediction]:
    """All predictions of a file.

    Raises:
        ValueError: a line is not a prediction; the message names it.
    """
    predictions = []
    for number, line in enumerate(file.read_text(encoding="utf-8").split("\n")[:-1], start=1):
        try:
            fields = json.loads(line)
            predictions.append(Prediction(**(fields | {"nats": tuple(fields["nats"])})))
        except (ValueError, TypeError, KeyError) as error:
            raise ValueError(f"{file}, line {number}: not a prediction ({error})") from None
    return predictions


def read_settings(file: Path) -> dict[str, Any]:
    """Settings of a file of predictions; ValueError if they are missing."""
    note = settings_file(file)
    if not note.is_file():
        raise ValueError(f"{note}: no such file; give a folder that scripts.evaluate wrote")
    return json.loads(note.read_text(encoding="utf-8"))
