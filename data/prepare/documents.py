"""Documents -> a prepared source (`data.rows.shards`), by several processes, restartable at any
instant.

The main process cuts the inputs into chunks of records, workers parse and tokenize them, and the
main process appends the results in the order of the inputs to `<out>.tmp/`, which is renamed to
`<out>` when all is durable. The files are byte for byte the same however many workers there were
and however often the work was cut off: `journal.json` says up to which record it can be trusted,
and whatever lies beyond is cut away on restart.

The inputs are read twice. A document is held out if the hash of its letters and digits says so
(`data.prepare.held_out`), so a first pass can find all that are, and index what they consist of;
the second
leaves near copies of them out of training (`data.prepare.overlap_index`).
"""

import itertools
import re
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from tqdm import tqdm

from data.prepare.chunks import LEFT_OUT, Chunk, Parser, in_chunks
from data.prepare.draft import Draft, open_draft, refuse_existing, settle
from data.prepare.growth import grown_plan, is_latest
from data.prepare.held_out import FOLD_VERSION
from data.prepare.ngrams import GRAM_UNITS
from data.prepare.overlap_index import Protect, Protected, write_index
from data.prepare.progress import ReadingBar
from data.prepare.tokenizer_files import describe_difference, open_exportable
from data.prepare.workers import map_in_order
from data.records.readers import BadRecord, Position, find_inputs, read_records, text_of
from data.rows.shards import FORMAT_VERSION, read_manifest, token_dtype
from storage.checksum import sha256_of
from tokenizer.tokenizer import Tokenizer

JOURNAL_SECONDS = 5.0
SHOWN_PER_REASON = 3


@dataclass(kw_only=True)
class PrepareConfig:
    """What one source is made from."""

    name: str
    """What curricula and reports call the source: letters, digits, `_`, `.` and `-`."""
    inputs: list[str]
    """Files or globs; read in sorted order. Formats: .jsonl[.gz|.zst], .txt, .parquet."""
    out: str
    """Folder to create. `<out>.tmp` keeps unfinished work; the same command continues it."""
    append: bool = False
    """Let the source `out` grow by these inputs: further shards, nothing rewritten, and the
    held-out text stays as it is. Name, tokenizer and held_out_fraction must be the source's."""
    tokenizer: str
    """A `.model` file or a tokenizer folder."""
    text_field: str = "text"
    """Field of a JSON line, or column of a Parquet file, that holds the text."""
    txt_documents: str = "file"
    """What one document of a .txt input is: `file` or `line`."""
    held_out_fraction: float = 0.01
    """Share of documents that no training row touches, 0 <= fraction < 1."""
    avoid: list[str] = field(default_factory=list)
    """Files or globs, read like inputs: no training document equals (folded) or nearly copies a
    document in them. For questions of benchmarks, and held_out.jsonl of other sources (see also
    scripts.check_sources)."""
    on_bad: str = "skip"
    """`skip` leaves bad records out, counts them and lists them in skipped.jsonl; `fail` stops."""
    workers: int = 0
    """Processes that tokenize; 0: one per core. The result does not depend on it."""
    max_documents: int = 0
    """Stop after this many records, bad ones included; 0: read everything."""
    shard_tokens: int = 1 << 28
    """A shard is closed once it holds this many tokens."""

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[\w.-]+", self.name):
            raise ValueError(f"name: {self.name!r}; use letters, digits, `_`, `.` and `-`")
        for name in ("inputs", "out", "tokenizer", "text_field"):
            if not getattr(self, name):
                raise ValueError(f"{name}: empty; it must be given")
        for name, choices in (("txt_documents", ("file", "line")), ("on_bad", ("skip", "fail"))):
            if getattr(self, name) not in choices:
                raise ValueError(f"{name}: {getattr(self, name)!r}; choose from {choices}")
        if not 0 <= self.held_out_fraction < 1:
            raise ValueError(
                f"held_out_fraction: {self.held_out_fraction}; it must be >= 0 and < 1"
            )
        for name, least in (("workers", 0), ("max_documents", 0), ("shard_tokens", 1)):
            if getattr(self, name) < least:
                raise ValueError(f"{name}: {getattr(self, name)}; it must be >= {least}")


def prepare(config: PrepareConfig, *, progress: bool = True) -> dict:
    """Prepare a source and return its manifest; continues what an earlier call left unfinished.

    ValueError: a bad input, a bad record under `on_bad=fail`, inputs that change while they are
    read, no document left for training, a folder that exists (or, with `append`, is no such
    source) or that another process is filling.
    """
    out = Path(config.out)
    _check_out(out, config.append)
    files = _Files(config)
    tokenizer = open_exportable(config.tokenizer)
    plan = _plan(config, tokenizer, files, files.digests(progress))
    if config.append:
        if settle(out) and is_latest(read_manifest(out), plan):
            return read_manifest(out)
        plan = grown_plan(out, plan)
    with open_draft(out, plan) as draft:
        if not draft.complete:
            if not draft.index.exists():
                _index(draft, config, files, progress)
            _fill(draft, config, files.inputs, progress)
            files.check_unchanged(draft.folder)
            draft.finish()
        draft.publish(out)
    return draft.manifest


def compare_on_documents(config: PrepareConfig) -> str | None:
    """A line on how far tokenizer.json and tokenizer.model differ on the first texts, or None.

    Raises:
        ValueError: there are no such inputs, or no tokenizer.
    """
    paths = find_inputs(config.inputs, config.text_field)

    def texts() -> Iterator[str]:
        for record in read_records(paths, config.text_field, config.txt_documents, Position()):
            with suppress(BadRecord):
                yield text_of(record, config.text_field)

    return describe_difference(config.tokenizer, texts())


def _check_out(out: Path, append: bool) -> None:
    if not append:
        refuse_existing(out)
    elif not (out / "manifest.json").exists():
        raise ValueError(
            f"append: {out} is not a prepared source (no manifest.json), so nothing can be "
            "appended to it; correct out, or set append=false to prepare it"
        )


class _Files:
    """What is read, as it was when the command began."""

    def __init__(self, config: PrepareConfig) -> None:
        self.inputs = find_inputs(config.inputs, config.text_field)
        try:
            self.avoid = find_inputs(config.avoid, config.text_field)
        except ValueError as error:
            raise ValueError(f"avoid: {str(error).removeprefix('inputs: ')}") from error
        self._stamps = {path: self._stamp(path) for path in (*self.inputs, *self.avoid)}

    def _stamp(self, path: str) -> tuple[int, int]:
        status = Path(path).stat()
        return status.st_size, status.st_mtime_ns

    def digests(self, progress: bool) -> dict[str, str]:
        paths = tqdm(self._stamps, "hash", unit="file", leave=False, disable=not progress)
        return {path: sha256_of(Path(path)) for path in paths}

    def check_unchanged(self, folder: Path) -> None:
        for path, stamp in self._stamps.items():
            if self._stamp(path) != stamp:
                raise ValueError(
                    f"{path} has changed while it was read; remove {folder} and run again"
                )


def _plan(
    config: PrepareConfig, tokenizer: Tokenizer, files: _Files, digests: dict[str, str]
) -> dict:
    """The manifest of a new source before any document."""
    return {
        "format_version": FORMAT_VERSION,
        "name": config.name,
        "dtype": token_dtype(tokenizer.vocab_size).str,
        "tokenizer": {
            "fingerprint": tokenizer.fingerprint,
            "vocab_size": tokenizer.vocab_size,
            "bos_id": tokenizer.bos_id,
            "eos_id": tokenizer.eos_id,
        },
        "documents": 0,
        "tokens": 0,
        "utf8_bytes": 0,
        "shards": [],
        "held_out": {"fraction": config.held_out_fraction, "documents": 0, "utf8_bytes": 0},
        "inputs": [
            {"path": path, "sha256": digests[path], "documents": 0} for path in files.inputs
        ],
        "avoid": [{"path": path, "sha256": digests[path]} for path in files.avoid],
        "appends": [],
        "skipped": {},
        "settings": {
            "text_field": config.text_field,
            "txt_documents": config.txt_documents,
            "max_documents": config.max_documents,
            "shard_tokens": config.shard_tokens,
            "gram_units": GRAM_UNITS,
            "fold_version": FOLD_VERSION,
        },
    }


def _index(draft: Draft, config: PrepareConfig, files: _Files, progress: bool) -> None:
    """The first pass: index what no training document may copy."""
    all_records = replace(config, max_documents=0)
    if config.append:
        known = [str(Path(config.out) / "held_out.jsonl")]
        held_out = _protected(known, 1.0, replace(all_records, text_field="text"), progress)
    else:
        held_out = _protected(files.inputs, config.held_out_fraction, config, progress)
    # The held-out text of a source has its own field, whatever ours is called.
    theirs = [path for path in files.avoid if _is_held_out_text(Path(path))]
    others = [path for path in files.avoid if path not in theirs]
    avoided = _avoided(theirs, replace(all_records, text_field="text"), progress)
    avoided += _avoided(others, all_records, progress)
    files.check_unchanged(draft.folder)
    write_index(draft.index, held_out, avoided)
    draft.save()  # without a journal that says what it was made for, the index is not trusted


def _is_held_out_text(path: Path) -> bool:
    return path.name == "held_out.jsonl" and (path.parent / "manifest.json").is_file()


def _avoided(paths: list[str], config: PrepareConfig, progress: bool) -> list[Protected]:
    """All documents of some files; ValueError if one cannot be read."""
    avoided = _protected(paths, 1.0, config, progress)
    for part in avoided:
        if part.bad:
            position, reason = part.bad
            raise ValueError(
                f"avoid: {paths[position.file]}:{position.line}: {reason}; a document that "
                "cannot be read cannot be avoided, so mend it or leave it out"
            )
    return avoided


def _protected(
    paths: list[str], fraction: float, config: PrepareConfig, progress: bool
) -> list[Protected]:
    """The share of the documents of some files that must not be copied."""
    if not paths or not fraction:
        return []
    records = read_records(paths, config.text_field, config.txt_documents, Position())
    if config.max_documents:
        records = itertools.islice(records, config.max_documents)
    make = partial(Protect, config.text_field, fraction)
    found = []
    with (
        ReadingBar("13-grams", paths, Position(), shown=progress) as bar,
        closing(map_in_order(make, in_chunks(records), config.workers)) as parts,
    ):
        for part in parts:
            found.append(part)
            bar.reach(part.end)
    return found


def _fill(draft: Draft, config: PrepareConfig, paths: list[str], progress: bool) -> None:
    """The second pass: read, tokenize and append whatever the draft does not hold yet."""
    if config.on_bad == "fail" and draft.bad_records:
        raise ValueError(
            f"on_bad: {draft.folder} has skipped bad records already (its skipped.jsonl lists "
            "them); remove it to start anew, or go on with on_bad=skip"
        )
    records = read_records(paths, config.text_field, config.txt_documents, draft.position)
    if config.max_documents:
        records = itertools.islice(records, config.max_documents - draft.records)
    make = partial(
        Parser, config.tokenizer, config.text_field, config.held_out_fraction, config.append,
        draft.index,
    )  # fmt: skip
    next_save = time.monotonic() + JOURNAL_SECONDS
    with (
        ReadingBar(config.name, paths, draft.position, shown=progress) as bar,
        closing(map_in_order(make, in_chunks(records), config.workers)) as chunks,
    ):
        if draft.records and progress:
            bar.write(f"continuing {draft.folder} after record {draft.records}", file=sys.stderr)
        for chunk in chunks:
            _report(chunk, draft, paths, config, bar)
            draft.add(chunk)
            bar.set_postfix(skipped=sum(draft.manifest["skipped"].values()), refresh=False)
            bar.reach(chunk.end)
            if time.monotonic() >= next_save:
                draft.save()
                next_save = time.monotonic() + JOURNAL_SECONDS


def _report(chunk: Chunk, draft: Draft, paths: list[str], config: PrepareConfig, bar: tqdm) -> None:
    """Show the first skipped records of each kind; ValueError at a bad one under `on_bad=fail`."""
    seen = Counter(draft.manifest["skipped"])
    for file, line, reason in chunk.skipped:
        place = f"{paths[file]}:{line}: {reason}"
        if config.on_bad == "fail" and reason not in LEFT_OUT:
            raise ValueError(f"{place}; mend it, or set on_bad=skip to leave such records out")
        seen[reason] += 1
        if seen[reason] <= SHOWN_PER_REASON and not bar.disable:
            bar.write(f"skipped {place}", file=sys.stderr)
