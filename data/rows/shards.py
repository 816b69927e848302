"""A prepared source on disk: token shards, an index of documents, a manifest, held-out text.

    <source>/manifest.json          format version, counts, tokenizer, sha256 of every file
             shard-00000.tokens     documents end to end, each BOS + ids + EOS, uint16 or uint32
             shard-00000.index      (blocks,) int64 token stops of blocks of `BLOCK_DOCUMENTS`,
                                    (documents,) int64 token stops of documents,
                                    (documents,) uint32 UTF-8 bytes of documents
             held_out.jsonl         {"text": ...} per line; no training row touches these documents

Everything but the manifest is memory-mapped, and opening reads the stops of the blocks only: a
document costs 12 bytes on disk and none resident. Shards are immutable: a source grows by further
shards and a new manifest.
"""

import hashlib
import json
import mmap
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np
from jaxtyping import Int64, Integer

from storage.atomic import fsync_file
from storage.checksum import sha256_of

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
            fsync_file(file)

    def close(self) -> dict:
        """Finish the shard and return its manifest entry.

        Reopening and closing again after a crash gives the same files and the same entry; the
        parts it is made from (.stops, .bytes) are the caller's to remove when all is durable.
        """
        self.flush()
        for file in (self._tokens_file, self._stops_file, self._bytes_file):
            file.close()
        stops = np.fromfile(self._folder / f"{self.stem}.stops", "<i8")
        sizes = np.fromfile(self._folder / f"{self.stem}.bytes", "<u4")
        index = self._folder / f"{self.stem}.index"
        with index.open("wb") as file:
            of_blocks = np.append(stops[BLOCK_DOCUMENTS - 1 : -1 : BLOCK_DOCUMENTS], stops[-1:])
            for part in (of_blocks, stops, sizes):
                file.write(part.tobytes())
            fsync_file(file)
        tokens = self._folder / f"{self.stem}.tokens"
        return {
            "name": self.stem,
            "documents": self.documents,
            "tokens": self.tokens,
            "utf8_bytes": int(sizes.sum(dtype=np.int64)),
            "sha256": {path.name: sha256_of(path) for path in (tokens, index)},
        }


class Source:
    """A prepared source, opened read-only.

    Documents and blocks are numbered in the order of preparation. A block never crosses a shard
    border, so the last block of each shard may be short.

    Args:
        fingerprint: of the state to open, if the source has grown since. A source that never had
            this fingerprint is opened in its present state, so callers must compare.

    Attributes:
        manifest: the parsed manifest.json, without what was appended after the state that is open.
        later_shards: how many shards were appended after that state.
        fingerprint: sha256 over the format, the tokenizer and every shard's digest.
        documents, tokens: totals over all shards; tokens count BOS and EOS.
        block_tokens: (blocks,) int64, tokens in each block.
        block_documents: (blocks,) int64, the number of the first document of each block.
    """

    def __init__(self, folder: Path | str, fingerprint: str | None = None) -> None:
        self.folder = Path(folder)
        newest = read_manifest(self.folder)
        self.manifest = _as_it_was(newest, fingerprint) if fingerprint else newest
        self.later_shards = len(newest["shards"]) - len(self.manifest["shards"])
        self.fingerprint = fingerprint_of(self.manifest)
        dtype = np.dtype(self.manifest["dtype"])
        entries = [entry for entry in self.manifest["shards"] if entry["documents"]]
        if not entries:
            raise ValueError(f"{self.folder} has no training documents; prepare it from other text")
        self._shards = [_Shard(self.folder, entry, dtype) for entry in entries]
        self.documents = sum(entry["documents"] for entry in entries)
        self.tokens = sum(entry["tokens"] for entry in entries)
        self.block_tokens = np.concatenate(
            [np.diff(shard.block_stops, prepend=0) for shard in self._shards]
        )
        blocks = [len(shard.block_stops) for shard in self._shards]
        self._first_block = np.cumsum([0, *blocks])
        shard_documents = np.cumsum([0, *(len(shard.stops) for shard in self._shards)])
        self.block_documents = np.concatenate(
            [
                first + BLOCK_DOCUMENTS * np.arange(count)
                for first, count in zip(shard_documents[:-1], blocks, strict=True)
            ]
        )

    def block(
        self, number: int
    ) -> tuple[Integer[np.ndarray, " tokens"], Int64[np.ndarray, " documents"]]:
        """A block as stored: its tokens end to end, and where each of its documents stops."""
        shard_number = int(np.searchsorted(self._first_block, number, side="right")) - 1
        shard = self._shards[shard_number]
        first = (number - int(self._first_block[shard_number])) * BLOCK_DOCUMENTS
        start = int(shard.stops[first - 1]) if first else 0
        stops = shard.stops[first : first + BLOCK_DOCUMENTS]
        return shard.tokens[start : int(stops[-1])], stops - start

    def document(self, number: int) -> Integer[np.ndarray, " tokens"]:
        """The tokens of one document, BOS and EOS included."""
        block = int(np.searchsorted(self.block_documents, number, side="right")) - 1
        tokens, stops = self.block(block)
        within = number - int(self.block_documents[block])
        return tokens[stops[within - 1] if within else 0 : stops[within]]

    @property
    def digests(self) -> dict[str, str]:
        """sha256 of each file that training reads, by its name in the folder."""
        shards = self.manifest["shards"]
        return {name: digest for shard in shards for name, digest in shard["sha256"].items()}

    @property
    def held_out_documents(self) -> int:
        """Number of held-out documents."""
        return self.manifest["held_out"]["documents"]

    def held_out(self) -> Iterator[str]:
        """The held-out texts, in the order of the inputs."""
        path = self.folder / "held_out.jsonl"
        if not path.is_file():
            raise ValueError(f"{path}: missing; restore it, or prepare this source again")
        with path.open(encoding="utf-8") as lines:
            for line in lines:
                yield json.loads(line)["text"]


class _Shard:
    """The arrays of one shard, memory-mapped."""

    def __init__(self, folder: Path, entry: dict, dtype: np.dtype) -> None:
        documents = entry["documents"]
        blocks = -(-documents // BLOCK_DOCUMENTS)
        path = folder / entry["name"]
        index = map_file(path.with_suffix(".index"), 8 * blocks + (8 + 4) * documents)
        tokens = map_file(path.with_suffix(".tokens"), entry["tokens"] * dtype.itemsize)
        self.tokens = tokens.view(dtype)
        self.block_stops = index[: 8 * blocks].view("<i8")
        self.stops = index[8 * blocks : 8 * (blocks + documents)].view("<i8")


def read_manifest(folder: Path, kind: str = "documents") -> dict:
    """Parse and check `manifest.json`; ValueError without a finished source of this kind."""
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
    if (found := manifest.get("kind", "documents")) != kind:
        raise ValueError(
            f"{folder} is a source of {found}, and one of {kind} is needed here; prepare one with "
            f"`python -m scripts.prepare_data kind={kind}`"
        )
    return manifest


def fingerprint_of(manifest: dict) -> str:
    """SHA-256 of everything that training reads: format, tokenizer and bytes of the shards."""
    parts = [manifest["format_version"], BLOCK_DOCUMENTS, manifest["tokenizer"]]
    parts += [shard["sha256"] for shard in manifest["shards"]]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _as_it_was(manifest: dict, fingerprint: str) -> dict:
    """The manifest before the appends after which a source has no longer had a fingerprint.

    Only the digests of the shards are trusted. Without a match the manifest is returned unchanged.
    """
    if fingerprint_of(manifest) == fingerprint:
        return manifest
    appends = manifest.get("appends", [])
    for number, work in enumerate(appends):
        shards = manifest["shards"][: work["first_shard"]]
        before = manifest | {
            "shards": shards,
            "inputs": manifest["inputs"][: work["first_input"]],
            "appends": appends[:number],
        }
        if fingerprint_of(before) != fingerprint:
            continue
        for total in ("documents", "tokens", "utf8_bytes"):
            before[total] = sum(shard[total] for shard in shards)
        before.pop("skipped", None)  # was counted for all inputs together
        return before
    return manifest


def map_file(path: Path, expected: int) -> np.ndarray:
    """The bytes of a file; ValueError unless there are exactly as many as expected."""
    actual = path.stat().st_size if path.exists() else -1
    if actual != expected:
        raise ValueError(
            f"{path}: {'missing' if actual < 0 else f'{actual} bytes'}, but the manifest "
            f"records {expected} bytes; prepare this source again"
        )
    with path.open("rb") as file:
        pages = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    # Documents are read in shuffled order: reading ahead costs 10 ms per row from a cold disk.
    pages.madvise(mmap.MADV_RANDOM)
    return np.frombuffer(pages, np.uint8)


def _open_at(path: Path, size: int) -> BinaryIO:
    """Open for appending after exactly `size` bytes; what lies beyond was never acknowledged."""
    actual = path.stat().st_size if path.exists() else 0
    if actual < size:
        raise ValueError(
            f"{path}: {actual} bytes, but {size} were written before the interruption; "
            "remove the unfinished source and prepare it again"
        )
    file = path.open("r+b" if path.exists() else "w+b")
    file.truncate(size)
    file.seek(size)
    return file
