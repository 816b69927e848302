"""Documents -> a prepared source (`data.rows.shards`), by several processes, restartable at any
instant.

The main process cuts the inputs into chunks of records. Workers parse and tokenize the chunks, and
the main process appends the results in the order of the inputs (`data.prepare.writer`). The files
are byte for byte the same for any number of workers and however often the work was cut off.

The inputs are read twice. A document is held out if the hash of its letters and digits is small
(`data.prepare.held_out`), so a first pass finds all held-out documents and indexes their n-grams.
The second pass leaves near copies of them out of training (`data.prepare.overlap_index`).
"""

import itertools
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
from data.prepare.config import PrepareBaseConfig
from data.prepare.held_out import FOLD_VERSION
from data.prepare.manifest import Manifest, append_manifest
from data.prepare.ngrams import NGRAM_UNITS
from data.prepare.overlap_index import ProtectedDocuments, ProtectedFinder, write_index
from data.prepare.tokenizer_files import describe_difference, open_exportable, tokenizer_entry
from data.prepare.workers import ReadingBar, map_in_order
from data.prepare.writer import (
    SourceWriter,
    finish_interrupted_append,
    open_writer,
    refuse_existing,
)
from data.records.readers import BadRecord, Position, find_inputs, read_records, text_of
from data.rows.shards import read_manifest, token_dtype
from storage.checksum import sha256_of
from tokenizer.tokenizer import Tokenizer

JOURNAL_SECONDS = 5.0
SHOWN_PER_REASON = 3


@dataclass(kw_only=True)
class PrepareConfig(PrepareBaseConfig):
    """Settings of a source of documents."""

    inputs: list[str]
    """Files or globs, read in sorted order. Formats: .jsonl[.gz|.zst], .txt, .parquet."""
    out: str
    """Folder to create. `<out>.tmp` holds unfinished work; the same command continues that work."""
    append: bool = False
    """Append these inputs to the source `out` as further shards. Nothing is rewritten, and the
    held-out text does not change. Name, tokenizer and held_out_fraction must be the source's."""
    text_field: str = "text"
    """Field of a JSON line, or column of a Parquet file, that holds the text."""
    txt_documents: str = "file"
    """Unit of one document in a .txt input: `file` or `line`."""
    decontaminate_against: list[str] = field(default_factory=list)
    """Files or globs, read like inputs: no training document equals (after folding) or nearly
    copies a document in them. For benchmark questions, and for held_out.jsonl of other sources (see
    also scripts.check_sources)."""
    workers: int = 0
    """Processes that tokenize; 0: one per core. The result does not depend on the number."""
    max_documents: int = 0
    """Stop after this number of records, bad ones included; 0: read everything."""
    shard_tokens: int = 1 << 28
    """A shard is closed once it holds this number of tokens."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_given("text_field")
        self._check_choices({"txt_documents": ("file", "line")})
        self._check_least(workers=0, max_documents=0, shard_tokens=1)


def prepare(config: PrepareConfig, *, progress: bool = True) -> dict:
    """Prepare a source and return the content of its manifest; continues unfinished work.

    Raises:
        ValueError: a bad input, a bad record under `on_error=fail`, inputs that change during the
            reading, no document left for training, a folder that exists (or, with `append`, is not
            such a source) or that another process is filling.
    """
    out = Path(config.out)
    _check_out(out, config.append)
    files = _Files(config)
    manifest = _manifest(config, open_exportable(config.tokenizer), files, files.digests(progress))
    if config.append:
        if finish_interrupted_append(out):
            content = read_manifest(out)
            if Manifest.from_json(content).repeats(manifest):
                return content
        manifest = append_manifest(out, manifest)
    with open_writer(out, manifest) as writer:
        if not writer.complete:
            if not writer.index.exists():
                _index(writer, config, files, progress)
            _fill(writer, config, files.inputs, progress)
            files.check_unchanged(writer.folder)
            writer.finish()
        writer.publish(out)
    return writer.manifest.to_json()


def compare_on_documents(config: PrepareConfig) -> str | None:
    """Compare tokenizer.json with tokenizer.model on the first texts; a line, or None if equal.

    Raises:
        ValueError: an input or the tokenizer is missing.
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
            f"append: {out} is not a prepared source (no manifest.json); correct out, or set "
            "append=false to prepare it"
        )


class _Files:
    """Files to read, with the sizes and times that they had at the start."""

    def __init__(self, config: PrepareConfig) -> None:
        self.inputs = find_inputs(config.inputs, config.text_field)
        try:
            self.avoided = find_inputs(config.decontaminate_against, config.text_field)
        except ValueError as error:
            reason = str(error).removeprefix("inputs: ")
            raise ValueError(f"decontaminate_against: {reason}") from error
        self._stamps = {path: self._stamp(path) for path in (*self.inputs, *self.avoided)}

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
                    f"{path} changed during the reading; remove {folder} and run again"
                )


def _manifest(
    config: PrepareConfig, tokenizer: Tokenizer, files: _Files, digests: dict[str, str]
) -> Manifest:
    """Manifest of a new source before the first document."""
    return Manifest(
        name=config.name,
        dtype=token_dtype(tokenizer.vocab_size).str,
        tokenizer=tokenizer_entry(tokenizer),
        held_out={"fraction": config.held_out_fraction, "documents": 0, "utf8_bytes": 0},
        inputs=[{"path": path, "sha256": digests[path], "documents": 0} for path in files.inputs],
        avoid=[{"path": path, "sha256": digests[path]} for path in files.avoided],
        settings={
            "text_field": config.text_field,
            "txt_documents": config.txt_documents,
            "max_documents": config.max_documents,
            "shard_tokens": config.shard_tokens,
            "gram_units": NGRAM_UNITS,
            "fold_version": FOLD_VERSION,
        },
    )


def _index(writer: SourceWriter, config: PrepareConfig, files: _Files, progress: bool) -> None:
    """First pass: index the documents that no training document may copy."""
    all_records = replace(config, max_documents=0)
    # The field of held_out.jsonl is `text`, whatever the field of the inputs is.
    held_out_records = replace(all_records, text_field="text")
    if config.append:
        known = [str(Path(config.out) / "held_out.jsonl")]
        held_out = _protected(known, 1.0, held_out_records, progress)
    else:
        held_out = _protected(files.inputs, config.held_out_fraction, config, progress)
    of_sources = [path for path in files.avoided if _is_held_out_text(Path(path))]
    others = [path for path in files.avoided if path not in of_sources]
    avoided = _avoided(of_sources, held_out_records, progress)
    avoided += _avoided(others, all_records, progress)
    files.check_unchanged(writer.folder)
    write_index(writer.index, held_out, avoided)
    writer.save()  # an index without a journal, which names its inputs, is not trusted


def _is_held_out_text(path: Path) -> bool:
    return path.name == "held_out.jsonl" and (path.parent / "manifest.json").is_file()


def _avoided(paths: list[str], config: PrepareConfig, progress: bool) -> list[ProtectedDocuments]:
    """All documents of some files; ValueError if a document cannot be read."""
    avoided = _protected(paths, 1.0, config, progress)
    for part in avoided:
        if part.bad:
            position, reason = part.bad
            raise ValueError(
                f"decontaminate_against: {paths[position.file]}:{position.line}: {reason}; "
                "correct this record or leave the file out"
            )
    return avoided


def _protected(
    paths: list[str], fraction: float, config: PrepareConfig, progress: bool
) -> list[ProtectedDocuments]:
    """The held-out share of the documents of some files, as n-grams."""
    if not paths or not fraction:
        return []
    records = read_records(paths, config.text_field, config.txt_documents, Position())
    if config.max_documents:
        records = itertools.islice(records, config.max_documents)
    make = partial(ProtectedFinder, config.text_field, fraction)
    found = []
    with (
        ReadingBar("13-grams", paths, Position(), shown=progress) as bar,
        closing(map_in_order(make, in_chunks(records), config.workers)) as parts,
    ):
        for part in parts:
            found.append(part)
            bar.reach(part.end)
    return found


def _fill(writer: SourceWriter, config: PrepareConfig, paths: list[str], progress: bool) -> None:
    """Second pass: read, tokenize and append the records that the writer lacks."""
    if config.on_error == "fail" and writer.bad_records:
        raise ValueError(
            f"on_error: {writer.folder} has already skipped bad records (listed in its "
            "skipped.jsonl); remove the folder to start again, or continue with on_error=skip"
        )
    records = read_records(paths, config.text_field, config.txt_documents, writer.position)
    if config.max_documents:
        records = itertools.islice(records, config.max_documents - writer.records)
    make = partial(
        Parser, config.tokenizer, config.text_field, config.held_out_fraction, config.append,
        writer.index,
    )  # fmt: skip
    next_save = time.monotonic() + JOURNAL_SECONDS
    with (
        ReadingBar(config.name, paths, writer.position, shown=progress) as bar,
        closing(map_in_order(make, in_chunks(records), config.workers)) as chunks,
    ):
        if writer.records and progress:
            bar.write(f"continuing {writer.folder} after record {writer.records}", file=sys.stderr)
        for chunk in chunks:
            _report(chunk, writer, paths, config, bar)
            writer.add(chunk)
            bar.set_postfix(skipped=sum(writer.manifest.skipped.values()), refresh=False)
            bar.reach(chunk.end)
            if time.monotonic() >= next_save:
                writer.save()
                next_save = time.monotonic() + JOURNAL_SECONDS


def _report(
    chunk: Chunk, writer: SourceWriter, paths: list[str], config: PrepareConfig, bar: tqdm
) -> None:
    """Show the first skipped records of each reason; ValueError for a bad one if on_error=fail."""
    seen = Counter(writer.manifest.skipped)
    for file, line, reason in chunk.skipped:
        place = f"{paths[file]}:{line}: {reason}"
        if config.on_error == "fail" and reason not in LEFT_OUT:
            raise ValueError(
                f"{place}; correct the record, or set on_error=skip to skip such records"
            )
        seen[reason] += 1
        if seen[reason] <= SHOWN_PER_REASON and not bar.disable:
            bar.write(f"skipped {place}", file=sys.stderr)
