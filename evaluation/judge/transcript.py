"""Every request to a judge and what came of it, in a file that survives interruption.

`transcript.jsonl` has a line per attempt, on disk before the next one begins: `outcome` is
`verdict`, `again` (another attempt followed, unless the command was stopped) or `failed` (given
up). Lines stand in the order in which replies came. `transcript.settings.json` says what was asked;
another command is refused.
"""

import json
import os
import threading
from pathlib import Path
from typing import Any, NamedTuple

from evaluation.multiple_choice.predictions import differing, settings_file
from storage.lock import fsync_folder, write_durably

VERDICT, AGAIN, FAILED = "verdict", "again", "failed"


class Judged(NamedTuple):
    """What a transcript holds, by the key of a judgement.

    Attributes:
        verdicts: of those that have one.
        problems: the last one of those that have none.
        models: as which the endpoint answered.
        tokens: that it counted.
    """

    verdicts: dict[tuple[str, ...], dict[str, Any]]
    problems: dict[tuple[str, ...], str]
    models: list[str]
    tokens: int


class Transcript:
    """The open file; threads may append to it."""

    def __init__(self, file: Path) -> None:
        self._file = file.open("a", encoding="utf-8")
        self._lock = threading.Lock()

    def append(self, line: dict[str, Any]) -> None:
        """Add a line, on disk when this returns."""
        with self._lock:
            self._file.write(json.dumps(line, ensure_ascii=False) + "\n")
            self._file.flush()
            os.fsync(self._file.fileno())

    def close(self) -> None:
        """No line follows."""
        self._file.close()


def open_transcript(file: Path, settings: dict[str, Any]) -> Judged:
    """Create or continue a transcript; returns what it holds. A torn last line is cut away.

    Raises:
        ValueError: it belongs to another command, which is compared field by field, or is damaged.
    """
    note = settings_file(file)
    if note.is_file():
        before = json.loads(note.read_text(encoding="utf-8"))
        if different := differing(before, settings):
            raise ValueError(
                f"{file} was begun with another {', '.join(different)}; choose another out, or "
                f"remove it and {note.name}"
            )
    elif file.exists():
        raise ValueError(f"{file} exists, and no {note.name} beside it; choose another out")
    else:
        write_durably(note, settings)
    file.touch()
    fsync_folder(file.parent)
    content = file.read_bytes()
    whole = content.rfind(b"\n") + 1
    if whole < len(content):
        os.truncate(file, whole)
    return read_transcript(file)


def read_transcript(file: Path) -> Judged:
    """What a transcript holds.

    Raises:
        ValueError: a line is not one of a transcript; names it.
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
                    f"{file}, line {number}: not of a transcript ({error}); choose another out"
                ) from None
    return judged._replace(models=sorted(models), tokens=tokens)
