"""Transcript of all requests to a judge and their outcomes, which the same command continues.

`transcript.jsonl` has a line per attempt, on disk before the next attempt: `outcome` is `verdict`,
`again` (another attempt followed, unless the command was stopped) or `failed`. Lines are in the
order of the replies. `transcript.settings.json` has the settings; a different command is refused.
"""

import json
import threading
from pathlib import Path
from typing import Any, NamedTuple

from storage.journal import append_lines, open_journal

VERDICT, AGAIN, FAILED = "verdict", "again", "failed"


class Judged(NamedTuple):
    """Content of a transcript, by the key of a judgement.

    Attributes:
        verdicts: verdicts by judgement.
        problems: last problem of each judgement without a verdict.
        models: names that the endpoint gave for the judge.
        tokens: sum of the endpoint's token counts.
    """

    verdicts: dict[tuple[str, ...], dict[str, Any]]
    problems: dict[tuple[str, ...], str]
    models: list[str]
    tokens: int


class Transcript:
    """An open transcript, to which several threads may append."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._lock = threading.Lock()

    def append(self, line: dict[str, Any]) -> None:
        """Append a line; the line is on disk when the call returns."""
        with self._lock:
            append_lines(self._file, [line])


def open_transcript(file: Path, settings: dict[str, Any]) -> Judged:
    """Create or continue a transcript; returns its content. A torn last line is cut off.

    Raises:
        ValueError: the transcript was created with different settings, or is damaged.
    """
    open_journal(file, settings)
    return read_transcript(file)


def read_transcript(file: Path) -> Judged:
    """Content of a transcript.

    Raises:
        ValueError: a line is invalid; the message names it.
    """
    judged = Judged({}, {}, [], 0)
    models: set[str] = set()
    tokens = 0
    with file.open(encoding="utf-8", newline="\n") as lines:
        for number, line in enumerate(lines, start=1):
            try:
                entry = json.loads(line)
                key = (entry["question"], *entry["names"])
                if entry["outcome"] == VERDICT:
                    judged.verdicts[key] = dict(entry["verdict"])
                    judged.problems.pop(key, None)
                else:
                    judged.problems[key] = str(entry["problem"])
                models |= {entry["model"]} - {None}
                tokens += entry["tokens"] or 0
            except (ValueError, TypeError, KeyError) as error:
                raise ValueError(
                    f"{file}, line {number} is not a transcript record ({error}); choose another "
                    "out="
                ) from None
    return judged._replace(models=sorted(models), tokens=tokens)
