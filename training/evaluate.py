"""Held-out loss in nats per token and bits per UTF-8 byte.

A set of documents is a list of pieces of about `chunk_bytes` bytes, cut at character borders; a
piece is BOS + ids + EOS and every id after BOS is predicted. A set of conversations is a list of
them, whole, in which what training predicts is predicted: the answers. The pieces do not depend on
row length, batch or ranks, and bits per byte do not depend on the vocabulary, so that runs can be
compared.
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import torch

from data.rows.conversations import Conversations
from data.rows.loader import Batch
from data.rows.sources import AnySource
from model.documents import Documents
from model.labels import IGNORE_INDEX
from model.transformer import Mistral
from tokenizer.chat import Encoded, encode_conversation
from tokenizer.tokenizer import Tokenizer
from training.distributed import World
from training.parallelize import reshard


@dataclass(kw_only=True)
class EvaluationConfig:
    """In-loop evaluation on the held-out text of every source."""

    every: int = field(default=500, metadata={"launch": True})
    """Steps between evaluations; the start and the last step are always evaluated."""
    chunk_bytes: int = 240
    """UTF-8 bytes per piece; one value per study, small enough for the shortest rows compared."""
    max_bytes: int = 100_000
    """Text used per set, from its beginning."""

    def __post_init__(self) -> None:
        for name, least in (("every", 1), ("chunk_bytes", 4), ("max_bytes", 4)):
            if getattr(self, name) < least:
                raise ValueError(
                    f"evaluation.{name}={getattr(self, name)}: must be at least {least}"
                )


@dataclass(frozen=True)
class HeldOutSet:
    """Tokenized held-out text of a source.

    Attributes:
        name: of the source.
        pieces: ids, and which of them are to be predicted.
        utf8_bytes: size of the text that is predicted.
    """

    name: str
    pieces: list[Encoded]
    utf8_bytes: int


@dataclass(frozen=True)
class HeldOut:
    """Held-out sets of a run and the batches in which they are evaluated.

    Attributes:
        sets: what the sources have held out.
        row_length: tokens per row.
        micro_batch_rows: rows per forward pass of one rank.
    """

    sets: list[HeldOutSet]
    row_length: int
    micro_batch_rows: int

    def evaluate(self, model: Mistral, world: World) -> dict[str, dict[str, float]]:
        """Loss on every set, see `evaluate`; every process must call this method."""
        return evaluate(
            model,
            self.sets,
            row_length=self.row_length,
            micro_batch_rows=self.micro_batch_rows,
            world=world,
        )


def cut_text(text: str, chunk_bytes: int) -> Iterator[str]:
    """Cut a text into pieces of at most `chunk_bytes` UTF-8 bytes, never inside a character."""
    encoded = text.encode()
    start = 0
    while start < len(encoded):
        stop = min(start + chunk_bytes, len(encoded))
        # Continuation bytes look like 10xxxxxx: step back to the start of a character.
        while stop < len(encoded) and encoded[stop] & 0xC0 == 0x80:
            stop -= 1
        yield encoded[start:stop].decode()
        start = stop


def held_out_sets(
    sources: Mapping[str, AnySource],
    tokenizer: Tokenizer,
    config: EvaluationConfig,
    row_length: int,
) -> list[HeldOutSet]:
    """Tokenized held-out text of every source that has some.

    Raises:
        ValueError: one is empty, or has a piece that does not fit a row.
    """
    options = (tokenizer, config, row_length)
    return [
        build_answer_set(name, source, *options)
        if isinstance(source, Conversations)
        else build_set(name, source.held_out(), *options)
        for name, source in sources.items()
        if source.held_out_documents
    ]


def build_set(
    name: str,
    texts: Iterable[str],
    tokenizer: Tokenizer,
    config: EvaluationConfig,
    row_length: int,
) -> HeldOutSet:
    """Cut and tokenize a held-out text.

    Raises:
        ValueError: the text is empty, or a piece does not fit a row.
    """
    cut = list(_first_pieces(texts, config))
    encoded = tokenizer.encode_batch(cut)
    pieces = [after_bos([tokenizer.bos_id, *ids, tokenizer.eos_id]) for ids in encoded]
    built = HeldOutSet(name, pieces, sum(len(piece.encode()) for piece in cut))
    _check_set(built, row_length, f"make evaluation.chunk_bytes={config.chunk_bytes} smaller")
    return built


def build_answer_set(
    name: str,
    source: Conversations,
    tokenizer: Tokenizer,
    config: EvaluationConfig,
    row_length: int,
) -> HeldOutSet:
    """Tokenize held-out conversations, until what is predicted of them is `max_bytes` long.

    Those that training would truncate are left out.

    Raises:
        ValueError: no conversation is left, or one does not fit a row.
    """
    settings = source.manifest["settings"]
    train_on, pieces, size = settings["train_on"], [], 0
    for messages in source.held_out():
        encoded = encode_conversation(tokenizer, messages, train_on=train_on)
        if len(encoded.ids) > settings["max_tokens"]:
            continue
        predicted = [
            m for m in messages if m.train and (train_on == "all" or m.role == "assistant")
        ]
        more = sum(len(message.content.encode()) for message in predicted)
        if size + more > config.max_bytes:
            break
        size += more
        pieces.append(encoded)
    if not pieces:
        raise ValueError(
            f"no held-out conversation of {name} fits max_tokens={settings['max_tokens']} and "
            f"evaluation.max_bytes={config.max_bytes}; prepare it with a larger held_out_fraction, "
            "or 0, or raise evaluation.max_bytes"
        )
    built = HeldOutSet(name, pieces, size)
    _check_set(built, row_length, "prepare it with a smaller max_tokens")
    return built


def after_bos(ids: list[int]) -> Encoded:
    """A piece of which everything but the first id is predicted."""
    return Encoded(ids, [False] + [True] * (len(ids) - 1))


def _check_set(built: HeldOutSet, row_length: int, remedy: str) -> None:
    if not built.pieces:
        raise ValueError(
            f"the held-out text of {built.name} is empty; prepare the source with a larger "
            "held_out_fraction, or raise evaluation.max_bytes"
        )
    longest = max(len(piece.ids) for piece in built.pieces)
    if longest > row_length:
        raise ValueError(
            f"a held-out piece of {built.name} has {longest} tokens, rows have {row_length}; "
            f"{remedy}, or batch.row_length larger"
        )


def _first_pieces(texts: Iterable[str], config: EvaluationConfig) -> Iterator[str]:
    size = 0
    for text in texts:
        for piece in cut_text(text, config.chunk_bytes):
            size += len(piece.encode())
            if size > config.max_bytes:
                return
            yield piece


def pack_pieces(pieces: Sequence[Encoded], row_length: int) -> Batch:
    """Pack pieces as separate documents into rows, in order and without cutting."""
    rows: list[list[Encoded]] = []
    used = row_length + 1
    for piece in pieces:
        if used + len(piece.ids) > row_length:
            rows.append([])
            used = 0
        rows[-1].append(piece)
        used += len(piece.ids)
    shape = (len(rows), row_length)
    tokens, segments, positions = (torch.zeros(shape, dtype=torch.int64) for _ in range(3))
    labels = torch.full(shape, IGNORE_INDEX)
    for row, documents in enumerate(rows):
        start = 0
        for number, (ids, supervised) in enumerate(documents, 1):
            span = slice(start, start + len(ids))
            tokens[row, span] = torch.tensor(ids)
            following = zip(ids[1:], supervised[1:], strict=True)
            labels[row, span] = torch.tensor(
                [*(i if s else IGNORE_INDEX for i, s in following), IGNORE_INDEX]
            )
            segments[row, span] = number
            positions[row, span] = torch.arange(len(ids))
            start += len(ids)
    return Batch(
        tokens=tokens,
        labels=labels,
        segments=segments.int(),
        positions=positions.int(),
        sources=[""] * len(rows),
        rows=list(range(len(rows))),
    )


@torch.no_grad()
def evaluate(
    model: Mistral,
    sets: Sequence[HeldOutSet],
    *,
    row_length: int,
    micro_batch_rows: int,
    world: World,
) -> dict[str, dict[str, float]]:
    """Loss of every set: {set: {loss_nats, bits_per_byte, tokens, bytes}}; all processes call it.

    Rows are dealt to the processes; each runs the same number of forward passes, because sharded
    weights are gathered in each.
    """
    model.eval()
    results = {}
    for held_out in sets:
        nats = 0.0
        packed = pack_pieces(held_out.pieces, row_length)
        total_rows = len(packed.rows)
        group = micro_batch_rows * world.dp_size
        for first in range(0, total_rows, group):
            mine = range(first + world.rank, min(first + group, total_rows), world.dp_size)
            # A process without rows repeats one and does not count it.
            index = torch.tensor(list(mine) or [0])
            documents = Documents.from_segments(packed.segments[index]).to(world.device)
            losses = model(
                packed.tokens[index].to(world.device),
                documents=documents,
                labels=packed.labels[index].to(world.device),
            )
            nats += float(losses.total) if mine else 0.0
        (nats,) = world.sum([nats])
        tokens = sum(sum(piece.supervised[1:]) for piece in held_out.pieces)
        results[held_out.name] = {
            "loss_nats": nats / tokens,
            "bits_per_byte": nats / math.log(2) / held_out.utf8_bytes,
            "tokens": tokens,
            "bytes": held_out.utf8_bytes,
        }
    model.train()
    reshard(model)
    return results
