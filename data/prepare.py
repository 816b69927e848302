"""Documents -> a prepared source (`data.shards`), by several processes, restartable at any instant.

The main process cuts the inputs into chunks of records, workers parse and tokenize them, and the
main process appends the results in the order of the inputs to `<out>.tmp/`, which is renamed to
`<out>` when all is durable. The files are byte for byte the same however many workers there were
and however often the work was cut off: `journal.json` says up to which record it can be trusted,
and whatever lies beyond is cut away on restart.

A document is held out, and touches no training row, if the hash of its folded text says so: copies
that differ in case, spacing or punctuation fall on the same side, in this source and in others.
"""

import hashlib
import itertools
import multiprocessing
import os
import re
import signal
import sys
import threading
import time
import unicodedata
from collections import Counter, deque
from collections.abc import Generator, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from data.draft import Chunk, Draft, open_draft, refuse_existing
from data.readers import BadRecord, Record, find_inputs, read_records, text_of
from data.shards import FORMAT_VERSION, sha256_of, token_dtype
from tokenizer.tokenizer import Tokenizer

CHUNK_RECORDS = 256
CHUNK_BYTES = 1 << 20
CHUNKS_PER_WORKER = 4
"""Chunks in flight: enough to keep a worker busy, few enough to bound memory."""
JOURNAL_SECONDS = 5.0
SHOWN_PER_REASON = 3
_ASCII_MARKS = bytes(code for code in range(128) if not chr(code).isalnum())


@dataclass(kw_only=True)
class PrepareConfig:
    """What one source is made from."""

    name: str
    """What curricula and reports call the source: letters, digits, `_`, `.` and `-`."""
    inputs: list[str]
    """Files or globs; read in sorted order. Formats: .jsonl[.gz|.zst], .txt, .parquet."""
    out: str
    """Folder to create. `<out>.tmp` keeps unfinished work; the same command continues it."""
    tokenizer: str
    """A `.model` file or a tokenizer folder."""
    text_field: str = "text"
    """Field of a JSON line, or column of a Parquet file, that holds the text."""
    txt_documents: str = "file"
    """What one document of a .txt input is: `file` or `line`."""
    held_out_fraction: float = 0.01
    """Share of documents that no training row touches, 0 <= fraction < 1."""
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
        for field in ("inputs", "out", "tokenizer", "text_field"):
            if not getattr(self, field):
                raise ValueError(f"{field}: empty; it must be given")
        for field, choices in (("txt_documents", ("file", "line")), ("on_bad", ("skip", "fail"))):
            if getattr(self, field) not in choices:
                raise ValueError(f"{field}: {getattr(self, field)!r}; choose from {choices}")
        if not 0 <= self.held_out_fraction < 1:
            raise ValueError(
                f"held_out_fraction: {self.held_out_fraction}; it must be >= 0 and < 1"
            )
        for field, least in (("workers", 0), ("max_documents", 0), ("shard_tokens", 1)):
            if getattr(self, field) < least:
                raise ValueError(f"{field}: {getattr(self, field)}; it must be >= {least}")


def fold(text: str) -> str:
    """What counts as the same text: NFKC, casefold, letters and digits only."""
    folded = unicodedata.normalize("NFKC", text).casefold().encode()
    few = folded.translate(None, delete=_ASCII_MARKS).decode()  # three times as fast as \W alone
    return "".join(re.findall(r"[^\W_]+", few))


def is_held_out(text: str, fraction: float) -> bool:
    """Which side of the split a document falls on, from its folded text alone."""
    digest = hashlib.sha1(fold(text).encode(), usedforsecurity=False).digest()
    return int.from_bytes(digest[:8]) < fraction * 2**64


def prepare(config: PrepareConfig, *, progress: bool = True) -> dict:
    """Prepare a source and return its manifest; continues what an earlier call left unfinished.

    ValueError: a bad input, a bad record under `on_bad=fail`, inputs that change while they are
    read, no document left for training, a folder that exists or that another process is filling.
    """
    out = Path(config.out)
    refuse_existing(out)
    paths = find_inputs(config.inputs, config.text_field)
    tokenizer = Tokenizer.open(config.tokenizer)
    stamps = {path: _stamp(path) for path in paths}
    hashing = tqdm(paths, "hash", unit="file", leave=False, disable=not progress)
    plan = _plan(config, tokenizer, {path: sha256_of(Path(path)) for path in hashing})
    with open_draft(out, plan) as draft:
        if not draft.complete:
            _fill(draft, config, tokenizer, paths, progress)
            for path, stamp in stamps.items():
                if _stamp(path) != stamp:
                    raise ValueError(
                        f"{path} has changed while it was read; remove {draft.folder} and run again"
                    )
            draft.finish()
        draft.publish(out)
    return draft.manifest


def _stamp(path: str) -> tuple[int, int]:
    status = Path(path).stat()
    return status.st_size, status.st_mtime_ns


def _plan(config: PrepareConfig, tokenizer: Tokenizer, digests: dict[str, str]) -> dict:
    """The manifest before any document."""
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
            {"path": path, "sha256": digest, "documents": 0} for path, digest in digests.items()
        ],
        "skipped": {},
        "settings": {
            "text_field": config.text_field,
            "txt_documents": config.txt_documents,
            "max_documents": config.max_documents,
            "shard_tokens": config.shard_tokens,
        },
    }


def _fill(
    draft: Draft, config: PrepareConfig, tokenizer: Tokenizer, paths: list[str], progress: bool
) -> None:
    """Read, tokenize and append whatever the draft does not hold yet."""
    if config.on_bad == "fail" and draft.manifest["skipped"]:
        raise ValueError(
            f"on_bad: {draft.folder} has skipped bad records already (its skipped.jsonl lists "
            "them); remove it to start anew, or go on with on_bad=skip"
        )
    starts = [0, *itertools.accumulate(Path(path).stat().st_size for path in paths)]
    begun = starts[draft.position.file] + draft.position.bytes_read
    records = read_records(paths, config.text_field, config.txt_documents, draft.position)
    if config.max_documents:
        records = itertools.islice(records, config.max_documents - draft.records)
    next_save = time.monotonic() + JOURNAL_SECONDS
    bar = tqdm(
        desc=config.name, total=starts[-1], initial=begun, unit="B", unit_scale=True,
        disable=not progress,
    )  # fmt: skip
    with bar, closing(_parse_in_order(_chunks(records), config, tokenizer)) as chunks:
        if draft.records and progress:
            bar.write(f"continuing {draft.folder} after record {draft.records}", file=sys.stderr)
        for chunk in chunks:
            _report(chunk, draft, config, bar)
            draft.add(chunk)
            bar.set_postfix(skipped=sum(draft.manifest["skipped"].values()), refresh=False)
            bar.update(starts[chunk.end.file] + chunk.end.bytes_read - bar.n)
            if time.monotonic() >= next_save:
                draft.save()
                next_save = time.monotonic() + JOURNAL_SECONDS


def _report(chunk: Chunk, draft: Draft, config: PrepareConfig, bar: tqdm) -> None:
    """Show the first bad records of each kind; ValueError at the first under `on_bad=fail`."""
    seen = Counter(draft.manifest["skipped"])
    for file, line, reason in chunk.bad:
        place = f"{draft.manifest['inputs'][file]['path']}:{line}: {reason}"
        if config.on_bad == "fail":
            raise ValueError(f"{place}; mend it, or set on_bad=skip to leave such records out")
        seen[reason] += 1
        if seen[reason] <= SHOWN_PER_REASON and not bar.disable:
            bar.write(f"skipped {place}", file=sys.stderr)


def _chunks(records: Iterator[Record]) -> Iterator[list[Record]]:
    chunk, size = [], 0
    for record in records:
        chunk.append(record)
        size += len(record.payload or b"")
        if len(chunk) == CHUNK_RECORDS or size >= CHUNK_BYTES:
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk


def _parse_in_order(
    chunks: Iterator[list[Record]], config: PrepareConfig, tokenizer: Tokenizer
) -> Generator[Chunk, None, None]:
    """Parse chunks in as many processes as configured, and return them in order."""
    workers = config.workers or os.cpu_count() or 1
    if workers == 1:
        yield from map(_Parser(config, tokenizer), chunks)
        return
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, spawn, _start_worker, (config,)) as pool:
        waiting = deque()
        try:
            for chunk in chunks:
                waiting.append(pool.submit(_parse, chunk))
                if len(waiting) == CHUNKS_PER_WORKER * workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)


def _start_worker(config: PrepareConfig) -> None:
    global _parser
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the main process's to answer
    _parser = _Parser(config, Tokenizer.open(config.tokenizer))
    threading.Thread(target=_die_with_parent, daemon=True).start()


def _die_with_parent() -> None:
    # A killed main process cannot tell its workers to stop: they would wait for chunks forever.
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _parse(records: list[Record]) -> Chunk:
    return _parser(records)


class _Parser:
    """Turns a chunk of records into tokens; one per process."""

    def __init__(self, config: PrepareConfig, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._text_field = config.text_field
        self._held_out_fraction = config.held_out_fraction

    def __call__(self, records: list[Record]) -> Chunk:
        training, held_out, bad, documents = [], [], [], Counter[int]()
        for record in records:
            try:
                text = text_of(record, self._text_field)
            except BadRecord as reason:
                bad.append((record.position.file, record.position.line, str(reason)))
                continue
            documents[record.position.file] += 1
            (held_out if is_held_out(text, self._held_out_fraction) else training).append(text)
        encoded = self._tokenizer.encode_batch(training, threads=1)
        bos, eos = self._tokenizer.bos_id, self._tokenizer.eos_id
        lengths = np.array([len(ids) + 2 for ids in encoded], np.int64)
        return Chunk(
            ids=np.fromiter(
                itertools.chain.from_iterable((bos, *ids, eos) for ids in encoded),
                token_dtype(self._tokenizer.vocab_size),
                count=int(lengths.sum()),
            ),
            lengths=lengths,
            utf8_bytes=np.array([len(text.encode()) for text in training], np.int64),
            held_out=held_out,
            bad=bad,
            documents=documents,
            records=len(records),
            end=records[-1].position,
        )
