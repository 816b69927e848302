"""A source, or what it grows by, under construction: `<out>.tmp/`, trusted as its journal says.

    near_copies.index              data.prepare.overlap_index; complete or absent
    shard-*.{tokens,stops,bytes}   data.rows.shards.ShardWriter
    held_out.jsonl skipped.jsonl   appended to; held_out.jsonl also carries the lock
    journal.json                   the manifest so far, and how much of every file belongs to it
    manifest.json                  written once all is durable; only publishing is left to do

Files first, then the journal, each fsynced: what the journal says is on disk, and what lies beyond
it is cut away when the draft is opened again. So a process may be killed between any two
instructions, and the files come out the same.
"""

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
from data.prepare.growth import INDEX, clear_published, is_published, publish_into, work_of
from data.prepare.held_out import FOLD_VERSION
from data.records.readers import Position
from data.rows.shards import ShardWriter, fingerprint_of, read_manifest
from storage.atomic import fsync, fsync_file, write_json
from storage.checksum import sha256_of
from storage.lock import locked


class Draft:
    """Takes chunks in order and becomes a source, or further shards; made by `open_draft`.

    Attributes:
        manifest: as it will be written, counts up to `position`.
        position: the last record that has been dealt with.
        records: how many have been dealt with, bad ones included.
        index: where the index of what must not be copied belongs.
        complete: whether nothing but `publish` is left to do.
    """

    def __init__(self, out: Path, plan: dict, held_out: BinaryIO, skipped: BinaryIO) -> None:
        folder = draft_folder(out)
        self.folder = folder
        self.index = folder / INDEX
        self.complete = (folder / "manifest.json").exists()
        self.manifest = plan
        self.position = Position()
        self.records = 0
        self._held_out = held_out
        self._skipped = skipped
        self._skipped_before = Counter(plan.get("skipped", {}))
        self._writer: ShardWriter | None = None
        if self.complete:
            self._adopt(json.loads((folder / "manifest.json").read_text()))
        elif (folder / "journal.json").exists():
            self._restore(json.loads((folder / "journal.json").read_text()))
        else:
            self.index.unlink(missing_ok=True)  # no journal says what it was made for
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
            self._writer = self._open_shard((documents, tokens))

    def _adopt(self, manifest: dict) -> None:
        version = work_of(manifest).settings.get("fold_version") if "appends" in manifest else None
        if version != FOLD_VERSION:
            raise ValueError(
                f"{self.folder} holds unfinished work of an earlier version; "
                "remove it and run again"
            )
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

    @property
    def bad_records(self) -> int:
        """How many of the records dealt with are no documents."""
        skipped = Counter(self.manifest["skipped"]) - self._skipped_before
        return sum(count for reason, count in skipped.items() if reason not in LEFT_OUT)

    def add(self, chunk: Chunk) -> None:
        """Append what follows `position`."""
        self._add_training(chunk.ids, chunk.lengths, chunk.utf8_bytes)
        for text in chunk.held_out:
            self._held_out.write(_json_line({"text": text}))
            self.manifest["held_out"]["documents"] += 1
            self.manifest["held_out"]["utf8_bytes"] += len(text.encode())
        skipped = self.manifest["skipped"]
        inputs = self.manifest["inputs"][work_of(self.manifest).first_input :]
        for file, line, reason in chunk.skipped:
            place = {"file": inputs[file]["path"], "line": line, "reason": reason}
            self._skipped.write(_json_line(place))
            skipped[reason] = skipped.get(reason, 0) + 1
        for file, documents in chunk.documents.items():
            inputs[file]["documents"] += documents
        self.records += chunk.records
        self.position = chunk.end

    def _add_training(self, ids: np.ndarray, lengths: np.ndarray, utf8_bytes: np.ndarray) -> None:
        """Fill shards: where one ends depends on the documents, never on the chunks."""
        limit = work_of(self.manifest).settings["shard_tokens"]
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
            fsync_file(file)
        writer = self._writer
        journal = {
            "manifest": self.manifest,
            "position": self.position,
            "records": self.records,
            "open_shard": (writer.documents, writer.tokens) if writer else (0, 0),
            "held_out_size": os.fstat(self._held_out.fileno()).st_size,
            "skipped_size": os.fstat(self._skipped.fileno()).st_size,
        }
        write_json(self.folder / "journal.json", journal)

    def finish(self) -> None:
        """Write the manifest; ValueError if there is nothing to train on."""
        self._close_shard()
        shards, work = self.manifest["shards"], work_of(self.manifest)
        if len(shards) == work.first_shard:
            shutil.rmtree(self.folder)
            skipped = Counter(self.manifest["skipped"]) - self._skipped_before
            reasons = ", ".join(f"{count} x {reason}" for reason, count in skipped.items())
            held_out = 0 if work.fingerprint_before else self.manifest["held_out"]["documents"]
            raise ValueError(
                f"inputs: no document is left for training; {self.records} records read, "
                f"{held_out} held out, skipped: {reasons or 'none'}"
            )
        self.save()
        for total in ("documents", "tokens", "utf8_bytes"):
            self.manifest[total] = sum(shard[total] for shard in shards)
        if not work.fingerprint_before:
            self.manifest["held_out"]["sha256"] = sha256_of(self.folder / "held_out.jsonl")
        write_json(self.folder / "manifest.json", self.manifest)
        self.complete = True

    def publish(self, out: Path) -> None:
        """Give the folder its name, without what only the work needed; or let the source grow."""
        assert self.complete
        if work_of(self.manifest).fingerprint_before:
            publish_into(out, self.folder)
            return
        for pattern in ("*.stops", "*.bytes", "journal.json", INDEX):
            for path in self.folder.glob(pattern):
                path.unlink()
        fsync(self.folder)
        self.folder.rename(out)
        fsync(out.parent)

    def close(self) -> None:
        """Let go of an unfinished shard; it is reopened at what the journal says."""
        if self._writer:
            self._writer.close()


@contextmanager
def open_draft(out: Path, plan: dict) -> Iterator[Draft]:
    """Begin the source `out` or what it grows by, or continue it.

    Args:
        plan: the manifest before any document.

    ValueError: `out` exists or is not what should grow, another process is at it, or the
    unfinished work has another plan.
    """
    with locked_draft(out) as held_out, (draft_folder(out) / "skipped.jsonl").open("ab") as skipped:
        if not plan.get("appends"):
            refuse_existing(out)
        elif fingerprint_of(read_manifest(out)) != work_of(plan).fingerprint_before:
            raise ValueError(f"out: another process has just appended to {out}; run again")
        draft = Draft(out, plan, held_out, skipped)
        try:
            yield draft
        finally:
            draft.close()


def settle(out: Path) -> bool:
    """Finish an append that was cut off after the source had grown; whether there was one."""
    if not is_published(out, draft_folder(out)):
        return False
    with locked_draft(out):
        if is_published(out, draft_folder(out)):
            clear_published(out, draft_folder(out))
    return True


def draft_folder(out: Path) -> Path:
    """Where the unfinished work for a source lies."""
    return out.with_name(out.name + ".tmp")


@contextmanager
def locked_draft(out: Path) -> Iterator[BinaryIO]:
    """Be the only process that works on a draft; gives its held_out.jsonl, opened to append."""
    path = draft_folder(out) / "held_out.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    busy = f"out: another process is preparing {out} right now; wait for it, or choose another out="
    with locked(path, busy) as held_out:
        # The process that held the lock may have published or removed the opened file.
        if not path.exists() or not os.path.samestat(path.stat(), os.fstat(held_out.fileno())):
            raise ValueError(f"out: another process has just finished {out}; run again")
        yield held_out


def refuse_existing(out: Path) -> None:
    """ValueError if there is anything at `out`."""
    if (out / "manifest.json").exists():
        raise ValueError(f"out: {out} is prepared already; use it, remove it or choose another")
    if out.exists():
        raise ValueError(f"out: {out} exists and is not a prepared source; choose another")


def _identity(manifest: dict) -> dict[str, Any]:
    """Everything the files depend on."""
    work = work_of(manifest)
    return {
        "name": manifest["name"],
        "tokenizer": manifest["tokenizer"]["fingerprint"],
        "held_out_fraction": manifest["held_out"]["fraction"],
        "append": work.fingerprint_before,
        **work.settings,
        **{
            f"{kind} {entry['path']}": entry["sha256"]
            for kind, entries in (
                ("input", manifest["inputs"][work.first_input :]),
                ("avoid", work.avoid),
            )
            for entry in entries
        },
    }


def _json_line(value: dict[str, Any]) -> bytes:
    # A file name need not be UTF-8; its odd bytes become JSON escapes, texts have none.
    return json.dumps(value, ensure_ascii=False).encode(errors="backslashreplace") + b"\n"
