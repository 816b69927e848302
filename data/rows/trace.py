"""Documents of a row of a run, and rows of a run that read a document.

Row n is a pure function of (configuration, data, n), so both are computed from the curriculum and
the sources, without any log. A conversation is traced like a document.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int64, Integer

from data.rows.curriculum import Curriculum, StagePlan
from data.rows.sources import AnySource, rows_of_run


@dataclass(kw_only=True)
class TraceConfig:
    """Item to look up in a run: exactly one of step, row and document."""

    run: str
    """Folder of the run."""
    step: int | None = None
    """A step as metrics.jsonl counts them: 1 is the first update."""
    row: int | None = None
    """A row of the run, from 0."""
    document: str | None = None
    """A document as `source:number`, numbered within its source from 0."""
    full: bool = False
    """Print whole documents instead of their first and last characters."""

    def __post_init__(self) -> None:
        asked = {"step": self.step, "row": self.row, "document": self.document}
        given = [f"{name}={value}" for name, value in asked.items() if value is not None]
        if len(given) != 1:
            raise ValueError(
                f"{', '.join(given) or 'nothing to look up'}: give exactly one of step=, row= and "
                "document=source:number"
            )
        for name, least in (("step", 1), ("row", 0)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise ValueError(f"{name}={value}: must be at least {least}")


@dataclass(frozen=True)
class Piece:
    """Tokens [start, stop) of a document of `length` tokens, as a part of a row."""

    document: int
    start: int
    stop: int
    length: int
    tokens: Integer[np.ndarray, " tokens"]


@dataclass(frozen=True)
class Reading:
    """Rows of one stage that saw a document.

    Attributes:
        replayed: whether these are rows read again.
        rows: numbers within the run, in order.
    """

    stage: StagePlan
    replayed: bool
    rows: Int64[np.ndarray, " rows"]


@dataclass(frozen=True)
class Passage:
    """A document in one epoch of its source.

    Attributes:
        tokens: positions of its tokens in the rows of the source, end to end.
        rows: rows of the source with tokens of the document.
        readings: rows of the run that are one of `rows`.
    """

    epoch: int
    tokens: range
    rows: range
    readings: list[Reading]


class Trace:
    """The rows of a run and the documents or conversations behind them."""

    def __init__(self, plan: Curriculum, sources: Mapping[str, AnySource], seed: int) -> None:
        self.plan = plan
        self._rows = {
            name: rows_of_run(sources[name], name, seed, plan.row_length) for name in plan.sources
        }

    def rows_of_step(self, step: int) -> range:
        """The rows that update number `step` saw; the first is number 1.

        Raises:
            ValueError: the run has no such step.
        """
        if not 1 <= step <= self.plan.steps:
            raise ValueError(f"step={step}: this run has steps 1 to {self.plan.steps}")
        return range((step - 1) * self.plan.rows_per_step, step * self.plan.rows_per_step)

    def step_of_row(self, row: int) -> int:
        """The step that saw a row.

        Raises:
            ValueError: the run has no such row.
        """
        if not 0 <= row < self.plan.rows:
            raise ValueError(f"row={row}: this run has rows 0 to {self.plan.rows - 1}")
        return row // self.plan.rows_per_step + 1

    def pieces(self, row: int) -> list[Piece]:
        """The documents in a row, in order."""
        address = self.plan.row(row)
        rows = self._rows[address.source]
        return [
            Piece(number, start, start + len(part), len(rows.source.document(number)), part)
            for number, start, part in rows.pieces(address.index)
        ]

    def find(self, document: str) -> tuple[str, int]:
        """Source and number that `source:number` means.

        Raises:
            ValueError: the run reads no such source, or the source has no such document.
        """
        name, _, number = document.rpartition(":")
        if not name or not number.isdecimal():
            raise ValueError(f"document={document!r}: give source:number, such as geo_en:123")
        if name not in self._rows:
            raise ValueError(
                f"document={document}: no source {name!r}; this run reads {', '.join(self._rows)}"
            )
        count = self._rows[name].source.documents
        if int(number) >= count:
            raise ValueError(f"document={document}: {name} has documents 0 to {count - 1}")
        return name, int(number)

    def document(self, source: str, number: int) -> Integer[np.ndarray, " tokens"]:
        """The tokens of a document, BOS and EOS included."""
        return self._rows[source].source.document(number)

    def passages(self, source: str, number: int) -> Iterator[Passage]:
        """A document in each epoch of its source that starts before the end of the run."""
        read_from, length = self._rows[source], self.plan.row_length
        read = [(stage, *self._rows_of(stage, source)) for stage in self.plan.stages]
        consumed = self.plan.consumed()[source] * length
        for epoch in range(-(-consumed // read_from.epoch_tokens)):
            tokens = read_from.place(number, epoch)
            rows = range(tokens.start // length, (tokens.stop - 1) // length + 1)
            readings = []
            for stage, numbers, replayed, indices in read:
                within = (indices >= rows.start) & (indices < rows.stop)
                for again in (False, True):
                    chosen = numbers[within & (replayed == again)]
                    if len(chosen):
                        readings.append(Reading(stage, again, chosen))
            yield Passage(epoch, tokens, rows, readings)

    def _rows_of(self, stage: StagePlan, source: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Rows of the run that read a source in a stage, whether again, and its rows."""
        rows = self.plan.rows_of(stage)
        mine = np.flatnonzero(rows.sources == self.plan.sources.index(source))
        return stage.first_row + mine, rows.replayed[mine], rows.indices[mine]
