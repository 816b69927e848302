"""Benchmarks by name.

A new benchmark is a reader in this folder and an entry in `BENCHMARKS`.
"""

import difflib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from evaluation.benchmarks.cleaning import VARIANTS, cleaned, released
from evaluation.benchmarks.geobench import read_geobench
from evaluation.benchmarks.items import Task
from evaluation.benchmarks.k2 import read_k2
from evaluation.benchmarks.mmlu_style import read_exam
from evaluation.benchmarks.sample import read_sample

T = TypeVar("T")


@dataclass(frozen=True)
class Benchmark:
    """An entry of the registry.

    Attributes:
        read: reader of the task, from its name and the folder of its released files; a task
            without files ignores the folder.
        group: name of several benchmarks together; empty: none.
        has_files: the benchmark has released files.
        placeholder: text of an option that means "no option"; see `cleaning.cleaned`.
    """

    name: str
    read: Callable[[str, Path], Task]
    group: str = ""
    has_files: bool = True
    placeholder: str | None = None


BENCHMARKS = {
    benchmark.name: benchmark
    for benchmark in (
        Benchmark("sample_en", read_sample, group="sample", has_files=False),
        Benchmark("sample_zh", read_sample, group="sample", has_files=False),
        Benchmark("geobench_npee", read_geobench, group="geobench", placeholder="Null"),
        Benchmark("geobench_aptest", read_geobench, group="geobench"),
        Benchmark("mmlu", read_exam),
        Benchmark("ceval", read_exam),
        Benchmark("cmmlu", read_exam),
        Benchmark("k2_npee_choice", read_k2, group="k2"),
        Benchmark("k2_npee_tf", read_k2, group="k2"),
        Benchmark("k2_apstudy", read_k2, group="k2"),
    )
}

GROUPS = {
    group: tuple(b.name for b in BENCHMARKS.values() if b.group == group)
    for group in dict.fromkeys(b.group for b in BENCHMARKS.values() if b.group)
}
"""Names of several benchmarks together."""


def expand_names(names: Sequence[str]) -> list[str]:
    """Task names in order, each once, with groups expanded; ValueError for unknown names."""
    known = (*BENCHMARKS, *GROUPS)
    for name in names:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {near[0]}?" if near else f"choose from {', '.join(known)}"
            raise ValueError(f"tasks: {name!r} does not exist; {hint}")
    return list(dict.fromkeys(one for name in names for one in GROUPS.get(name, (name,))))


def check_tasks(tasks: Sequence[str], variant: str, shots_per_task: Mapping[str, int]) -> None:
    """ValueError for unknown names, and for shots of a task that is not evaluated."""
    if not tasks:
        raise ValueError("tasks: name at least one")
    names = set(expand_names(tasks))
    for name in shots_per_task:
        if names.isdisjoint(expand_names([name])):
            raise ValueError(f"shots_per_task.{name}: not one of tasks={','.join(tasks)}")
    if variant not in (*VARIANTS, "both"):
        raise ValueError(f"variant={variant!r}: one of {', '.join(VARIANTS)}, both")


def open_tasks(
    names: Sequence[str], folder: str | None, variant: str, limit: int | None = None
) -> list[Task]:
    """Tasks by name, in one variant or both, with at most `limit` questions each.

    Raises:
        ValueError: files are missing or malformed.
    """
    variants = VARIANTS if variant == "both" else (variant,)
    tasks = [open_task(name, folder, variant=v) for name in expand_names(names) for v in variants]
    return [replace(task, items=tuple(evenly_spaced(task.items, limit))) for task in tasks]


def evenly_spaced(items: Sequence[T], limit: int | None) -> Sequence[T]:
    """At most `limit` evenly spaced items, the first item always among them."""
    if limit is None or limit >= len(items):
        return items
    return [items[n * len(items) // limit] for n in range(limit)]


def open_task(name: str, folder: str | Path | None, *, variant: str = "released") -> Task:
    """Read a benchmark.

    Args:
        name: one of `BENCHMARKS`.
        folder: folder of the benchmark's released files, its parent folder, or the file itself;
            the embedded sample needs none.
        variant: `released` or `cleaned`.

    Raises:
        ValueError: the name or variant is unknown, a file is missing, or a row is malformed.
    """
    if variant not in VARIANTS:
        raise ValueError(f"variant={variant!r}: must be one of {', '.join(VARIANTS)}")
    if expand_names([name]) != [name]:
        raise ValueError(f"{name} is a group ({', '.join(GROUPS[name])}); open one of its tasks")
    benchmark = BENCHMARKS[name]
    if folder is None and benchmark.has_files:
        raise ValueError(f"{name} needs benchmarks=<folder with its released files>")
    task = benchmark.read(name, Path(folder or "."))
    if not task.items:
        raise ValueError(f"{name}: the files contain no question; fetch them again")
    return released(task) if variant == "released" else cleaned(task, benchmark.placeholder)
