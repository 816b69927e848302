"""A prepared source on disk: token shards, an index of documents, a manifest, held-out text.

    <source>/manifest.json          format version, counts, tokenizer, sha256 of every file
             shard-00000.tokens     documents end to end, each BOS + ids + EOS, uint16 or uint32
             shard-00000.index      (documents,) int64 token stops, then (documents,) uint32 UTF-8 bytes
             held_out.jsonl         {"text": ...} per line; no training row can touch these documents

Everything but the manifest is memory-mapped, so that opening costs one strided read of the stops
(one value per block of `BLOCK_DOCUMENTS`) and a document costs 12 bytes on disk and none resident.
Shards are immutable: a source grows by further shards and a new manifest.
"""

import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np

FORMAT_VERSION = 1
BLOCK_DOCUMENTS = 1024
"""Documents are shuffled in blocks of this many; a block never crosses a shard border."""


def token_dtype(vocab_size: int) -> np.dtype:
    """The narrowest unsigned type that holds every id of a vocabulary."""
    return np.dtype("<u2") if vocab_size <= 1 << 16 else np.dtype("<u4")


class ShardWriter:
    """Appends documents to one shard; `close` makes it complete.

    `documents` and `tokens` count what has been added. `flush` makes them durable, so that an
    interrupted preparation can reopen the same shard with `resume_at=(documents, tokens)`.
    """

    def __init__(
        self, folder: Path, number: int, dtype: np.dtype, resume_at: tuple[int, int] = (0, 0)
    ) -> None:
        self.stem = f"shard-{number:05d}"
        self.documents, self.tokens = resume_at
        self._dtype = dtype
        self._folder = folder
        self._tokens_file = _open_at(folder / f"{self.stem}.tokens", self.tokens * dtype.itemsize)
        self._stops_file = _open_at(folder / f"{self.stem}.stops", self.documents * 8)
        self._bytes_file = _open_at(folder / f"{self.stem}.bytes", self.documents * 4)

    def add(self, ids: np.ndarray, lengths: np.ndarray, utf8_bytes: np.ndarray) -> None:
        """Append documents.

        Args:
            ids: their tokens end to end, BOS and EOS included.
            lengths: tokens of each document.
            utf8_bytes: size of each document's text.
        """
        assert int(lengths.sum()) == len(ids)
        stops = self.tokens + np.cumsum(lengths, dtype=np.int64)
        self._tokens_file.write(ids.astype(self._dtype).tobytes())
        self._stops_file.write(stops.astype("<i8").tobytes())
        self._bytes_file.write(utf8_bytes.astype("<u4").tobytes())
        self.documents += len(lengths)
        self.tokens += len(ids)

    def flush(self) -> None:
        """Make everything added so far survive a crash."""
        for file in (self._tokens_file, self._stops_file, self._bytes_file):
            file.flush()
            os.fsync(file.fileno())

    def close(self) -> dict:
        """Finish the shard and return its manifest entry.

        Reopening and closing again after a crash gives the same files and the same entry; the
        parts it is made from (.stops, .bytes) are the caller's to remove when all is durable.
        """
        self.flush()
        for file in (self._tokens_file, self._stops_file, self._bytes_file):
            file.close()
        stops = self._folder / f"{self.stem}.stops"
        sizes = self._folder / f"{self.stem}.bytes"
        index = self._folder / f"{self.stem}.index"
        with index.open("wb") as file:
            file.write(stops.read_bytes())
            file.write(sizes.read_bytes())
            file.flush()
            os.fsync(file.fileno())
        tokens = self._folder / f"{self.stem}.tokens"
        entry = {
            "name": self.stem,
            "documents": self.documents,
            "tokens": self.tokens,
            "utf8_bytes": int(np.fromfile(sizes, "<u4").sum(dtype=np.int64)),
            "sha256": {path.name: sha256_of(path) for path in (tokens, index)},
        }
        return entry


class Source:
    """A prepared source, opened read-only.

    Attributes:
        manifest: the parsed manifest.json.
        fingerprint: sha256 over the format, the tokenizer and every shard's digest.
        documents, tokens: totals over all shards; tokens count BOS and EOS.
        block_tokens: (blocks,) int64, tokens in each block of documents.
    """

    def __init__(self, folder: Path | str) -> None:
        self.folder = Path(folder)
        self.manifest = read_manifest(self.folder)
        dtype = np.dtype(self.manifest["dtype"])
        self._tokens: list[np.ndarray] = []
        self._stops: list[np.ndarray] = []
        self._block_shard: list[int] = []
        block_tokens = []
        for number, shard in enumerate(self.manifest["shards"]):
            stops = self._map(shard, ".index", np.dtype("<i8"), shard["documents"])
            self._tokens.append(self._map(shard, ".tokens", dtype, shard["tokens"]))
            self._stops.append(stops)
            borders = np.append(stops[BLOCK_DOCUMENTS - 1 : -1 : BLOCK_DOCUMENTS], stops[-1])
            block_tokens.append(np.diff(borders, prepend=0))
            self._block_shard += [number] * len(borders)
        self._first_block = np.searchsorted(self._block_shard, range(len(self._stops)))
        self.block_tokens = np.concatenate(block_tokens).astype(np.int64)
        self.documents = sum(len(stops) for stops in self._stops)
        self.tokens = int(self.block_tokens.sum())
        self.fingerprint = fingerprint_of(self.manifest)

    def _map(self, shard: dict, suffix: str, dtype: np.dtype, count: int) -> np.ndarray:
        path = self.folder / (shard["name"] + suffix)
        expected = shard["tokens"] * dtype.itemsize if suffix == ".tokens" else count * 12
        actual = path.stat().st_size if path.exists() else -1
        if actual != expected:
            raise ValueError(
                f"{path}: {'missing' if actual < 0 else f'{actual} bytes'}, the manifest says "
                f"{expected} bytes; prepare this source again"
            )
        return np.memmap(path, dtype, mode="r", shape=(count,))

    def block_lengths(self, block: int) -> np.ndarray:
        """Tokens of each document of a block: (documents,) int64."""
        stops, first = self._block_stops(block)
        return np.diff(stops, prepend=first)

    def block_document(self, block: int, document: int) -> np.ndarray:
        """The tokens of one document of a block, as stored."""
        stops, first = self._block_stops(block)
        start = first if document == 0 else stops[document - 1]
        return self._tokens[self._block_shard[block]][start : stops[document]]

    def document_id(self, block: int, document: int) -> int:
        """The number of a document within the source, in the order it was prepared."""
        shard = self._block_shard[block]
        before = sum(len(stops) for stops in self._stops[:shard])
        return before + (block - int(self._first_block[shard])) * BLOCK_DOCUMENTS + document

    def _block_stops(self, block: int) -> tuple[np.ndarray, int]:
        shard = self._block_shard[block]
        stops = self._stops[shard]
        start = (block - int(self._first_block[shard])) * BLOCK_DOCUMENTS
        before = int(stops[start - 1]) if start else 0
        return stops[start : start + BLOCK_DOCUMENTS], before

    def held_out(self) -> Iterator[str]:
        """The texts that no training row can touch, in the order they were met."""
        with (self.folder / "held_out.jsonl").open(encoding="utf-8") as lines:
            for line in lines:
                yield json.loads(line)["text"]


def read_manifest(folder: Path) -> dict:
    """Parse and check `manifest.json`; ValueError if this is not a finished source."""
    path = folder / "manifest.json"
    if not path.is_file():
        raise ValueError(
            f"{folder} is not a prepared source (no manifest.json); "
            "run `python -m scripts.prepare_data` first"
        )
    manifest = json.loads(path.read_text(encoding="utf-8"))
    if manifest.get("format_version") != FORMAT_VERSION:
        raise ValueError(
            f"{path}: format_version {manifest.get('format_version')!r}, this code reads "
            f"{FORMAT_VERSION}; prepare the source again"
        )
    return manifest


def fingerprint_of(manifest: dict) -> str:
    """What a run depends on: format, tokenizer and the bytes of every shard, in order."""
    parts = [manifest["format_version"], BLOCK_DOCUMENTS, manifest["tokenizer"]]
    parts += [shard["sha256"] for shard in manifest["shards"]]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def sha256_of(path: Path) -> str:
    """Digest of a file's bytes, as a hex string."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _open_at(path: Path, size: int) -> BinaryIO:
    """Open for appending after exactly `size` bytes; what lies beyond was never acknowledged."""
    file = path.open("r+b" if path.exists() else "w+b")
    file.truncate(size)
    file.seek(size)
    return file
