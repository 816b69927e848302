"""MMLU, C-Eval and CMMLU: a table per subject and split, in a zip or a folder, and mapping.json.

`mapping.json` maps each subject to a name for prompts and one of four categories:
{"astronomy": {"name": "astronomy", "category": "STEM"}, ...}. C-Eval's test answers are not
published, so its validation split is scored.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from evaluation.benchmarks.files import Reading, Root, find, read_rows
from evaluation.benchmarks.items import Item, Problem, Task
from evaluation.benchmarks.table_rows import row_item

CATEGORIES = ("STEM", "Social Sciences", "Humanities", "Other")


class Exam(NamedTuple):
    """Files of a release."""

    language: str
    split: str
    """Scored split; demonstrations are from `dev`."""
    file: str
    """Name of a table file."""
    columns: str
    """First row of a table; empty: tables have no header."""
    more: str
    """Additional columns in `dev`."""
    zips: tuple[str, ...]
    """Names of the archive: JiuZhou's, then that of the benchmark's authors."""


EXAMS = {
    "mmlu": Exam("en", "test", "{subject}_{split}.csv", "", "", ("mmlu.zip",)),
    "ceval": Exam(
        "zh",
        "val",
        "{subject}_{split}.csv",
        "id,question,a,b,c,d,answer",
        ",explanation",
        ("ceval.zip", "ceval-exam.zip"),
    ),
    "cmmlu": Exam(
        "zh",
        "test",
        "{subject}.csv",
        ",question,a,b,c,d,answer",
        "",
        ("cmmlu.zip", "cmmlu_v1_0_1.zip"),
    ),
}


def read_exam(name: str, data: Path) -> Task:
    """Every row of the scored split of one of `EXAMS`, with the solved questions of `dev`.

    Raises:
        ValueError: a file is missing or unexpected, or a line is malformed; the message names it.
    """
    exam = EXAMS[name]
    origin = f"{exam.zips[0]} and mapping.json of github.com/THU-ESIS/JiuZhou, evaluation/{name},"
    found = find(name, data, name, (*exam.zips, "dev", "data/dev"), origin)
    near = (found.parent, found.parent.parent)  # MMLU's own archive puts all into data/
    base = next((place for place in near if (place / "mapping.json").is_file()), found.parent)
    reading = Reading(base)
    root = found.parent if found.is_dir() else _top(reading.open_zip(found), name)
    mapping = _read_mapping(reading, origin)
    for split in ("dev", exam.split):
        _check_files(reading, root / split, [_file(exam, s, split) for s in mapping])
    items = [_read_table(reading, root, exam, s, exam.split) for s in mapping]
    dev = {s: _read_table(reading, root, exam, s, "dev") for s in mapping}
    solved = {s: tuple(i for i in dev[s] if "broken" not in i.tags) for s in mapping}
    order = sorted(mapping, key=lambda s: CATEGORIES.index(mapping[s]["category"]))
    return Task(
        name=name,
        variant="released",
        language=exam.language,
        items=tuple(item for table in items for item in table),
        demonstrations=solved,
        categories={subject: mapping[subject]["category"] for subject in order},
        titles={subject: mapping[subject]["name"] for subject in order},
        problems=tuple(
            Problem(item.place, f"omitted from the demonstrations: {item.tags['broken']}")
            for table in dev.values()
            for item in table
            if "broken" in item.tags
        ),
        files=reading.digests,
    )


def _top(root: Root, name: str) -> Root:
    """Folder of the splits inside a zip."""
    for top in (root, root / "data", root / name):
        if (top / "dev").is_dir():
            return top
    raise ValueError(f"{root}: no folder dev/ in it; fetch the release of {name} again")


def _read_mapping(reading: Reading, origin: str) -> dict[str, Any]:
    path = reading.base / "mapping.json"
    if not path.is_file():
        raise ValueError(f"{path}: no such file; put {origin} into {reading.base}")
    mapping = reading.json(path)
    if not isinstance(mapping, dict) or not mapping:
        raise ValueError(f"{path}: must be an object of subjects, each with name and category")
    for subject, said in mapping.items():
        if not isinstance(said, dict) or not isinstance(said.get("name"), str):
            raise ValueError(f"{path}: subject {subject!r} has no name; fetch the file again")
        if said.get("category") not in CATEGORIES:
            raise ValueError(
                f"{path}: the category of {subject!r} is {said.get('category')!r}; must be one of "
                + ", ".join(CATEGORIES)
            )
    return mapping


def _file(exam: Exam, subject: str, split: str) -> str:
    return exam.file.format(subject=subject, split=split)


def _check_files(reading: Reading, folder: Root, names: list[str]) -> None:
    """ValueError for tables that mapping.json does not name, and for subjects without a table."""
    if not folder.is_dir():
        raise ValueError(f"{folder}: no such folder; fetch all of the release")
    there = {path.name for path in folder.iterdir() if not path.name.startswith(".")}
    there = {name for name in there if name.endswith(".csv")}
    if missing := [name for name in names if name not in there]:
        raise ValueError(
            f"{folder}: mapping.json names {len(missing)} subjects without a file "
            f"({_some(missing)}); fetch all of the release"
        )
    if strange := sorted(there - set(names)):
        raise ValueError(
            f"{folder}: mapping.json of {reading.base} does not name the subjects of "
            f"{_some(strange)}; add them there, or remove the files"
        )


def _some(names: Iterable[str]) -> str:
    first = list(names)
    return ", ".join(first[:3]) + (", ..." if len(first) > 3 else "")


def _read_table(reading: Reading, root: Root, exam: Exam, subject: str, split: str) -> list[Item]:
    path = root / split / _file(exam, subject, split)
    if not exam.columns:
        rows = read_rows(reading, path, 6)
        # Numbered from 0, like the ids in the tables of C-Eval and CMMLU.
        return [
            row_item(f"{subject}/{split}/{n}", subject, row.cells, row.place)
            for n, row in enumerate(rows)
        ]
    columns = exam.columns + (exam.more if split == "dev" else "")
    header, *rows = read_rows(reading, path, len(columns.split(",")))
    if [cell.lower() for cell in header.cells] != columns.split(","):
        raise ValueError(f"{header.place}: the columns are not {columns}; fetch the file again")
    items: dict[str, Item] = {}
    for row in rows:
        number, *cells = row.cells[:7]
        if number in items:
            raise ValueError(f"{row.place}: id {number!r} occurs twice; give each row its own id")
        items[number] = row_item(f"{subject}/{split}/{number}", subject, cells, row.place)
    if not items:
        raise ValueError(f"{header.place}: the table has no question; fetch the file again")
    return list(items.values())
