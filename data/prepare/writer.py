"""Writing of a prepared source, or of an append to one, restartable at any instant.

Unfinished work is in `<out>.tmp/`:

    near_copies.index              data.prepare.overlap_index; complete or absent
    shard-*.{tokens,stops,bytes}   data.rows.shards.ShardWriter
    held_out.jsonl skipped.jsonl   appended to; held_out.jsonl also carries the lock
    journal.json                   the manifest so far, and the size of each file that belongs to it
    manifest.json                  written once everything is on disk; only publishing is missing

Files are forced to disk before the journal, so what the journal describes is on disk. The rest is
cut off when the work is opened again: the files come out the same wherever a process was killed.

A new source is published by one rename of the folder. An append first moves its shards into the
source, where no manifest names them yet; then the new manifest.json replaces the old one, which is
the instant at which the source grows; then skipped.jsonl follows, and the folder is removed. The
held-out text of a source never changes, so that losses on it can be compared before and after.
"""

import contextlib
import json
import os
import shutil
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from data.prepare.chunks import LEFT_OUT, Chunk
from data.prepare.held_out import FOLD_VERSION
from data.prepare.manifest import Manifest
from data.records.readers import Position
from data.rows.shards import ShardWriter, fingerprint_of, read_manifest
from storage.atomic import fsync, fsync_file, write_json
from storage.checksum import sha256_of
from storage.journal import differing
from storage.lock import locked

INDEX = "near_copies.index"


class SourceWriter:
    """Takes chunks in order and writes a source or an append; made by `open_writer`.

    Attributes:
        manifest: the manifest, with counts up to `position`.
        position: the last processed record.
        records: number of processed records, bad ones included.
        index: path of the index of documents that must not be copied.
        complete: only `publish` is missing.
    """

    def __init__(
        self, out: Path, manifest: Manifest, held_out: BinaryIO, skipped: BinaryIO
    ) -> None:
        self.folder = unfinished_folder(out)
        self.index = self.folder / INDEX
        self.complete = (self.folder / "manifest.json").exists()
        self.manifest = manifest
        self.position = Position()
        self.records = 0
        self._held_out = held_out
        self._skipped = skipped
        self._skipped_before = Counter(manifest.skipped)
        self._shard: ShardWriter | None = None
        if self.complete:
            self._adopt(_read_json(self.folder / "manifest.json"))
        elif (self.folder / "journal.json").exists():
            self._restore(_read_json(self.folder / "journal.json"))
        else:
            self.index.unlink(missing_ok=True)  # without a journal its inputs are unknown
            held_out.truncate(0)
            skipped.truncate(0)
            if (out / "skipped.jsonl").exists():
                with (out / "skipped.jsonl").open("rb") as earlier:
                    shutil.copyfileobj(earlier, skipped)

    def _restore(self, journal: dict) -> None:
        self._adopt(journal["manifest"])
        self.position = Position(*journal["position"])
        self.records = journal["records"]
        self._held_out.truncate(journal["held_out_size"])
        self._skipped.truncate(journal["skipped_size"])
        documents, tokens = journal["open_shard"]
        if documents:
            self._shard = self._open_shard((documents, tokens))

    def _adopt(self, content: dict[str, Any]) -> None:
        """Take over the manifest of unfinished work, if it describes this work."""
        found = Manifest.from_json(content)
        if "appends" not in content or found.latest.settings.get("fold_version") != FOLD_VERSION:
            raise ValueError(
                f"{self.folder} holds unfinished work of an earlier version; "
                "remove it and run again"
            )
        if names := differing(self.manifest.identity, found.identity):
            raise ValueError(
                f"{self.folder} holds unfinished work with different settings "
                f"({', '.join(names)}); remove it, or continue with the settings of that work"
            )
        self.manifest = found

    def _open_shard(self, resume_at: tuple[int, int] = (0, 0)) -> ShardWriter:
        number = len(self.manifest.shards)
        return ShardWriter(self.folder, number, np.dtype(self.manifest.dtype), resume_at)

    @property
    def skipped(self) -> Counter[str]:
        """Number of records that this work has skipped, by reason."""
        return Counter(self.manifest.skipped) - self._skipped_before

    @property
    def bad_records(self) -> int:
        """Number of processed records that are not documents."""
        return sum(count for reason, count in self.skipped.items() if reason not in LEFT_OUT)

    def add(self, chunk: Chunk) -> None:
        """Append the chunk after `position`."""
        self._add_training(chunk.ids, chunk.lengths, chunk.utf8_bytes)
        for text in chunk.held_out:
            self._held_out.write(json_line({"text": text}))
            self.manifest.held_out["documents"] += 1
            self.manifest.held_out["utf8_bytes"] += len(text.encode())
        skipped, inputs = self.manifest.skipped, self.manifest.latest_inputs
        for file, line, reason in chunk.skipped:
            place = {"file": inputs[file]["path"], "line": line, "reason": reason}
            self._skipped.write(json_line(place))
            skipped[reason] = skipped.get(reason, 0) + 1
        for file, documents in chunk.documents.items():
            inputs[file]["documents"] += documents
        self.records += chunk.records
        self.position = chunk.end

    def _add_training(self, ids: np.ndarray, lengths: np.ndarray, utf8_bytes: np.ndarray) -> None:
        """Fill shards; the end of a shard depends on the documents and never on the chunks."""
        limit = self.manifest.latest.settings["shard_tokens"]
        while len(lengths):
            self._shard = self._shard or self._open_shard()
            stops = self._shard.tokens + np.cumsum(lengths)
            documents = int(np.searchsorted(stops, limit)) + 1
            tokens = int(lengths[:documents].sum())
            self._shard.add(ids[:tokens], lengths[:documents], utf8_bytes[:documents])
            ids, lengths, utf8_bytes = ids[tokens:], lengths[documents:], utf8_bytes[documents:]
            if self._shard.tokens >= limit:
                self._close_shard()

    def _close_shard(self) -> None:
        if self._shard:
            shard, self._shard = self._shard, None
            self.manifest.shards.append(shard.close())

    def save(self) -> None:
        """Force everything up to `position` to disk."""
        if self._shard:
            self._shard.flush()
        for file in (self._held_out, self._skipped):
            fsync_file(file)
        shard = self._shard
        journal = {
            "manifest": self.manifest.to_json(),
            "position": self.position,
            "records": self.records,
            "open_shard": (shard.documents, shard.tokens) if shard else (0, 0),
            "held_out_size": os.fstat(self._held_out.fileno()).st_size,
            "skipped_size": os.fstat(self._skipped.fileno()).st_size,
        }
        write_json(self.folder / "journal.json", journal)

    def finish(self) -> None:
        """Write the manifest.

        Raises:
            ValueError: no document is left for training.
        """
        self._close_shard()
        manifest, is_new = self.manifest, self.manifest.latest.fingerprint_before is None
        if len(manifest.shards) == manifest.latest.first_shard:
            shutil.rmtree(self.folder)
            reasons = ", ".join(f"{count} x {reason}" for reason, count in self.skipped.items())
            held_out = manifest.held_out["documents"] if is_new else 0
            raise ValueError(
                f"inputs: no document is left for training; {self.records} records read, "
                f"{held_out} held out, skipped: {reasons or 'none'}"
            )
        self.save()
        for total in ("documents", "tokens", "utf8_bytes"):
            setattr(manifest, total, sum(shard[total] for shard in manifest.shards))
        if is_new:
            manifest.held_out["sha256"] = sha256_of(self.folder / "held_out.jsonl")
        write_json(self.folder / "manifest.json", manifest.to_json())
        self.complete = True

    def publish(self, out: Path) -> None:
        """Rename the folder to its final name, without temporary files; or extend the source."""
        assert self.complete
        if self.manifest.latest.fingerprint_before:
            _publish_append(out, self.folder)
            return
        for pattern in ("*.stops", "*.bytes", "journal.json", INDEX):
            for path in self.folder.glob(pattern):
                path.unlink()
        fsync(self.folder)
        self.folder.rename(out)
        fsync(out.parent)

    def close(self) -> None:
        """Close an unfinished shard; it is opened again at the size that the journal records."""
        if self._shard:
            self._shard.close()


@contextmanager
def open_writer(out: Path, manifest: Manifest) -> Iterator[SourceWriter]:
    """Start or continue the writing of the source `out`, or of an append to it.

    Args:
        manifest: the manifest before the first document.

    Raises:
        ValueError: `out` exists or is not the source to append to, another process is working on
            it, or the unfinished work has different settings.
    """
    with lock_unfinished(out) as held_out:
        if not manifest.appends:
            refuse_existing(out)
        elif fingerprint_of(read_manifest(out)) != manifest.latest.fingerprint_before:
            raise ValueError(f"out: another process has just appended to {out}; run again")
        with (unfinished_folder(out) / "skipped.jsonl").open("ab") as skipped:
            writer = SourceWriter(out, manifest, held_out, skipped)
            try:
                yield writer
            finally:
                writer.close()


def unfinished_folder(out: Path) -> Path:
    """Folder of the unfinished work for a source."""
    return out.with_name(out.name + ".tmp")


@contextmanager
def lock_unfinished(out: Path) -> Iterator[BinaryIO]:
    """Be the only process that prepares `out`; gives held_out.jsonl, opened for appending.

    Raises:
        ValueError: another process is preparing `out` or has just finished.
    """
    path = unfinished_folder(out) / "held_out.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    busy = f"out: another process is preparing {out} right now; wait for it, or choose another out="
    with locked(path, busy) as held_out:
        # The process that held the lock may have published or removed the opened file.
        if not path.exists() or not os.path.samestat(path.stat(), os.fstat(held_out.fileno())):
            raise ValueError(f"out: another process has just finished {out}; run again")
        yield held_out


def refuse_existing(out: Path) -> None:
    """Refuse a path at which something exists, with ValueError."""
    if (out / "manifest.json").exists():
        raise ValueError(f"out: {out} is prepared already; use it, remove it or choose another")
    if out.exists():
        raise ValueError(f"out: {out} exists and is not a prepared source; choose another")


def finish_interrupted_append(out: Path) -> bool:
    """Clean up after an append that was cut off once the source had grown; False without one."""
    folder = unfinished_folder(out)
    if not _has_grown(out, folder):
        return False
    with lock_unfinished(out):
        if _has_grown(out, folder):
            _clear_published(out, folder)
    return True


def _has_grown(out: Path, folder: Path) -> bool:
    """Check that the manifest of a complete append is already that of the source."""
    paths = (folder / "manifest.json", out / "manifest.json")
    return all(path.exists() for path in paths) and _read_json(paths[0]) == _read_json(paths[1])


def _publish_append(out: Path, folder: Path) -> None:
    """Extend a source by a complete append; may be cut off and called again."""
    content = _read_json(folder / "manifest.json")
    for shard in content["shards"][content["appends"][-1]["first_shard"] :]:
        for name in shard["sha256"]:
            if (folder / name).exists():
                (folder / name).replace(out / name)
    fsync(folder)
    fsync(out)
    write_json(out / "manifest.json", content)
    _clear_published(out, folder)


def _clear_published(out: Path, folder: Path) -> None:
    """Move skipped.jsonl and remove the folder, after the manifest has been replaced."""
    if (folder / "skipped.jsonl").exists():
        (folder / "skipped.jsonl").replace(out / "skipped.jsonl")
        fsync(out)
    # The manifest marks this work as pending, so it is removed last, before the lock's file.
    for path in sorted(folder.iterdir()):
        if path.name not in ("manifest.json", "held_out.jsonl"):
            path.unlink()
    fsync(folder)
    (folder / "manifest.json").unlink()
    (folder / "held_out.jsonl").unlink()
    with contextlib.suppress(OSError):  # another process may already use the folder
        folder.rmdir()
    fsync(folder.parent)


def _read_json(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8"))


def json_line(value: dict[str, Any]) -> bytes:
    """A line of JSON; bytes of file names that are not UTF-8 become escapes."""
    return json.dumps(value, ensure_ascii=False).encode(errors="backslashreplace") + b"\n"
