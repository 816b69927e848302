"""Overlap between sources: training documents of one that copy held-out documents of another.

Preparation removes copies within a source (`data.prepare.overlap_index`) and against the files in
`decontaminate_against`, whose digests are in the manifest. `check_sources` compares prepared
sources and notes the copies that it finds next to the manifest:

    <source>/overlap.json   {fingerprint of the training documents: {sha256 of a held-out text:
                            [numbers of the documents that copy a document in that text]}}

Both keys are digests of content, so a note is never out of date, and reading the notes reads no
text. Earlier versions wrote another file (`OLD_NOTES`). Two documents are copies if they are equal
after folding (`data.prepare.held_out.fold`) or share more than half of the 13-grams of either.
Sources of conversations are not compared.
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
from data.prepare.ngrams import ngram_hashes
from data.prepare.overlap_index import OverlapIndex, ProtectedFinder, write_index
from data.prepare.workers import map_in_order
from data.records.readers import Position, read_records
from data.rows.shards import Source
from storage.atomic import write_json
from storage.checksum import sha256_of
from tokenizer.tokenizer import Tokenizer

NOTES = "overlap.json"
OLD_NOTES = "apart.json"
"""File of the notes in earlier versions, read in the same way."""
DOCUMENTS_AT_A_TIME = 64


@dataclass(kw_only=True)
class CheckSourcesConfig:
    """Prepared sources to compare with each other."""

    sources: list[str]
    """Folders of the sources of documents that a run mixes, two or more."""
    tokenizer: str
    """Tokenizer of the sources: a `.model` file or a tokenizer folder."""
    workers: int = 0
    """Processes that compare; 0: one per core."""

    def __post_init__(self) -> None:
        if len({Path(folder).resolve() for folder in self.sources}) < max(2, len(self.sources)):
            raise ValueError(
                f"sources: {self.sources}; name two folders or more, each once (copies within one "
                "source are removed by its preparation)"
            )
        if not self.tokenizer:
            raise ValueError("tokenizer: empty; it must be given")
        if self.workers < 0:
            raise ValueError(f"workers: {self.workers}; it must be >= 0")


class Pair(NamedTuple):
    """Training documents of `source`, compared with the held-out documents of `other`."""

    source: Source
    other: Source
    copies: list[int] | None
    """Numbers of the documents of `source` that are copies; None if not compared yet."""


def pairs_of(sources: Sequence[Source]) -> list[Pair]:
    """Read the notes on all pairs of a source and a source with held-out documents.

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
    """Compare the pairs that have not been compared, note the copies, and return all pairs.

    Raises:
        ValueError: a folder is not a source of documents or was prepared with another tokenizer, or
            a held-out text has changed.
    """
    fingerprint = Tokenizer.open(config.tokenizer).fingerprint
    sources = [Source(folder) for folder in config.sources]
    for source in sources:
        if source.manifest["tokenizer"]["fingerprint"] != fingerprint:
            raise ValueError(
                f"tokenizer: {source.folder} was not prepared with {config.tokenizer}; give the "
                "tokenizer of the sources (one for all sources of a run)"
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


def require_decontaminated(sources: Sequence[Source], tokenizer: str) -> None:
    """Refuse sources whose training documents copy held-out documents, or were not compared.

    Args:
        tokenizer: path of the tokenizer in the command of the remedy.

    Raises:
        ValueError: names the sources, and the command.
    """
    pairs = pairs_of(sources)
    if copied := [pair for pair in pairs if pair.copies]:
        source = copied[0].source
        raise ValueError(
            f"{_named(copied)}: training documents copy held-out documents of the second source "
            f"(numbers in {source.folder / NOTES}), so its held-out loss would be meaningless; "
            f"prepare {source.folder} again without the copies, and name the new folder in "
            f"data.sources: `{preparation_of(source, sources, tokenizer)}`"
        )
    if unknown := [pair for pair in pairs if pair.copies is None]:
        folders = _listed(str(source.folder) for source in sources)
        command = f"python -m scripts.check_sources sources='{folders}' tokenizer={tokenizer}"
        raise ValueError(
            f"{_named(unknown)}: the overlap between the training documents of the first source "
            "and the held-out documents of the second has not been checked; run "
            f"`{command}` once, which writes the result next to their manifests"
        )


def preparation_of(source: Source, sources: Sequence[Source], tokenizer: str) -> str:
    """Command that prepares a source again, without copies of held-out documents of the others."""
    manifest = source.manifest
    avoided = [entry["path"] for entry in manifest.get("avoid", [])]
    avoided += [str(x.folder / "held_out.jsonl") for x in sources if x is not source]
    settings = dict(manifest["settings"])
    for name in ("gram_units", "fold_version"):  # properties of the code, not settings
        settings.pop(name, None)
    fields = {
        "name": manifest["name"],
        "inputs": _listed(entry["path"] for entry in manifest["inputs"]),
        "tokenizer": tokenizer,
        "out": f"{source.folder}-decontaminated",
        "held_out_fraction": manifest["held_out"]["fraction"],
        "decontaminate_against": _listed(dict.fromkeys(avoided)),
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
    """Documents of a source that copy a held-out text; None if the two were not compared.

    An append keeps the numbers of the documents, and adds no copies of a text that it was
    decontaminated against.
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
    notes: dict[str, dict[str, list[int]]] = {}
    for path in (folder / OLD_NOTES, folder / NOTES):
        if not path.exists():
            continue
        damaged = ValueError(f"{path} is damaged; remove it, and run scripts.check_sources again")
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
            lists = [copies for by_digest in found.values() for copies in by_digest.values()]
            whole = all(type(number) is int for copies in lists for number in copies)
        except (ValueError, AttributeError, TypeError):
            raise damaged from None
        if not whole:
            raise damaged
        for fingerprint, by_digest in found.items():
            notes[fingerprint] = notes.get(fingerprint, {}) | by_digest
    return notes


def _note(source: Source, found: dict[str, list[int]]) -> None:
    notes = _read_notes(source.folder)
    notes[source.fingerprint] = notes.get(source.fingerprint, {}) | found
    try:
        write_json(source.folder / NOTES, notes)
    except OSError as error:
        raise ValueError(
            f"{source.folder / NOTES} cannot be written ({error}), and a run needs it; make the "
            "folder writable, or use a copy of the folder"
        ) from None


def _index_held_out(sources: dict[Path, Source], folder: str) -> dict[Path, Path]:
    """Write an index of the held-out documents of each source."""
    indexes = {}
    for number, (place, source) in enumerate(sources.items()):
        path = place / "held_out.jsonl"
        if not path.is_file() or sha256_of(path) != _held_out_digest(source):
            raise ValueError(f"{path} has changed since it was prepared; restore it")
        chunks = in_chunks(read_records([str(path)], "text", "file", Position()))
        indexes[place] = Path(folder) / f"{number}.index"
        write_index(indexes[place], [], map(ProtectedFinder("text", 1.0), chunks))
    return indexes


def _find_copies(
    source: Source, indexes: dict[str, Path], config: CheckSourcesConfig, progress: bool
) -> dict[str, list[int]]:
    """Documents of a source that copy an indexed document, by the digest of the indexed text."""
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
    """Finds copies among training documents; one per process."""

    def __init__(self, folder: Path, tokenizer: str, indexes: dict[str, Path]) -> None:
        self._source = Source(folder)
        self._tokenizer = Tokenizer.open(tokenizer)
        self._indexes = {digest: OverlapIndex(path) for digest, path in indexes.items()}

    def __call__(self, numbers: range) -> list[tuple[str, int]]:
        copies = []
        for number in numbers:
            ids = self._source.document(number)[1:-1].tolist()
            text = self._tokenizer.decode(ids)
            normalized = normalize(text)
            grams, side = ngram_hashes(normalized), side_hash(normalized)
            copies += [
                (digest, number)
                for digest, index in self._indexes.items()
                if index.holds(text, grams, side)
            ]
        return copies
