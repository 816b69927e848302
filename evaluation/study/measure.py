"""Held-out loss by document, and facts of the embedded sample by their cloze margin.

Documents are the unit of resampling, because pieces of one document are dependent. Documents with
even numbers, in the order of the held-out file, are the development half, for the choice of
settings; odd ones are the test half.
"""

import sys
from collections.abc import Iterable, Sequence
from itertools import accumulate
from typing import NamedTuple, TypedDict

from evaluation.benchmarks.registry import open_tasks
from evaluation.multiple_choice.answer import answer, prepare
from evaluation.multiple_choice.config import AskConfig
from evaluation.scoring.loglikelihood import BATCH_TOKENS
from model.transformer import Mistral
from tokenizer.tokenizer import Tokenizer
from training.distributed import World
from training.evaluate import EvaluationConfig, build_set, evaluate

MICRO_BATCH_ROWS = 16
"""Rows of a forward pass; a row has the length of the longest piece."""


class Document(NamedTuple):
    """Loss of a held-out document: nats of all its pieces, and its size in bytes."""

    nats: float
    utf8_bytes: int


class Probe(TypedDict):
    """Answer to the question about one fact.

    The margin is the log-probability per UTF-8 byte of the right object minus that of the best of
    nine wrong ones; the answer is correct if the margin is positive.
    """

    id: str
    language: str
    domain: str
    exposures: int
    invented: bool
    correct: bool
    margin_nats_per_byte: float


def half_of(texts: Iterable[str], half: str) -> list[str]:
    """The `development` or the `test` half of held-out texts."""
    assert half in ("development", "test")
    return list(texts)[half == "test" :: 2]


def first_texts(texts: Sequence[str], max_bytes: int | None) -> list[str]:
    """First texts with at most `max_bytes` bytes together, at least one text."""
    sizes = accumulate(len(text.encode()) for text in texts)
    fitting = sum(max_bytes is None or size <= max_bytes for size in sizes)
    return list(texts[: max(1, fitting)])


def measure_documents(
    model: Mistral, tokenizer: Tokenizer, texts: Iterable[str], chunk_bytes: int, world: World
) -> list[Document]:
    """Loss of each document by `training.evaluate`, with one held-out set per document."""
    config = EvaluationConfig(chunk_bytes=chunk_bytes, max_bytes=sys.maxsize)
    sets = [
        build_set(str(number), [text], tokenizer, config, sys.maxsize)
        for number, text in enumerate(texts)
    ]
    row_length = max((len(piece.ids) for one in sets for piece in one.pieces), default=1)
    losses = evaluate(
        model, sets, row_length=row_length, micro_batch_rows=MICRO_BATCH_ROWS, world=world
    )
    return [
        Document(loss["loss_nats"] * loss["tokens"], int(loss["bytes"])) for loss in losses.values()
    ]


def measure_probes(model: Mistral, tokenizer: Tokenizer, world: World) -> list[Probe]:
    """Answers to the tasks of the embedded sample, scored as a cloze (`tasks=[sample]`)."""
    config = AskConfig(shots=0, scoring="cloze")
    probes = []
    for task in open_tasks(["sample"], None, "released"):
        items = prepare(task, config, tokenizer, model.config)
        for prediction in answer(items, model, config.scoring, world, BATCH_TOKENS):
            assert prediction.margin is not None
            probes.append(
                Probe(
                    id=prediction.id,
                    language=task.language,
                    domain=prediction.subject,
                    exposures=int(prediction.tags["exposures"]),
                    invented=prediction.tags["invented"] == "true",
                    correct=prediction.margin > 0,
                    margin_nats_per_byte=prediction.margin,
                )
            )
    return probes
