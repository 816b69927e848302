"""A prepared source of conversations on disk, and the rows that a run reads from it.

    <source>/manifest.json   kind "conversations", counts, tokenizer, settings, sha256 of every file
             tokens          conversations end to end (`tokenizer.chat`), uint16 or uint32
             supervised      (tokens,) uint8, 1 where the token is to be predicted
             stops           (conversations,) int64, where each one stops
             held_out.jsonl  {"messages": [...]} per line; no training row touches these

Conversations are not cut: each epoch packs all of them whole into as few rows as best-fit
decreasing finds, and fills up with padding. How many rows that takes follows from the lengths
alone, so epochs laid end to end are equally long, and row n of the source is a pure function of
(source, seed, row length, n).
"""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Int64, Integer

from data.rows.best_fit import best_fit
from data.rows.packing import Row
from data.rows.seeds import derive, permutation, splitmix64
from data.rows.shards import map_file, read_manifest
from model.labels import IGNORE_INDEX
from tokenizer.chat import (
    CHAT_TEMPLATE,
    Encoded,
    Message,
    encode_conversation,
    template_of,
    truncate,
)
from tokenizer.tokenizer import Tokenizer

KIND = "conversations"
STORED = ("tokens", "supervised", "stops")
"""The files that training reads."""


class Conversations:
    """A prepared source of conversations, opened read-only; they are numbered as prepared.

    Attributes:
        manifest: the parsed manifest.json.
        later_shards: 0: such a source does not grow.
        fingerprint: sha256 over the format, the tokenizer and the digests of what training reads.
        documents, tokens: how many conversations, and their tokens, BOS and EOS included.
        lengths: tokens of each conversation.
    """

    later_shards = 0

    def __init__(self, folder: Path | str) -> None:
        self.folder = Path(folder)
        self.manifest = read_manifest(self.folder, KIND)
        self.fingerprint = _fingerprint(self.manifest)
        self.documents: int = self.manifest["conversations"]
        self.tokens: int = self.manifest["tokens"]
        dtype = np.dtype(self.manifest["dtype"])
        self._tokens = map_file(self.folder / "tokens", self.tokens * dtype.itemsize).view(dtype)
        self._supervised = map_file(self.folder / "supervised", self.tokens).view(bool)
        self._stops = map_file(self.folder / "stops", 8 * self.documents).view("<i8")

    @cached_property
    def lengths(self) -> Int64[np.ndarray, " conversations"]:
        return np.diff(self._stops, prepend=0)

    @property
    def digests(self) -> dict[str, str]:
        """sha256 of each file that training reads, by its name in the folder."""
        return self.manifest["files"]

    @property
    def held_out_documents(self) -> int:
        """Number of held-out conversations."""
        return self.manifest["held_out"]["conversations"]

    def document(self, number: int) -> Integer[np.ndarray, " tokens"]:
        """The tokens of one conversation, BOS included, and EOS unless it was truncated."""
        return self._tokens[self._place(number)]

    def supervised(self, number: int) -> Bool[np.ndarray, " tokens"]:
        """True for each supervised token of a conversation."""
        return self._supervised[self._place(number)]

    def held_out(self) -> Iterator[list[Message]]:
        """The conversations that no training row can touch, in the order they were met."""
        path = self.folder / "held_out.jsonl"
        if not path.is_file():
            raise ValueError(f"{path}: missing; restore it, or prepare this source again")
        with path.open(encoding="utf-8") as lines:
            for line in lines:
                yield [Message(**message) for message in json.loads(line)["messages"]]

    def encode_held_out(self, tokenizer: Tokenizer) -> Iterator[Encoded]:
        """The held-out conversations, truncated and supervised as in training."""
        settings = self.manifest["settings"]
        for messages in self.held_out():
            encoded = encode_conversation(tokenizer, messages, train_on=settings["train_on"])
            yield truncate(encoded, settings["max_tokens"])

    def check_template(self, tokenizer: Tokenizer) -> None:
        """ValueError unless the conversations are written in the chat template of a tokenizer.

        Sources without a record of their template have Mistral's `[INST]` as text.
        """
        template = template_of(tokenizer)
        recorded = self.manifest.get("chat_template")
        known = (
            template.source == CHAT_TEMPLATE if recorded is None else recorded == template.digest
        )
        if not known:
            raise ValueError(
                f"{self.folder} is written in another chat template than that of "
                f"{tokenizer.origin}, which the trained model would have; prepare it again with "
                f"tokenizer={tokenizer.origin}, or name the folder that it was prepared with"
            )

    def _place(self, number: int) -> slice:
        start = int(self._stops[number - 1]) if number else 0
        return slice(start, int(self._stops[number]))


def _fingerprint(manifest: dict) -> str:
    parts = [KIND, manifest["format_version"], manifest["tokenizer"], manifest["files"]]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True)
class _Epoch:
    """Conversations of each row of an epoch: `order[borders[row] : borders[row + 1]]`."""

    order: Int64[np.ndarray, " conversations"]
    borders: Int64[np.ndarray, " rows_and_one"]


class ConversationRows:
    """The rows that a run reads from a source of conversations, epoch after epoch.

    Every epoch shuffles the conversations of equal length, and the order of the rows.

    Attributes:
        per_epoch: rows of an epoch.

    Raises:
        ValueError: a conversation does not fit a row.
    """

    def __init__(self, source: Conversations, name: str, seed: int, row_length: int) -> None:
        longest = int(source.lengths.max())
        if longest > row_length:
            raise ValueError(
                f"source {name!r} has a conversation of {longest} tokens, rows have {row_length}; "
                f"raise batch.row_length, or prepare it with max_tokens={row_length}"
            )
        self.source = source
        self.row_length = row_length
        self._seed = derive(seed, KIND, name)
        # The rows of the conversations from the longest to the shortest, whichever they are.
        self._rows = best_fit(np.sort(source.lengths)[::-1], row_length)
        self.per_epoch = int(self._rows.max()) + 1
        self._epoch = lru_cache(maxsize=4)(self._pack)

    @property
    def epoch_tokens(self) -> int:
        """Tokens of the rows of an epoch, padding included."""
        return self.per_epoch * self.row_length

    def row(self, n: int) -> Row:
        """Row n of the source."""
        tokens = np.zeros(self.row_length, np.int64)
        labels = np.full(self.row_length, IGNORE_INDEX, np.int64)
        segments = np.zeros(self.row_length, np.int32)
        positions = np.zeros(self.row_length, np.int32)
        documents, stop = self._documents(n), 0
        for segment, number in enumerate(documents.tolist(), start=1):
            ids, supervised = self.source.document(number), self.source.supervised(number)
            start, stop = stop, stop + len(ids)
            tokens[start:stop] = ids
            labels[start : stop - 1] = np.where(
                supervised[1:], tokens[start + 1 : stop], IGNORE_INDEX
            )
            segments[start:stop] = segment
            positions[start:stop] = np.arange(len(ids))
        positions[stop:] = np.arange(self.row_length - stop)
        return Row(tokens, labels, segments, positions, documents)

    def pieces(self, n: int) -> list[tuple[int, int, Integer[np.ndarray, " tokens"]]]:
        """The conversations in row n: number, 0 since none is cut, and tokens."""
        return [(number, 0, self.source.document(number)) for number in self._documents(n).tolist()]

    def place(self, document: int, epoch: int) -> range:
        """The tokens that a conversation fills in an epoch, of all rows laid end to end."""
        packed = self._epoch(epoch)
        at = int(np.flatnonzero(packed.order == document)[0])
        row = int(np.searchsorted(packed.borders, at, side="right")) - 1
        before = packed.order[packed.borders[row] : at]
        start = (epoch * self.per_epoch + row) * self.row_length
        start += int(self.source.lengths[before].sum())
        return range(start, start + int(self.source.lengths[document]))

    def _documents(self, n: int) -> Int64[np.ndarray, " segments"]:
        epoch, row = divmod(n, self.per_epoch)
        packed = self._epoch(epoch)
        return packed.order[packed.borders[row] : packed.borders[row + 1]]

    def _pack(self, epoch: int) -> _Epoch:
        """An epoch: conversations of one length in a drawn order, rows in a drawn order."""
        ties = splitmix64(derive(self._seed, "ties", epoch), self.source.documents)
        by_length = np.lexsort((ties, -self.source.lengths))
        turn = np.empty(self.per_epoch, np.int64)  # when each row is read
        turn[permutation(self.per_epoch, derive(self._seed, "rows", epoch))] = np.arange(
            self.per_epoch
        )
        turns = turn[self._rows]
        order = by_length[np.argsort(turns, kind="stable")]
        counts = np.bincount(turns, minlength=self.per_epoch)
        return _Epoch(order, np.cumsum(np.append(0, counts)))
