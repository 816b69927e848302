"""Benchmarks by name."""

import difflib
from pathlib import Path

from evaluation.benchmarks.cleaning import VARIANTS, as_cleaned, as_released
from evaluation.benchmarks.geobench import TABLES, read_geobench
from evaluation.benchmarks.items import Task
from evaluation.benchmarks.k2 import FILES, read_k2
from evaluation.benchmarks.mmlu_style import EXAMS, read_exam
from evaluation.benchmarks.sample import read_sample

SAMPLE = ("sample_en", "sample_zh")

TASKS = (*SAMPLE, *TABLES, *EXAMS, *FILES)
"""Names of all benchmarks."""

GROUPS = {"sample": SAMPLE, "geobench": tuple(TABLES), "k2": tuple(FILES)}
"""Names that stand for several."""


def expand_names(names: list[str]) -> list[str]:
    """Task names, in order and once each, with groups spelled out; ValueError for unknown ones."""
    known = (*TASKS, *GROUPS)
    for name in names:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {near[0]}?" if near else f"choose of {', '.join(known)}"
            raise ValueError(f"tasks: there is no {name!r}; {hint}")
    return list(dict.fromkeys(one for name in names for one in GROUPS.get(name, (name,))))


def open_task(name: str, folder: str | Path | None, *, variant: str = "released") -> Task:
    """Read a benchmark.

    Args:
        name: one of `TASKS`.
        folder: what holds the released files: the folder of the benchmark, one that holds it, or
            the file itself; the embedded sample needs none.
        variant: `released` or `cleaned`.

    Raises:
        ValueError: the name or variant is unknown, a file is missing, or a row is malformed.
    """
    if variant not in VARIANTS:
        raise ValueError(f"variant={variant!r}: must be one of {', '.join(VARIANTS)}")
    if expand_names([name]) != [name]:
        raise ValueError(f"{name} stands for {', '.join(GROUPS[name])}; open one of them")
    task = _read(name, folder)
    if not task.items:
        raise ValueError(f"{name}: the files hold no question; fetch them again")
    if variant == "released":
        return as_released(task)
    return as_cleaned(task, placeholder="Null" if name == "geobench_npee" else None)


def _read(name: str, folder: str | Path | None) -> Task:
    if name in SAMPLE:
        return read_sample(name.removeprefix("sample_"))
    if folder is None:
        raise ValueError(f"{name} needs benchmarks=<folder with its released files>")
    data = Path(folder)
    if name in TABLES:
        return read_geobench(name, data)
    if name in EXAMS:
        return read_exam(name, data)
    return read_k2(name, data)
