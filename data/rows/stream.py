"""The endless stream of a source: every document once per epoch, epochs laid end to end.

Each epoch has its own two-level shuffle, blocks of documents and then the documents within a
block, and everything about it follows from (source, seed): any stretch of the stream can be read
without having read what lies before. Opening costs O(blocks), and so does the first read of an
epoch; a read costs its tokens plus O(BLOCK_DOCUMENTS) per block that it meets for the first time.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from jaxtyping import Int64, Integer

from data.rows.seeds import derive, permutation
from data.rows.shards import Source


@dataclass(frozen=True)
class Span:
    """A stretch of a stream as pieces, each one document or the part of it that lies inside.

    Consecutive pieces never belong together: a source of one document yields one piece per epoch.

    Attributes:
        tokens: the pieces end to end, in the type they are stored in.
        lengths: tokens of each piece.
        documents: the number of each piece's document within the source.
        offsets: where in its document each piece begins.
    """

    tokens: Integer[np.ndarray, " tokens"]
    lengths: Int64[np.ndarray, " pieces"]
    documents: Int64[np.ndarray, " pieces"]
    offsets: Int64[np.ndarray, " pieces"]


def stream_of_run(source: Source, name: str, seed: int) -> "Stream":
    """The stream that a run of this seed reads (`data.rows.loader.Loader`)."""
    return Stream(source, derive(seed, "stream", name))


class Stream:
    """The tokens of a source, shuffled by a seed."""

    def __init__(self, source: Source, seed: int) -> None:
        self.source = source
        self._seed = seed
        # Replay jumps between epochs, training crosses from one to the next.
        self._epoch = lru_cache(maxsize=8)(self._shuffle_blocks)
        self._block = lru_cache(maxsize=16)(self._shuffle_documents)

    def read(self, start: int, count: int) -> Span:
        """Tokens [start, start + count) of the stream, across as many epochs as it takes."""
        assert start >= 0
        assert count > 0
        spans = []
        while count:
            epoch, offset = divmod(start, self.source.tokens)
            blocks, borders = self._epoch(epoch)
            rank = int(np.searchsorted(borders, offset, side="right")) - 1
            offset -= int(borders[rank])
            taken = min(count, int(borders[rank + 1] - borders[rank]) - offset)
            spans.append(self._cut(epoch, int(blocks[rank]), offset, offset + taken))
            start += taken
            count -= taken
        if len(spans) == 1:
            return spans[0]
        return Span(
            np.concatenate([span.tokens for span in spans]),
            np.concatenate([span.lengths for span in spans]),
            np.concatenate([span.documents for span in spans]),
            np.concatenate([span.offsets for span in spans]),
        )

    def place(self, document: int, epoch: int) -> range:
        """The tokens of the stream that a document fills in an epoch."""
        assert 0 <= document < self.source.documents
        block = int(np.searchsorted(self.source.block_documents, document, side="right")) - 1
        blocks, block_borders = self._epoch(epoch)
        documents, _, borders = self._block(epoch, block)
        rank = int(np.flatnonzero(blocks == block)[0])
        within = int(np.flatnonzero(documents == document)[0])
        origin = epoch * self.source.tokens + int(block_borders[rank])
        return range(origin + int(borders[within]), origin + int(borders[within + 1]))

    def _cut(self, epoch: int, block: int, start: int, stop: int) -> Span:
        """Tokens [start, stop) of a block in the order that it has in an epoch."""
        documents, origins, borders = self._block(epoch, block)
        first = int(np.searchsorted(borders, start, side="right")) - 1
        last = int(np.searchsorted(borders, stop, side="left"))
        lengths = np.diff(borders[first : last + 1].clip(start, stop))
        offsets = np.zeros(last - first, np.int64)
        offsets[0] = start - borders[first]
        begins = origins[first:last] + offsets
        stored, _ = self.source.block(block)
        pieces = zip(begins.tolist(), lengths.tolist(), strict=True)
        tokens = np.concatenate([stored[begin : begin + length] for begin, length in pieces])
        return Span(tokens, lengths, documents[first:last], offsets)

    def _shuffle_blocks(self, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        """The blocks of an epoch in order, and the borders between them within the epoch."""
        counts = self.source.block_tokens
        order = permutation(len(counts), derive(self._seed, "blocks", epoch))
        return order, np.cumsum(np.append(0, counts[order]))

    def _shuffle_documents(
        self, epoch: int, block: int
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The documents of a block in order, where each is stored, and the borders between them."""
        _, stops = self.source.block(block)
        order = permutation(len(stops), derive(self._seed, "documents", epoch, block))
        origins = np.append(0, stops[:-1])[order]
        documents = self.source.block_documents[block] + order
        return documents, origins, np.cumsum(np.append(0, stops[order] - origins))
