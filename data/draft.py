"""A source under construction: `<out>.tmp/`, trusted as far as its journal says.

    shard-*.{tokens,stops,bytes}   data.shards.ShardWriter
    held_out.jsonl skipped.jsonl   appended to; held_out.jsonl also carries the lock
    journal.json                   the manifest so far, and how much of every file belongs to it
    manifest.json                  written once all is durable; only the rename is left to do

Files first, then the journal, each fsynced: what the journal says is on disk, and what lies beyond
it is cut away when the draft is opened again. So a process may be killed between any two
instructions, and the files come out the same.
"""

import fcntl
import json
import os
import shutil
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from data.readers import Position
from data.shards import ShardWriter, sha256_of


class Chunk(NamedTuple):
    """What a few hundred consecutive records have become."""

    ids: np.ndarray
    """Tokens of the training documents end to end, BOS and EOS included."""
    lengths: np.ndarray
    utf8_bytes: np.ndarray
    held_out: list[str]
    bad: list[tuple[int, int, str]]
    """(file, line, reason) of each record that is no document."""
    documents: Counter[int]
    """Documents, on either side of the split, by file."""
    records: int
    end: Position


class Draft:
    """Takes chunks in order and becomes a source; made by `open_draft`.

    Attributes:
        manifest: as it will be written, counts up to `position`.
        position: the last record that has been dealt with.
        records: how many have been dealt with, bad ones included.
        complete: whether nothing but `publish` is left to do.
    """

    def __init__(self, folder: Path, plan: dict, held_out: BinaryIO, skipped: BinaryIO) -> None:
        self.folder = folder
        self.complete = (folder / "manifest.json").exists()
        self.manifest = plan
        self.position = Position()
        self.records = 0
        self._held_out = held_out
        self._skipped = skipped
        self._writer: ShardWriter | None = None
        if self.complete:
            self._adopt(json.loads((folder / "manifest.json").read_text()))
        elif (folder / "journal.json").exists():
            self._restore(json.loads((folder / "journal.json").read_text()))
        else:
            held_out.truncate(0)
            skipped.truncate(0)

    def _restore(self, journal: dict) -> None:
        self._adopt(journal["manifest"])
        self.position = Position(*journal["position"])
        self.records = journal["records"]
        self._held_out.truncate(journal["held_out_size"])
        self._skipped.truncate(journal["skipped_size"])
        documents, tokens = journal["open_shard"]
        if documents:
            self._writer = self._open_shard((documents, tokens))

    def _adopt(self, manifest: dict) -> None:
        ours, theirs = _identity(self.manifest), _identity(manifest)
        differing = sorted(
            key for key in ours.keys() | theirs.keys() if ours.get(key) != theirs.get(key)
        )
        if differing:
            raise ValueError(
                f"{self.folder} holds unfinished work that differs in {', '.join(differing)}; "
                "remove it, or go on as it was begun"
            )
        self.manifest = manifest

    def _open_shard(self, resume_at: tuple[int, int] = (0, 0)) -> ShardWriter:
        number = len(self.manifest["shards"])
        return ShardWriter(self.folder, number, np.dtype(self.manifest["dtype"]), resume_at)

    def add(self, chunk: Chunk) -> None:
        """Append what follows `position`."""
        self._add_training(chunk.ids, chunk.lengths, chunk.utf8_bytes)
        for text in chunk.held_out:
            self._held_out.write(_json_line({"text": text}))
            self.manifest["held_out"]["documents"] += 1
            self.manifest["held_out"]["utf8_bytes"] += len(text.encode())
        inputs, skipped = self.manifest["inputs"], self.manifest["skipped"]
        for file, line, reason in chunk.bad:
            place = {"file": inputs[file]["path"], "line": line, "reason": reason}
            self._skipped.write(_json_line(place))
            skipped[reason] = skipped.get(reason, 0) + 1
        for file, documents in chunk.documents.items():
            inputs[file]["documents"] += documents
        self.records += chunk.records
        self.position = chunk.end

    def _add_training(self, ids: np.ndarray, lengths: np.ndarray, utf8_bytes: np.ndarray) -> None:
        """Fill shards: where one ends depends on the documents, never on the chunks."""
        limit = self.manifest["settings"]["shard_tokens"]
        while len(lengths):
            self._writer = self._writer or self._open_shard()
            stops = self._writer.tokens + np.cumsum(lengths)
            documents = int(np.searchsorted(stops, limit)) + 1
            tokens = int(lengths[:documents].sum())
            self._writer.add(ids[:tokens], lengths[:documents], utf8_bytes[:documents])
            ids, lengths, utf8_bytes = ids[tokens:], lengths[documents:], utf8_bytes[documents:]
            if self._writer.tokens >= limit:
                self._close_shard()

    def _close_shard(self) -> None:
        if self._writer:
            writer, self._writer = self._writer, None
            self.manifest["shards"].append(writer.close())

    def save(self) -> None:
        """Make everything up to `position` survive."""
        if self._writer:
            self._writer.flush()
        for file in (self._held_out, self._skipped):
            file.flush()
            os.fsync(file.fileno())
        writer = self._writer
        journal = {
            "manifest": self.manifest,
            "position": self.position,
            "records": self.records,
            "open_shard": (writer.documents, writer.tokens) if writer else (0, 0),
            "held_out_size": os.fstat(self._held_out.fileno()).st_size,
            "skipped_size": os.fstat(self._skipped.fileno()).st_size,
        }
        _write_durably(self.folder / "journal.json", journal)

    def finish(self) -> None:
        """Write the manifest; ValueError if there is nothing to train on."""
        self._close_shard()
        shards, skipped = self.manifest["shards"], self.manifest["skipped"]
        if not shards:
            shutil.rmtree(self.folder)
            reasons = ", ".join(f"{count} x {reason}" for reason, count in skipped.items())
            raise ValueError(
                f"inputs: no document is left for training; {self.records} records read, "
                f"{self.manifest['held_out']['documents']} held out, skipped: {reasons or 'none'}"
            )
        self.save()
        for total in ("documents", "tokens", "utf8_bytes"):
            self.manifest[total] = sum(shard[total] for shard in shards)
        self.manifest["held_out"]["sha256"] = sha256_of(self.folder / "held_out.jsonl")
        _write_durably(self.folder / "manifest.json", self.manifest)
        self.complete = True

    def publish(self, out: Path) -> None:
        """Drop what only the work needed, and give the folder its name."""
        assert self.complete
        for pattern in ("*.stops", "*.bytes", "journal.json"):
            for path in self.folder.glob(pattern):
                path.unlink()
        _fsync_folder(self.folder)
        self.folder.rename(out)
        _fsync_folder(out.parent)

    def close(self) -> None:
        """Let go of an unfinished shard; it is reopened at what the journal says."""
        if self._writer:
            self._writer.close()


@contextmanager
def open_draft(out: Path, plan: dict) -> Iterator[Draft]:
    """Begin the source `out`, or continue it.

    Args:
        plan: the manifest before any document.

    ValueError: `out` exists, another process is at it, or the unfinished work has another plan.
    """
    refuse_existing(out)
    folder = out.with_name(out.name + ".tmp")
    folder.mkdir(parents=True, exist_ok=True)
    with (
        (folder / "held_out.jsonl").open("ab") as held_out,
        (folder / "skipped.jsonl").open("ab") as skipped,
    ):
        try:
            fcntl.flock(held_out, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ValueError(
                f"out: another process is preparing {out} right now; wait for it, or choose another"
            ) from None
        refuse_existing(out)  # the one that held the lock may just have finished
        draft = Draft(folder, plan, held_out, skipped)
        try:
            yield draft
        finally:
            draft.close()


def refuse_existing(out: Path) -> None:
    """ValueError if there is anything at `out`."""
    if (out / "manifest.json").exists():
        raise ValueError(f"out: {out} is prepared already; use it, remove it or choose another")
    if out.exists():
        raise ValueError(f"out: {out} exists and is not a prepared source; choose another")


def _identity(manifest: dict) -> dict[str, Any]:
    """Everything the files depend on."""
    return {
        "name": manifest["name"],
        "tokenizer": manifest["tokenizer"]["fingerprint"],
        "held_out_fraction": manifest["held_out"]["fraction"],
        **manifest["settings"],
        **{f"input {entry['path']}": entry["sha256"] for entry in manifest["inputs"]},
    }


def _json_line(value: dict[str, Any]) -> bytes:
    # A file name need not be UTF-8; its odd bytes become JSON escapes, texts have none.
    return json.dumps(value, ensure_ascii=False).encode(errors="backslashreplace") + b"\n"


def _write_durably(path: Path, value: dict[str, Any]) -> None:
    temporary = path.with_name(path.name + ".tmp")
    with temporary.open("w") as file:
        json.dump(value, file, indent=1)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    _fsync_folder(path.parent)


def _fsync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    os.fsync(descriptor)
    os.close(descriptor)
