"""Growing a prepared source by further shards, without touching those it has.

The draft (`data.prepare.draft`) holds the new shards, the new manifest and the longer
skipped.jsonl. To
publish it, the shards are moved in, where nobody knows them yet; then manifest.json is replaced,
which is the moment the source grows; then skipped.jsonl, and the draft is removed. Whoever dies on
the way leaves the old source or the new one, and a draft that says what is still to do.

The held-out text stays what it was when the source was first prepared, so that losses on it
compare before and after.
"""

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from data.rows.shards import fingerprint_of, read_manifest
from storage.atomic import fsync, write_json
from storage.checksum import sha256_of

INDEX = "near_copies.index"


class Work(NamedTuple):
    """What a draft adds to a source: all of it, or the newest of its `appends`."""

    settings: dict
    avoid: list[dict]
    first_input: int
    first_shard: int
    fingerprint_before: str | None
    """Of the source that grows; None for one that is new."""


def work_of(manifest: dict) -> Work:
    """The latest work that a manifest tells of."""
    if manifest["appends"]:
        return Work(**manifest["appends"][-1])
    return Work(manifest["settings"], manifest["avoid"], 0, 0, None)


def grown_plan(out: Path, plan: dict) -> dict:
    """The manifest of the source `out` before any document of another preparation.

    Args:
        plan: what the manifest of the added documents would be if they were a source.

    ValueError: the source and the plan do not go together, or an input is in the source already.
    """
    manifest = read_manifest(out)
    manifest["appends"] = manifest.get("appends", [])
    _check_same_source(out, manifest, plan)
    known = {entry["sha256"] for entry in manifest["inputs"]}
    for entry in plan["inputs"]:
        if entry["sha256"] in known:
            raise ValueError(f"inputs: {entry['path']!r} is in {out} already; leave it out")
    avoided = {entry["sha256"] for entry in plan["avoid"]}
    for work in (manifest, *manifest["appends"]):
        for entry in work.get("avoid", []):
            if entry["sha256"] not in avoided:
                raise ValueError(
                    f"avoid: {out} was prepared to avoid {entry['path']!r} (sha256 "
                    f"{entry['sha256'][:12]}), which is not given now; add that file to avoid"
                )
    work = Work(
        settings=plan["settings"],
        avoid=plan["avoid"],
        first_input=len(manifest["inputs"]),
        first_shard=len(manifest["shards"]),
        fingerprint_before=fingerprint_of(manifest),
    )
    manifest["appends"].append(work._asdict())
    manifest["inputs"] += plan["inputs"]
    return manifest


def _check_same_source(out: Path, manifest: dict, plan: dict) -> None:
    for field, theirs, ours in (
        ("name", manifest["name"], plan["name"]),
        ("tokenizer", manifest["tokenizer"]["fingerprint"], plan["tokenizer"]["fingerprint"]),
        ("held_out_fraction", manifest["held_out"]["fraction"], plan["held_out"]["fraction"]),
    ):
        if ours != theirs:
            raise ValueError(
                f"{field}: {ours}, but {out} was prepared with {theirs}; "
                "append with the same one, or prepare another source"
            )
    if sha256_of(out / "held_out.jsonl") != manifest["held_out"]["sha256"]:
        raise ValueError(
            f"out: {out}/held_out.jsonl is not the file that was prepared; restore it, since "
            "what is appended must not copy it"
        )


def is_latest(manifest: dict, plan: dict) -> bool:
    """Whether the last thing that was appended to a source is what a plan would append."""
    work, inputs = work_of(manifest), plan["inputs"]
    added = [(entry["path"], entry["sha256"]) for entry in manifest["inputs"][work.first_input :]]
    wanted = [(entry["path"], entry["sha256"]) for entry in inputs]
    return (work.settings, work.avoid, added) == (plan["settings"], plan["avoid"], wanted)


def publish_into(out: Path, folder: Path) -> None:
    """Let a source grow by what a complete draft holds; may be cut off and called again."""
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    for name in _new_files(manifest):
        if (folder / name).exists():
            (folder / name).replace(out / name)
    fsync(folder)
    fsync(out)
    write_json(out / "manifest.json", manifest)
    clear_published(out, folder)


def _new_files(manifest: dict) -> Iterator[str]:
    for shard in manifest["shards"][work_of(manifest).first_shard :]:
        yield from shard["sha256"]


def is_published(out: Path, folder: Path) -> bool:
    """Whether a source has grown by a draft that is still there."""
    ours, theirs = folder / "manifest.json", out / "manifest.json"
    if not ours.exists() or not theirs.exists():
        return False
    return json.loads(ours.read_text()) == json.loads(theirs.read_text())


def clear_published(out: Path, folder: Path) -> None:
    """What is left to do once the manifest has been replaced."""
    if (folder / "skipped.jsonl").exists():
        (folder / "skipped.jsonl").replace(out / "skipped.jsonl")
        fsync(out)
    # The manifest says that this is to be done, so it goes last but for the lock on held_out.jsonl.
    for path in sorted(folder.iterdir()):
        if path.name not in ("manifest.json", "held_out.jsonl"):
            path.unlink()
    fsync(folder)
    (folder / "manifest.json").unlink()
    (folder / "held_out.jsonl").unlink()
    with contextlib.suppress(OSError):  # the next process may have begun in it
        folder.rmdir()
    fsync(folder.parent)
