"""What a model has learnt: held-out loss document by document, and facts by their cloze margin.

Documents are the unit that intervals are made of, since pieces of one are alike. Those with even
numbers, in the order of the held-out file, are the development half, which settings may be chosen
on; the odd ones are the test half, which nothing is chosen on.
"""

from collections.abc import Iterable, Sequence
from itertools import accumulate
from typing import NamedTuple, TypedDict

import torch

from data.sample.probes import Question
from evaluation.scoring.loglikelihood import score
from evaluation.scoring.requests import Request
from model.documents import Documents
from model.labels import IGNORE_INDEX
from model.transformer import Mistral
from tokenizer.tokenizer import Tokenizer
from training.evaluate import cut_text

BATCH_TOKENS = 4096
"""Of one forward pass, padding included."""


class Document(NamedTuple):
    """Loss of a held-out document: nats of all its pieces, and its size."""

    nats: float
    utf8_bytes: int


class Probe(TypedDict):
    """How one fact was completed.

    The margin is that of the right object's log-probability per UTF-8 byte over that of the best of
    nine wrong ones; positive is correct.
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
    """The first texts that together have no more bytes, at least one."""
    sizes = accumulate(len(text.encode()) for text in texts)
    fitting = sum(max_bytes is None or size <= max_bytes for size in sizes)
    return list(texts[: max(1, fitting)])


def measure_documents(
    model: Mistral, tokenizer: Tokenizer, texts: Iterable[str], chunk_bytes: int
) -> list[Document]:
    """Loss of each document, in pieces as in-loop evaluation cuts them (`training.evaluate`)."""
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
    """Nats of each piece, of all its ids but the first; pieces of like length share a pass."""
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


def measure_probes(
    model: Mistral, tokenizer: Tokenizer, questions: Sequence[Question]
) -> list[Probe]:
    """Complete the cloze of each fact with its object and with nine wrong ones."""
    found: list[Probe | None] = [None] * len(questions)
    requests = [probe_request(question, tokenizer) for question in questions]
    for number, scored in score(model, requests, context=False):
        question = questions[number]
        texts = [question.options[question.answer], *question.distractors]
        right, *wrong = (
            -nats / len(text.encode()) for nats, text in zip(scored.endings, texts, strict=True)
        )
        found[number] = Probe(
            id=question.fact_id,
            language=question.language,
            domain=question.domain,
            exposures=question.exposures,
            invented=question.invented,
            correct=right > max(wrong),
            margin_nats_per_byte=right - max(wrong),
        )
    return [probe for probe in found if probe is not None]


def probe_request(question: Question, tokenizer: Tokenizer) -> Request:
    """The cloze as a context, and its right object followed by the wrong ones as endings.

    Tokens that straddle the border between the two belong to the endings.
    """
    blank = " " if question.language == "en" else ""
    texts = [question.options[question.answer], *question.distractors]
    whole = tokenizer.encode_batch([question.cloze + blank + text for text in texts])
    shared = common_length([tokenizer.encode(question.cloze), *whole])
    body, endings = whole[0][:shared], tuple(tuple(ids[shared:]) for ids in whole)
    return Request((tokenizer.bos_id,), tuple(body), endings)


def common_length(sequences: Sequence[Sequence[int]]) -> int:
    """How many ids some sequences begin with in common; each but the first keeps one at least."""
    most = min(len(ids) for ids in sequences)
    most = min(most, *(len(ids) - 1 for ids in sequences[1:]))
    first = sequences[0]
    return next(
        (n for n in range(most) if any(ids[n] != first[n] for ids in sequences)),
        most,
    )
