"""Corpora: texts to learn pieces from, separated from the texts to measure on.

A corpus is a prepared source, or files that `scripts.prepare_data` can read. Both give the same
held-out documents.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from data.prepare.held_out import is_held_out
from data.records.readers import FORMATS, BadRecord, Position, find_inputs, read_records, text_of
from data.rows.shards import Source
from tokenizer.tokenizer import Tokenizer

MEASURED_BYTES = 4_000_000
"""UTF-8 bytes of held-out text to measure on, from the beginning of a corpus."""


@dataclass
class Corpus:
    """Texts of a prepared source or of files; `open_corpus` makes it.

    Attributes:
        name: name of the source, or of the file without its ending.
        held_out: held-out texts that `training_texts` has skipped, up to `MEASURED_BYTES`.
    """

    name: str
    _place: Source | list[str]
    _tokenizer: Tokenizer
    _text_field: str
    _fraction: float
    held_out: list[str] = field(default_factory=list)

    def training_texts(self) -> Iterator[str]:
        """Texts that are not held out; `held_out` collects the others.

        Raises:
            ValueError: a record has no text (the message names file and line).
        """
        self.held_out, room = [], MEASURED_BYTES
        for text, is_measured in self._split():
            if not is_measured:
                yield text
            elif room > 0:
                self.held_out.append(text)
                room -= len(text.encode())

    def first_texts(self) -> list[str]:
        """The first texts, held out or not, of about `MEASURED_BYTES`."""
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
                    f"{path}, record {line}: {reason}; correct the record, or prepare the file "
                    "with scripts.prepare_data, which can skip such records, and name the prepared "
                    "source here"
                ) from None
            yield text, is_held_out(text, self._fraction)


def open_corpus(
    entry: str, root: str, tokenizer: Tokenizer, *, text_field: str, held_out_fraction: float
) -> Corpus:
    """Find a prepared source, a file or a glob, without reading it.

    Args:
        entry: a path, relative to the working directory or to `root`; a file below `root` may be
            named without its ending.
        tokenizer: tokenizer of the base, which a prepared source must have been prepared with.

    Raises:
        ValueError: nothing is found, or the source was prepared with another tokenizer.
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
            f"corpus {entry} was prepared with a tokenizer that differs from the base's; name its "
            "text files instead"
        )
    return Corpus(name, source, tokenizer, text_field, held_out_fraction)
