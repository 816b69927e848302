"""The exact schedule of a run: the source and the index of every row.

A stage mixes its sources by weight and may replay the rows of an earlier stage. `Curriculum` turns
the stages (`data.rows.curriculum_config`) into an exact schedule. At every point of a stage the
number of rows of each source is within one row of its weight. A source continues across stages
where it stopped. Replay reads a seeded permutation of the rows that the replayed stage consumed.
Stages before the first one in `run` count as consumed, so a run of the second stage alone reads the
rows that a run of both stages would read there.

`order` arranges the same rows in two other ways: all of them mixed, or the last stage first. There
a row may be replayed before, or without, its first reading.
"""

from bisect import bisect_right
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cached_property, lru_cache
from itertools import accumulate

import numpy as np
from jaxtyping import Bool, Int64, UInt16

from data.rows.curriculum_config import MIXED, REPLAY, CurriculumConfig, Stage
from data.rows.interleave import interleave_by_weight
from data.rows.seeds import derive, permutation


@dataclass(frozen=True)
class RowAddress:
    """Origin of a row of the run: row `index` of the stream of a source."""

    stage: str
    source: str
    index: int
    counted_as: str
    """Name for reports: the source, or `REPLAY`."""


@dataclass(frozen=True)
class StageRows:
    """Origins of all rows of a stage, as `Curriculum.row` gives the origin of one row.

    Attributes:
        sources: indices into `Curriculum.sources`.
        indices: rows of the streams of the sources.
        replayed: True for a row that is read again.
    """

    sources: UInt16[np.ndarray, " rows"]
    indices: Int64[np.ndarray, " rows"]
    replayed: Bool[np.ndarray, " rows"]


@dataclass(frozen=True)
class StagePlan:
    """Steps and rows of one stage, counted from the start of the run."""

    name: str
    config: Stage
    first_step: int
    steps: int
    first_row: int
    rows: int


class Curriculum:
    """The stages of a run as steps and rows.

    Attributes:
        steps, rows: totals of the run; each step consumes `rows_per_step` rows.
        stages: the stages of the run.
        sources: every source that the run can read, replay included.
    """

    def __init__(
        self, config: CurriculumConfig, *, row_length: int, rows_per_step: int, seed: int
    ) -> None:
        self.row_length = row_length
        self.rows_per_step = rows_per_step
        run = config.run or list(config.stages)
        schedules: dict[str, _Schedule] = {}
        for name, stage in config.stages.items():
            steps = max(1, round(stage.tokens * config.scale / (row_length * rows_per_step)))
            earlier = dict(schedules)
            schedules[name] = _Schedule(name, stage, steps * rows_per_step, earlier, seed)
        self._consumed = schedules[run[-1]].consumed
        self.sources = list(dict.fromkeys(s for name in run for s in schedules[name].sources))
        self._schedules: dict[str, _Schedule | _Mixed] = {name: schedules[name] for name in run}
        if config.order == "reversed":
            self._schedules = dict(reversed(self._schedules.items()))
        elif config.order == MIXED:
            self._schedules = {MIXED: _Mixed([schedules[name] for name in run], seed)}
        self.stages: list[StagePlan] = []
        self.steps = 0
        for name, schedule in self._schedules.items():
            # Stages are reordered only if their settings are equal, see `CurriculumConfig`.
            stage = config.stages[name if name in config.stages else run[0]]
            steps, first_row = schedule.rows // rows_per_step, self.steps * rows_per_step
            self.stages.append(StagePlan(name, stage, self.steps, steps, first_row, schedule.rows))
            self.steps += steps
        self.rows = self.steps * rows_per_step

    def stage_at(self, step: int) -> StagePlan:
        """The stage that a step of the run belongs to."""
        assert 0 <= step < self.steps
        return self.stages[bisect_right(self.stages, step, key=lambda s: s.first_step) - 1]

    def row(self, n: int) -> RowAddress:
        """Origin of row n of the run."""
        stage = self.stage_at(n // self.rows_per_step)
        return self._schedules[stage.name].address(n - stage.first_row)

    def rows_of(self, stage: StagePlan) -> StageRows:
        """Origin of each row of a stage, in order."""
        schedule = self._schedules[stage.name]
        places = {source: place for place, source in enumerate(self.sources)}
        sources, indices = schedule.addresses(places)
        return StageRows(sources, indices, schedule.replays)

    def consumed(self) -> dict[str, int]:
        """Rows of each source's stream read by the end of the run, earlier stages included.

        Replayed rows are rows read before and not counted again.
        """
        return self._consumed


class _Schedule:
    """The rows of one stage: each has a name (a source or `REPLAY`) and a number under that name.

    Attributes:
        rows: length of the stage.
        sources: every source that the stage reads, replay included.
    """

    def __init__(
        self, name: str, stage: Stage, rows: int, earlier: dict[str, "_Schedule"], seed: int
    ) -> None:
        self.rows = rows
        self._previous = next(reversed(earlier.values()), None)
        # Fractions of the decimals as written: 0.1 and 0.9 sum to one.
        weights = {source: Fraction(str(w)) for source, w in stage.weights.items() if w > 0}
        share = Fraction(str(stage.replay.share))
        unit = (1 - share) / sum(weights.values())
        self._shares = {source: weight * unit for source, weight in weights.items()}
        self.sources = list(self._shares)
        if share > 0:
            self._shares[REPLAY] = share
            self._replayed = earlier[stage.replay.of]
            self.sources += self._replayed.sources
        self._names = list(self._shares)
        self._name = name
        self._seed = seed
        self._permuted = lru_cache(maxsize=2)(self._permute_replayed)

    def address(self, row: int) -> RowAddress:
        """Origin of a row of the stage."""
        order, numbers = self._order
        name, number = self._names[order[row]], int(numbers[row])
        if name == REPLAY:
            repeat, place = divmod(number, self._replayed.rows)
            original = self._replayed.address(int(self._permuted(repeat)[place]))
            return RowAddress(self._name, original.source, original.index, REPLAY)
        return RowAddress(self._name, name, self._consumed_before.get(name, 0) + number, name)

    def addresses(self, places: dict[str, int]) -> tuple[np.ndarray, np.ndarray]:
        """Source index and row of the source, for all rows."""
        order, numbers = self._order
        sources, indices = np.empty(self.rows, np.uint16), numbers.astype(np.int64)
        for number, name in enumerate(self._names):
            rows = np.flatnonzero(order == number)
            if name != REPLAY:
                sources[rows] = places[name]
                indices[rows] += self._consumed_before.get(name, 0)
                continue
            of_sources, of_indices = self._replayed.addresses(places)
            for repeat in range(-(-len(rows) // self._replayed.rows)):
                again = rows[repeat * self._replayed.rows :][: self._replayed.rows]
                originals = self._permuted(repeat)[: len(again)]
                sources[again], indices[again] = of_sources[originals], of_indices[originals]
        return sources, indices

    @property
    def replays(self) -> np.ndarray:
        """True for each row that is read again."""
        if REPLAY not in self._names:
            return np.zeros(self.rows, bool)
        return self._order[0] == self._names.index(REPLAY)

    @cached_property
    def consumed(self) -> dict[str, int]:
        """Rows of each source read by the end of this stage."""
        consumed = dict(self._consumed_before)
        counts = np.bincount(self._order[0], minlength=len(self._names)).tolist()
        for name, count in zip(self._names, counts, strict=True):
            if name != REPLAY:
                consumed[name] = consumed.get(name, 0) + count
        return consumed

    @cached_property
    def _consumed_before(self) -> dict[str, int]:
        return self._previous.consumed if self._previous else {}

    @cached_property
    def _order(self) -> tuple[np.ndarray, np.ndarray]:
        """Index of the name of each row, and the number of the row under that name."""
        order = interleave_by_weight(list(self._shares.values()), self.rows)
        numbers = np.empty(self.rows, np.int32)
        for number in range(len(self._names)):
            turns = np.flatnonzero(order == number)
            numbers[turns] = np.arange(len(turns))
        return order, numbers

    def _permute_replayed(self, repeat: int) -> np.ndarray:
        return permutation(self._replayed.rows, derive(self._seed, self._name, REPLAY, repeat))


class _Mixed:
    """The rows of several stages in one seeded permutation."""

    def __init__(self, parts: list[_Schedule], seed: int) -> None:
        self.rows = sum(part.rows for part in parts)
        self._parts = parts
        self._ends = list(accumulate(part.rows for part in parts))
        self._seed = seed

    def address(self, row: int) -> RowAddress:
        """Origin of a row."""
        place = int(self._permuted[row])
        number = bisect_right(self._ends, place)
        part = self._parts[number]
        original = part.address(place - self._ends[number] + part.rows)
        return replace(original, stage=MIXED)

    def addresses(self, places: dict[str, int]) -> tuple[np.ndarray, np.ndarray]:
        """Source index and row of the source, for all rows."""
        found = [part.addresses(places) for part in self._parts]
        sources, indices = (np.concatenate(column) for column in zip(*found, strict=True))
        return sources[self._permuted], indices[self._permuted]

    @property
    def replays(self) -> np.ndarray:
        """True for each row that is read again."""
        return np.concatenate([part.replays for part in self._parts])[self._permuted]

    @cached_property
    def _permuted(self) -> np.ndarray:
        return permutation(self.rows, derive(self._seed, MIXED))
