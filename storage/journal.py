"""JSON Lines files that a second call of the same command continues.

A settings file next to the lines holds the settings that the lines were computed with; a command
with different settings is refused. Lines are forced to disk as they are appended, and a last line
that was torn by a crash is cut off when the file is opened again.
"""

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from storage.atomic import fsync, fsync_file, write_json


def settings_file(file: Path) -> Path:
    """Path of the settings file: `<stem>.settings.json` for `<stem>.jsonl`."""
    return file.with_suffix(".settings.json")


def differing(one: dict[str, Any], other: dict[str, Any]) -> list[str]:
    """Sorted names of the settings that differ."""
    return sorted(name for name in one | other if one.get(name) != other.get(name))


def check_settings(file: Path, settings: dict[str, Any], note: Path | None = None) -> None:
    """Compare the settings of an existing file with those of this command.

    Args:
        note: the settings file, if it is not `settings_file(file)`.

    Raises:
        ValueError: the file has no settings file, or was created with different settings.
    """
    note = note or settings_file(file)
    if not note.is_file():
        if file.exists():
            raise ValueError(
                f"{file} exists, but {note.name} next to it is missing, so its settings are "
                "unknown; choose another out="
            )
        return
    if different := differing(json.loads(note.read_text(encoding="utf-8")), settings):
        raise ValueError(
            f"{file} was created with different settings ({', '.join(different)}); choose another "
            f"out=, or remove it and {note.name}"
        )


def open_journal(file: Path, settings: dict[str, Any], note: Path | None = None) -> list[bytes]:
    """Create or continue a file; returns its complete lines, after cutting off a torn last line.

    Args:
        note: the settings file, if it is not `settings_file(file)`.

    Raises:
        ValueError: as `check_settings`.
    """
    check_settings(file, settings, note)
    note = note or settings_file(file)
    if not note.is_file():
        write_json(note, settings)
    file.touch()
    fsync(file.parent)
    *complete, torn = file.read_bytes().split(b"\n")
    lines = [line + b"\n" for line in complete]
    if torn:
        cut_lines(file, lines)
    return lines


def cut_lines(file: Path, kept: Iterable[bytes]) -> None:
    """Cut a file after its first lines.

    Args:
        kept: the first lines, with their line ends.
    """
    os.truncate(file, sum(map(len, kept)))


def append_lines(file: Path, values: Iterable[Any]) -> None:
    """Append a JSON line per value; the lines are on disk when the call returns."""
    lines = "".join(json.dumps(value, ensure_ascii=False) + "\n" for value in values)
    with file.open("ab") as opened:
        opened.write(lines.encode())
        fsync_file(opened)


def json_row(line: str) -> dict[str, Any]:
    """The JSON object on a line; an empty object if the line holds none."""
    try:
        row = json.loads(line)
    except ValueError:
        return {}
    return row if isinstance(row, dict) else {}
