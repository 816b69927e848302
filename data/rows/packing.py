"""A row: `T` consecutive tokens of a source's stream with what the model must know about them.

Row n of a source of documents holds tokens [nT, nT + T) of its stream, so rows laid end to end are
the stream and nothing is dropped. Labels look one token further, across the row border too, but
never into another document. Segments number the documents in a row from 1; 0 is padding. A document
that a row border cuts starts again at position 0 in the next row, where its beginning cannot be
seen. Conversations are never cut; their rows are made in `data.rows.conversations`.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Int32, Int64, Integer

from data.rows.stream import Stream
from model.labels import IGNORE_INDEX


@dataclass(frozen=True)
class Row:
    """One row of training data.

    Attributes:
        tokens, labels: `labels[t]` is the token that follows `tokens[t]`, or `IGNORE_INDEX`.
        segments: which document of the row each token belongs to, from 1; 0 is padding.
        positions: from 0 within each segment.
        documents: the number within its source of each segment's document.
    """

    tokens: Int64[np.ndarray, " T"]
    labels: Int64[np.ndarray, " T"]
    segments: Int32[np.ndarray, " T"]
    positions: Int32[np.ndarray, " T"]
    documents: Int64[np.ndarray, " segments"]


def cut_row(stream: Stream, n: int, row_length: int) -> Row:
    """Row n of a source."""
    # The last label needs the first token of the next row.
    span = stream.read(n * row_length, row_length + 1)
    tokens = span.tokens.astype(np.int64)
    segments = np.repeat(np.arange(1, len(span.lengths) + 1, dtype=np.int32), span.lengths)
    starts = np.repeat(np.cumsum(span.lengths) - span.lengths, span.lengths)
    positions = (np.arange(row_length + 1) - starts).astype(np.int32)
    return Row(
        tokens=tokens[:-1],
        labels=np.where(segments[1:] == segments[:-1], tokens[1:], IGNORE_INDEX),
        segments=segments[:-1],
        positions=positions[:-1],
        documents=span.documents[: segments[-2]],
    )


class StreamRows:
    """The rows that a run reads from a source of documents."""

    def __init__(self, stream: Stream, row_length: int) -> None:
        self.source = stream.source
        self.row_length = row_length
        self._stream = stream

    @property
    def epoch_tokens(self) -> int:
        """Tokens of an epoch, which need not be whole rows."""
        return self.source.tokens

    def row(self, n: int) -> Row:
        """Row n of the source."""
        return cut_row(self._stream, n, self.row_length)

    def pieces(self, n: int) -> list[tuple[int, int, Integer[np.ndarray, " tokens"]]]:
        """Pieces of documents in row n: number of the document, offset of the piece, tokens."""
        span = self._stream.read(n * self.row_length, self.row_length)
        parts = np.split(span.tokens, np.cumsum(span.lengths)[:-1])
        return list(zip(span.documents.tolist(), span.offsets.tolist(), parts, strict=True))

    def place(self, document: int, epoch: int) -> range:
        """The tokens that a document fills in an epoch, of all rows laid end to end."""
        return self._stream.place(document, epoch)


def empty_row(row_length: int) -> Row:
    """A row of padding: nothing to predict, no document."""
    return Row(
        tokens=np.zeros(row_length, np.int64),
        labels=np.full(row_length, IGNORE_INDEX, np.int64),
        segments=np.zeros(row_length, np.int32),
        positions=np.arange(row_length, dtype=np.int32),
        documents=np.zeros(0, np.int64),
    )
