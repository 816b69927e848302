"""Held-out loss by document, and facts of the embedded sample by their cloze margin.

Documents are the unit of resampling, because pieces of one document are dependent. Documents with
even numbers, in the order of the held-out file, are the development half, for the choice of
settings; odd ones are the test half.
"""

from collections.abc import Iterable, Sequence
from itertools import accumulate
from typing import NamedTuple, TypedDict

import torch

from evaluation.benchmarks.registry import open_tasks
from evaluation.multiple_choice.answer import answer, prepare
from evaluation.multiple_choice.config import AskConfig
from model.documents import Documents
from model.labels import IGNORE_INDEX
from model.transformer import Mistral
from tokenizer.tokenizer import Tokenizer
from training.distributed import World
from training.evaluate import cut_text

BATCH_TOKENS = 4096
"""Tokens of a forward pass, including padding."""


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
    model: Mistral, tokenizer: Tokenizer, texts: Iterable[str], chunk_bytes: int
) -> list[Document]:
    """Loss of each document, cut into pieces like in `training.evaluate`."""
    documents = list(texts)
    cut = [list(cut_text(text, chunk_bytes)) for text in documents]
    encoded = tokenizer.encode_batch([piece for pieces in cut for piece in pieces])
    nats = iter(
        piece_losses(model, [[tokenizer.bos_id, *ids, tokenizer.eos_id] for ids in encoded])
    )
    return [
        Document(sum(next(nats) for _ in pieces), len(text.encode()))
        for text, pieces in zip(documents, cut, strict=True)
    ]


@torch.inference_mode()
def piece_losses(
    model: Mistral, pieces: Sequence[Sequence[int]], batch_tokens: int = BATCH_TOKENS
) -> list[float]:
    """Nats of each piece without its first id; pieces of similar length share a pass."""
    order = sorted(range(len(pieces)), key=lambda n: len(pieces[n]))
    losses = [0.0] * len(pieces)
    device = model.lm_head.weight.device
    while order:
        width = len(pieces[order[-1]])
        count = max(1, batch_tokens // width)
        order, chosen = order[:-count], order[-count:]
        tokens = torch.zeros(len(chosen), width, dtype=torch.int64)
        labels = torch.full_like(tokens, IGNORE_INDEX)
        segments = torch.zeros_like(tokens, dtype=torch.int32)
        for row, n in enumerate(chosen):
            length = len(pieces[n])
            tokens[row, :length] = torch.tensor(pieces[n])
            labels[row, : length - 1] = tokens[row, 1:length]
            segments[row, :length] = 1
        documents = Documents.from_segments(segments).to(device)
        rows = model(tokens.to(device), documents=documents, labels=labels.to(device)).rows
        for n, nats in zip(chosen, rows.tolist(), strict=True):
            losses[n] = nats
    return losses


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
