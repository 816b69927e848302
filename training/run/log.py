"""Records of a run: its logged steps and starts, and the comparison with repeated steps.

Nothing here writes to the run folder.
"""

import json
import math
from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from storage.journal import json_row
from training.run.folder import read_starts
from training.run.forgetting import DELTA, with_deltas

SHOWN = 3


@dataclass(frozen=True)
class Records:
    """Content of the log files in a run folder.

    Attributes:
        environment: environment.json.
        starts: starts.jsonl; empty if the run is older than that file.
        steps: rows of steps in metrics.jsonl.
        reached: newest step of any row, evaluations included.
        measured: rows of evaluations in metrics.jsonl.
    """

    environment: dict[str, Any]
    starts: list[dict[str, Any]]
    steps: list[dict[str, Any]]
    reached: int
    measured: list[dict[str, Any]] = field(default_factory=list)

    @property
    def logged(self) -> dict[int, dict[str, Any]]:
        """Rows of steps by number."""
        return {row["step"]: row for row in self.steps}

    @property
    def evaluations(self) -> dict[int, dict[str, Any]]:
        """Rows of evaluations by the number of updates before them, without what follows from two
        of them (`check_log` sees to that)."""
        return {
            row["step"]: row
            | {
                "eval": {
                    name: {key: figures[key] for key in figures if key != DELTA}
                    for name, figures in row["eval"].items()
                }
            }
            for row in self.measured
        }


def read_records(run: Path) -> Records:
    """Read what a run has written of itself; it may be growing.

    Raises:
        ValueError: a file is missing, or a line is not a valid log record.
    """
    for name in ("environment.json", "metrics.jsonl"):
        if not (run / name).is_file():
            raise ValueError(f"run={run}: no {name}; the run has not started, or the file was lost")
    environment = json.loads((run / "environment.json").read_text(encoding="utf-8"))
    with (run / "metrics.jsonl").open(encoding="utf-8") as lines:
        rows = [json_row(line) for line in lines if line.endswith("\n")]
    for number, row in enumerate(rows, start=1):
        if type(row.get("step")) is not int:
            raise ValueError(f"{run / 'metrics.jsonl'}, line {number} is not a valid log record")
    steps = [row for row in rows if "loss_nats" in row]
    reached = max((row["step"] for row in rows), default=0)
    measured = [row for row in rows if "eval" in row]
    return Records(environment, read_starts(run), steps, reached, measured)


def check_log(
    records: Records, kept: Iterable[int], last: int, every: int, within: int = SHOWN
) -> list[str]:
    """Sentences on steps that were logged twice, do not exist, or are missing in the log.

    Args:
        kept: checkpoints seen before the log was read; the log is on disk before they are.
        last: steps of the whole run.
        every: steps between rows of starts that do not record it.
        within: how many missing steps to name.
    """
    counts = Counter(row["step"] for row in records.steps)
    problems = [f"step {step}: logged {n} times" for step, n in sorted(counts.items()) if n > 1]
    evaluated = Counter(row["step"] for row in records.measured)
    problems += [f"step {s}: evaluated {n} times" for s, n in sorted(evaluated.items()) if n > 1]
    problems += _check_deltas(records)
    problems += [
        f"step {step}: logged, but the run has steps 1 to {last}"
        for step in sorted(counts)
        if not 1 <= step <= last
    ]
    reached = min(max([records.reached, *kept]), last)
    # Later starts have logged all steps after their first state again.
    every_after = {-1: every}
    for start in records.starts:
        every_after = {step: n for step, n in every_after.items() if step < start["step"]}
        every_after[start["step"]] = start.get("logging_every", every)
    missing = []
    for step in range(1, reached + 1):
        begun = max((first for first in every_after if first < step), default=-1)
        promised = step == last or step % every_after.get(begun, every) == 0
        if promised and step not in counts:
            missing.append(step)
    if missing:
        more = f" and {len(missing) - within} more" if missing[within:] else ""
        named = ", ".join(map(str, missing[:within]))
        problems.append(f"steps {named}{more}: not in the log, where logging.every promises them")
    return problems


def describe_gaps(run: Path, step: int | None, every: int) -> list[str]:
    """Rows that are missing from the log of a run that resumes after `step`.

    Args:
        step: None for a new run.
        every: steps between rows of starts that do not record it.
    """
    if step is None:
        return []
    return [f"metrics.jsonl: {gap}" for gap in check_log(read_records(run), [step], step, every)]


def _check_deltas(records: Records) -> list[str]:
    """Differences from the starting point that do not follow from the rows themselves."""
    start = next((row["eval"] for row in records.measured if row["step"] == 0), {})
    return [
        f"step {row['step']}: eval.{name}.{DELTA} logged {figures[DELTA]!r}, and it is "
        f"{follows[DELTA]!r} from step 0"
        for row in records.measured
        for (name, figures), follows in zip(
            row["eval"].items(), with_deltas(row["eval"], start).values(), strict=True
        )
        if DELTA in figures and DELTA in follows and figures[DELTA] != follows[DELTA]
    ]


@dataclass(frozen=True)
class Difference:
    """One figure of a step, as logged and as found.

    Attributes:
        name: with dots, as in `sources.geo_en.loss_nats`.
        relative: for figures that rounding may change; None for those that must be equal.
    """

    name: str
    logged: Any
    found: Any
    relative: float | None

    def passes(self, tolerance: float) -> bool:
        """Decide if the two values agree within a relative tolerance."""
        if self.relative is None:
            return type(self.logged) is type(self.found) and self.logged == self.found
        return self.relative <= tolerance

    def __str__(self) -> str:
        sentence = f"{self.name} logged {self.logged!r}, found {self.found!r}"
        if self.relative is None:
            return sentence
        return f"{sentence} (relative difference {self.relative:.1e})"


def compare(logged: dict[str, Any], found: dict[str, Any]) -> list[Difference]:
    """Every figure of a step: all that `found` has, but losses of rows only if they were logged."""
    names = [name for name in found if name != "rows" or name in logged]
    was, now = (_leaves({name: row.get(name) for name in names}) for row in (logged, found))
    result = []
    for name in list(now) + [name for name in was if name not in now]:
        a, b = was.get(name), now.get(name)
        relative = None
        if isinstance(b, float) and name != "lr":
            # The logits round by what they are, not by the loss: a row that is known by heart, of
            # loss near 0, is held to the loss of its step.
            part = name.startswith(("sources.", "rows."))
            relative = _relative(a, b, found["loss_nats"] if part else 0.0)
        result.append(Difference(name, a, b, relative))
    return result


def _leaves(value: Any, prefix: str = "") -> dict[str, Any]:
    if isinstance(value, dict) and value:
        items: Collection[tuple[Any, Any]] = value.items()
    elif isinstance(value, list | tuple) and value:
        items = list(enumerate(value))
    else:
        return {prefix[:-1]: value}
    leaves: dict[str, Any] = {}
    for key, part in items:
        leaves |= _leaves(part, f"{prefix}{key}.")
    return leaves


def _relative(a: Any, b: float, least: float) -> float:
    """Difference relative to the larger of both and `least`; infinite for anything but numbers."""
    if type(a) not in (int, float):
        return math.inf
    if a == b:
        return 0.0
    difference = abs(a - b) / max(abs(a), abs(b), abs(least))
    return difference if math.isfinite(difference) else math.inf
