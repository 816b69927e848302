"""Records -> chunks of some hundred -> tokens, held-out texts, reasons for skipping."""

import itertools
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from data.prepare.held_out import normalize, side_hash
from data.prepare.overlap_index import REASONS, OverlapIndex
from data.records.readers import BadRecord, Position, Record, text_of
from data.rows.shards import token_dtype
from tokenizer.tokenizer import Tokenizer

CHUNK_RECORDS = 256
CHUNK_BYTES = 1 << 20

HELD_OUT_IS_FIXED = "would be held out, but the held-out text is fixed"
"""Reason for skipping a document that would be held out, in an append."""
LEFT_OUT = frozenset((*REASONS, HELD_OUT_IS_FIXED))
"""Reasons for which a document is left out of training although its record is good."""


class Chunk(NamedTuple):
    """Results for some hundred consecutive records."""

    ids: np.ndarray
    """Tokens of the training documents end to end, BOS and EOS included."""
    lengths: np.ndarray
    utf8_bytes: np.ndarray
    held_out: list[str]
    skipped: list[tuple[int, int, str]]
    """(file, line, reason) of each skipped record."""
    documents: Counter[int]
    """Documents, whether for training, held out or left out, by file."""
    records: int
    end: Position


def in_chunks(records: Iterator[Record]) -> Iterator[list[Record]]:
    """Cut a stream of records into chunks; the prepared files do not depend on the cuts."""
    chunk, size = [], 0
    for record in records:
        chunk.append(record)
        size += len(record.payload or b"")
        if len(chunk) == CHUNK_RECORDS or size >= CHUNK_BYTES:
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk


class Parser:
    """Turns lists of records into chunks; one per process.

    Args:
        tokenizer: a `.model` file or a tokenizer folder.
        held_out_fraction: share of documents that are held out.
        held_out_is_fixed: skip documents that would be held out.
        index: path of the index of protected documents (`data.prepare.overlap_index`).
    """

    def __init__(
        self,
        tokenizer: str,
        text_field: str,
        held_out_fraction: float,
        held_out_is_fixed: bool,
        index: Path,
    ) -> None:
        self._tokenizer = Tokenizer.open(tokenizer)
        self._text_field = text_field
        self._limit = held_out_fraction * 2**64
        self._held_out_is_fixed = held_out_is_fixed
        self._overlap = OverlapIndex(index)

    def __call__(self, records: list[Record]) -> Chunk:
        training, held_out, skipped, documents = [], [], [], Counter[int]()
        for record in records:
            file, line, _ = record.position
            try:
                text = text_of(record, self._text_field)
            except BadRecord as reason:
                skipped.append((file, line, str(reason)))
                continue
            documents[file] += 1
            normalized = normalize(text)
            side = side_hash(normalized)
            if side < self._limit and not self._held_out_is_fixed:
                held_out.append(text)
            elif side < self._limit:
                skipped.append((file, line, HELD_OUT_IS_FIXED))
            elif reason := self._overlap.reason(text, normalized, side):
                skipped.append((file, line, reason))
            else:
                training.append(text)
        ids, lengths = self._encode(training)
        return Chunk(
            ids=ids,
            lengths=lengths,
            utf8_bytes=np.array([len(text.encode()) for text in training], np.int64),
            held_out=held_out,
            skipped=skipped,
            documents=documents,
            records=len(records),
            end=records[-1].position,
        )

    def _encode(self, texts: list[str]) -> tuple[np.ndarray, np.ndarray]:
        """Tokens end to end, and how many each text has."""
        encoded = self._tokenizer.encode_batch(texts, threads=1)
        bos, eos = self._tokenizer.bos_id, self._tokenizer.eos_id
        lengths = np.array([len(ids) + 2 for ids in encoded], np.int64)
        ids = np.fromiter(
            itertools.chain.from_iterable((bos, *ids, eos) for ids in encoded),
            token_dtype(self._tokenizer.vocab_size),
            count=int(lengths.sum()),
        )
        return ids, lengths
