"""Are sources apart: does no training document of one copy what another holds out?

Preparation sees to that within a source (`data.prepare.overlap_index`), and between sources where
it was told
to `avoid` the other's held-out text, whose digest the manifest then has. `check_sources` finds out
afterwards, and notes the outcome beside the manifest:

    <source>/apart.json   {fingerprint of the training documents: {sha256 of a held-out text:
                          [numbers of the documents that copy a document in it]}}

Both are digests of content, so that what is known never goes out of date, and looking it up reads
no text.
A copy is what preparation takes for one: equal after folding (`data.prepare.held_out.fold`), or
sharing
more than half of the 13-grams of either. Sources of conversations are not compared.
"""

import json
import shlex
import tempfile
from collections.abc import Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

from tqdm import tqdm

from data.prepare.chunks import in_chunks
from data.prepare.held_out import normalize, side_hash
from data.prepare.ngrams import gram_hashes
from data.prepare.overlap_index import NearCopies, Protect, write_index
from data.prepare.workers import map_in_order
from data.records.readers import Position, read_records
from data.rows.shards import Source
from storage.atomic import write_json
from storage.checksum import sha256_of
from tokenizer.tokenizer import Tokenizer

NOTES = "apart.json"
DOCUMENTS_AT_A_TIME = 64


@dataclass(kw_only=True)
class CheckSourcesConfig:
    """Which prepared sources to compare with each other."""

    sources: list[str]
    """Folders of the sources that a run mixes: documents, two sources or more."""
    tokenizer: str
    """What they were prepared with: a `.model` file or a tokenizer folder."""
    workers: int = 0
    """Processes that compare; 0: one per core."""

    def __post_init__(self) -> None:
        if len({Path(folder).resolve() for folder in self.sources}) < max(2, len(self.sources)):
            raise ValueError(
                f"sources: {self.sources}; name two folders or more, each once: within one source "
                "preparation has seen to it"
            )
        if not self.tokenizer:
            raise ValueError("tokenizer: empty; it must be given")
        if self.workers < 0:
            raise ValueError(f"workers: {self.workers}; it must be >= 0")


class Pair(NamedTuple):
    """The training documents of one source, compared with what another holds out."""

    source: Source
    other: Source
    copies: list[int] | None
    """Documents of `source` that copy one that `other` holds out; None: nothing tells."""


def pairs_of(sources: Sequence[Source]) -> list[Pair]:
    """What is known of every two sources of which one holds something out; no text is read.

    Raises:
        ValueError: the notes of a source are damaged.
    """
    notes = {source.folder: _read_notes(source.folder) for source in sources}
    return [
        Pair(source, other, _known(source, _held_out_digest(other), notes[source.folder]))
        for source in sources
        for other in sources
        if other is not source and other.held_out_documents
    ]


def check_sources(config: CheckSourcesConfig, *, progress: bool = True) -> list[Pair]:
    """Compare what has not been compared yet and note the outcome; returns what is known then.

    Raises:
        ValueError: a folder is no source of documents or was prepared with another tokenizer, or a
            held-out text is not the one that was prepared.
    """
    fingerprint = Tokenizer.open(config.tokenizer).fingerprint
    sources = [Source(folder) for folder in config.sources]
    for source in sources:
        if source.manifest["tokenizer"]["fingerprint"] != fingerprint:
            raise ValueError(
                f"tokenizer: {config.tokenizer} is not what {source.folder} was prepared with; "
                "name that one (a run has one tokenizer, so all its sources were prepared with it)"
            )
    unknown = [pair for pair in pairs_of(sources) if pair.copies is None]
    with tempfile.TemporaryDirectory() as folder:
        indexes = _index_held_out({pair.other.folder: pair.other for pair in unknown}, folder)
        for source in sources:
            others = [pair.other for pair in unknown if pair.source is source]
            if others:
                wanted = {_held_out_digest(other): indexes[other.folder] for other in others}
                _note(source, _find_copies(source, wanted, config, progress))
    return pairs_of(sources)


def refuse_copies(sources: Sequence[Source], tokenizer: str) -> None:
    """Refuse to train on sources unless they are known to be apart.

    Args:
        tokenizer: what the command that mends it is to name.

    Raises:
        ValueError: names the sources, and the command.
    """
    pairs = pairs_of(sources)
    if copied := [pair for pair in pairs if pair.copies]:
        source = copied[0].source
        raise ValueError(
            f"{_named(copied)}: training documents copy what the other source holds out (numbers "
            f"in {source.folder / NOTES}), so that its held-out loss would measure nothing; "
            f"prepare {source.folder} anew without them, and name the new folder in data.sources: "
            f"`{preparation_of(source, sources, tokenizer)}`"
        )
    if unknown := [pair for pair in pairs if pair.copies is None]:
        folders = _listed(str(source.folder) for source in sources)
        command = f"python -m scripts.check_sources sources='{folders}' tokenizer={tokenizer}"
        raise ValueError(
            f"{_named(unknown)}: nothing tells that no training document copies what the other "
            f"source holds out; run `{command}` once, which reads them and notes the outcome "
            "beside their manifests"
        )


def preparation_of(source: Source, sources: Sequence[Source], tokenizer: str) -> str:
    """The command that prepares a source anew, without copies of what the others hold out."""
    manifest = source.manifest
    avoid = [entry["path"] for entry in manifest.get("avoid", [])]
    avoid += [str(x.folder / "held_out.jsonl") for x in sources if x is not source]
    settings = dict(manifest["settings"])
    for name in ("gram_units", "fold_version"):  # what this code does, not what a user chooses
        settings.pop(name, None)
    fields = {
        "name": manifest["name"],
        "inputs": _listed(entry["path"] for entry in manifest["inputs"]),
        "tokenizer": tokenizer,
        "out": f"{source.folder}-apart",
        "held_out_fraction": manifest["held_out"]["fraction"],
        "avoid": _listed(dict.fromkeys(avoid)),
        **settings,
    }
    arguments = (shlex.quote(f"{name}={value}") for name, value in fields.items())
    return f"python -m scripts.prepare_data {' '.join(arguments)}"


def _listed(values: Iterable[str]) -> str:
    return f"[{','.join(values)}]"


def _named(pairs: list[Pair], within: int = 3) -> str:
    named = [f"{pair.source.folder} with {pair.other.folder}" for pair in pairs[:within]]
    more = f" and {len(pairs) - within} more pairs" if pairs[within:] else ""
    return f"data.sources, {', '.join(named)}{more}"


def _held_out_digest(source: Source) -> str:
    return source.manifest["held_out"]["sha256"]


def _known(source: Source, digest: str, notes: dict[str, dict[str, list[int]]]) -> list[int] | None:
    """The documents of a source known to copy what a held-out text has; None if nothing tells.

    A source keeps the numbers of its documents when it grows, and what avoids the text adds no
    copies.
    """
    manifest = source.manifest
    if digest == _held_out_digest(source):
        return []  # both hold out the same documents
    works = [manifest, *manifest.get("appends", [])]
    states = [work["fingerprint_before"] for work in works[1:]] + [source.fingerprint]
    known: list[int] | None = []  # before the first document
    for work, fingerprint in zip(works, states, strict=True):
        avoided = digest in {entry["sha256"] for entry in work.get("avoid", [])}
        known = notes.get(fingerprint, {}).get(digest, known if avoided else None)
    return known


def _read_notes(folder: Path) -> dict[str, dict[str, list[int]]]:
    path = folder / NOTES
    if not path.exists():
        return {}
    damaged = ValueError(f"{path} is damaged; remove it, and check the sources again")
    try:
        notes = json.loads(path.read_text(encoding="utf-8"))
        lists = [copies for by_digest in notes.values() for copies in by_digest.values()]
        whole = all(type(number) is int for copies in lists for number in copies)
    except (ValueError, AttributeError, TypeError):
        raise damaged from None
    if not whole:
        raise damaged
    return notes


def _note(source: Source, found: dict[str, list[int]]) -> None:
    notes = _read_notes(source.folder)
    notes[source.fingerprint] = notes.get(source.fingerprint, {}) | found
    try:
        write_json(source.folder / NOTES, notes)
    except OSError as error:
        raise ValueError(
            f"{source.folder / NOTES} cannot be written ({error}), and a run looks for it there; "
            "make the folder writable, or work on a copy of it"
        ) from None


def _index_held_out(sources: dict[Path, Source], folder: str) -> dict[Path, Path]:
    """Index what each source holds out, as documents to avoid, in a file of its own."""
    indexes = {}
    for number, (place, source) in enumerate(sources.items()):
        path = place / "held_out.jsonl"
        if not path.is_file() or sha256_of(path) != _held_out_digest(source):
            raise ValueError(f"{path} is not the file that was prepared; restore it")
        chunks = in_chunks(read_records([str(path)], "text", "file", Position()))
        indexes[place] = Path(folder) / f"{number}.index"
        write_index(indexes[place], [], map(Protect("text", 1.0), chunks))
    return indexes


def _find_copies(
    source: Source, indexes: dict[str, Path], config: CheckSourcesConfig, progress: bool
) -> dict[str, list[int]]:
    """The documents of a source that copy one in an index, by the digest of what it indexes."""
    found: dict[str, list[int]] = {digest: [] for digest in indexes}
    starts = range(0, source.documents, DOCUMENTS_AT_A_TIME)
    parts = (range(n, min(n + DOCUMENTS_AT_A_TIME, source.documents)) for n in starts)
    make = partial(_Comparison, source.folder, config.tokenizer, indexes)
    name = source.manifest["name"]
    with (
        tqdm(desc=name, total=source.documents, unit="", disable=not progress) as bar,
        closing(map_in_order(make, parts, config.workers)) as compared,
    ):
        for start, copies in zip(starts, compared, strict=True):
            for digest, number in copies:
                found[digest].append(number)
            bar.update(min(DOCUMENTS_AT_A_TIME, source.documents - start))
    return found


class _Comparison:
    """Finds the copies among training documents; one per process."""

    def __init__(self, folder: Path, tokenizer: str, indexes: dict[str, Path]) -> None:
        self._source = Source(folder)
        self._tokenizer = Tokenizer.open(tokenizer)
        self._indexes = {digest: NearCopies(path) for digest, path in indexes.items()}

    def __call__(self, numbers: range) -> list[tuple[str, int]]:
        copies = []
        for number in numbers:
            ids = self._source.document(number)[1:-1].tolist()
            text = self._tokenizer.decode(ids)
            normalized = normalize(text)
            grams, side = gram_hashes(normalized), side_hash(normalized)
            copies += [
                (digest, number)
                for digest, index in self._indexes.items()
                if index.holds(text, grams, side)
            ]
        return copies
