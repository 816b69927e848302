"""The texts of a corpus, split into those to learn from and those to measure on.

A corpus is a prepared source, or files as `scripts.prepare_data` reads them; held-out documents are
the same ones either way.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from data.prepare.held_out import is_held_out
from data.records.readers import FORMATS, BadRecord, Position, find_inputs, read_records, text_of
from data.rows.shards import Source
from tokenizer.tokenizer import Tokenizer

MEASURED_BYTES = 4_000_000
"""Held-out text that is kept to measure on, from the beginning of a corpus."""


@dataclass
class Corpus:
    """Where texts come from; `open_corpus` makes it.

    Attributes:
        name: of the source, or of the file without its ending.
        held_out: texts that `training_texts` has passed over so far, up to `MEASURED_BYTES`.
    """

    name: str
    _place: Source | list[str]
    _tokenizer: Tokenizer
    _text_field: str
    _fraction: float
    held_out: list[str] = field(default_factory=list)

    def training_texts(self) -> Iterator[str]:
        """All texts that are not held out; those that are fill `held_out`.

        Raises:
            ValueError: a record is no text, by file and line.
        """
        self.held_out, room = [], MEASURED_BYTES
        for text, is_measured in self._split():
            if not is_measured:
                yield text
            elif room > 0:
                self.held_out.append(text)
                room -= len(text.encode())

    def first_texts(self) -> list[str]:
        """Texts from the beginning, held out or not, of about `MEASURED_BYTES`."""
        texts, room = [], MEASURED_BYTES
        for text, _ in self._split():
            texts.append(text)
            room -= len(text.encode())
            if room <= 0:
                break
        return texts

    def _split(self) -> Iterator[tuple[str, bool]]:
        if isinstance(self._place, Source):
            yield from ((text, True) for text in self._place.held_out())
            for number in range(self._place.documents):
                yield self._tokenizer.decode(self._place.document(number)[1:-1].tolist()), False
            return
        for record in read_records(self._place, self._text_field, "file", Position()):
            try:
                text = text_of(record, self._text_field)
            except BadRecord as reason:
                if str(reason) == "empty text":
                    continue
                path, line = self._place[record.position.file], record.position.line
                raise ValueError(
                    f"{path}, record {line}: {reason}; mend the file, or prepare it with "
                    "scripts.prepare_data, which can skip such records, and name the result"
                ) from None
            yield text, is_held_out(text, self._fraction)


def open_corpus(
    entry: str, root: str, tokenizer: Tokenizer, *, text_field: str, held_out_fraction: float
) -> Corpus:
    """A prepared source, a file or a glob; nothing is read yet.

    Args:
        entry: a path, as it is or under `root`, where also the ending of a file may be left out.
        tokenizer: what a prepared source must have been prepared with.

    Raises:
        ValueError: there is no such thing, or it was prepared with another tokenizer.
    """
    places = [Path(entry), Path(root) / entry]
    places += [Path(root) / f"{entry}{ending}" for ending in FORMATS]
    found = next((place for place in places if place.exists()), places[1])
    name = found.name.partition(".")[0]
    if not found.is_dir():
        try:
            paths = find_inputs([str(found)], text_field)
        except ValueError as error:
            raise ValueError(f"corpus {entry}: {str(error).removeprefix('inputs: ')}") from None
        return Corpus(name, paths, tokenizer, text_field, held_out_fraction)
    source = Source(found)
    if source.manifest["tokenizer"]["fingerprint"] != tokenizer.fingerprint:
        raise ValueError(
            f"corpus {entry} was prepared with another tokenizer than the base's; name its text "
            "files"
        )
    return Corpus(name, source, tokenizer, text_field, held_out_fraction)
