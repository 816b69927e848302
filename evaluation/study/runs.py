"""Runs of a study, from their folders.

A run with a study.json is a seed of an arm; a run without one is a separate arm with its own name.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from evaluation.study.files import (
    Evaluation,
    Probe,
    read_config,
    read_documents,
    read_metrics,
    read_probes,
    read_study,
)
from pretrained.folder import FINAL_FOLDERS

SIDES = ("general", "domain")
"""Groups of held-out sets: sources under `data.general` and under `data.domain`."""
OUTCOMES = ("mean", "pooled")
"""One number per side: unweighted mean over its sets, or all nats over all bytes."""
DRAWN_LAST = "loss.png"
"""File that a run writes after its last step, before its weights."""


@dataclass(frozen=True)
class Run:
    """Files of a run.

    Attributes:
        name: of its folder.
        planned: study.json makes the run a seed of an arm.
        starts_from: run whose weights it started with; None: another folder, or new weights.
        sides: evaluated sets of each of `SIDES`.
        borders: last steps of stages before another stage.
        finished: the last step is done.
        documents: (D, 2) nats and bytes of every held-out document, by set; may be empty.
    """

    name: str
    arm: str
    seed: int
    planned: bool
    lr: float
    starts_from: str | None
    chunk_bytes: int
    sides: dict[str, tuple[str, ...]]
    evaluations: tuple[Evaluation, ...]
    borders: tuple[int, ...]
    finished: bool
    documents: dict[str, NDArray[np.float64]]
    probes: tuple[Probe, ...]

    @cached_property
    def final(self) -> Evaluation:
        """Final evaluation: over documents if measured, otherwise the last one of the run."""
        last = self.evaluations[-1]
        if not self.documents:
            return last
        totals = {name: table.sum(0).tolist() for name, table in self.documents.items()}
        bits = {name: nats / math.log(2) / size for name, (nats, size) in totals.items()}
        return replace(
            last, bits=bits, sizes={name: int(size) for name, (_, size) in totals.items()}
        )


def find_runs(runs: str | Sequence[str]) -> list[Path]:
    """Run folders: a list of them, or all in a folder, by name.

    Raises:
        ValueError: no run is found, or a listed folder is not a run.
    """
    if not isinstance(runs, str):
        folders = [Path(folder) for folder in runs]
        for folder in folders:
            if not _is_run(folder) or not (folder / "metrics.jsonl").is_file():
                raise ValueError(f"runs: {folder} has no config.yaml and metrics.jsonl of a run")
        if not folders:
            raise ValueError("runs=[]: name at least one run, or a folder of runs")
        return folders
    if _is_run(Path(runs)):
        return find_runs([runs])
    if not Path(runs).is_dir():
        raise ValueError(f"runs={runs}: no such folder")
    folders = sorted(path for path in Path(runs).iterdir() if _is_run(path))
    if not folders:
        raise ValueError(f"runs={runs} contains no run folders (looked for config.yaml)")
    return folders


def _is_run(folder: Path) -> bool:
    return any((folder / name).is_file() for name in ("config.yaml", "study.json"))


def read_runs(folders: Sequence[Path]) -> list[Run]:
    """Read runs; a run without an evaluation has an empty list of evaluations.

    Raises:
        ValueError: a file is malformed, two runs have the same arm and seed, or the evaluated texts
            differ; the message names the files.
    """
    runs = [read_run(folder) for folder in folders]
    places: dict[tuple[str, int], Path] = {}
    names: dict[str, Path] = {}
    for run, folder in zip(runs, folders, strict=True):
        if (other := places.setdefault((run.arm, run.seed), folder)) != folder:
            raise ValueError(
                f"{folder} and {other} are both arm {run.arm}, seed {run.seed}; remove one of them "
                "from runs=, or correct study.json"
            )
        if (other := names.setdefault(run.name, folder)) != folder:
            raise ValueError(f"{folder} and {other} have the same name; rename one of them")
    _check_no_circle(runs)
    finished = [run for run in runs if run.finished and run.evaluations]
    measured = [run for run in finished if run.documents]
    _check_comparable(measured or finished)
    return runs


def trace_back(runs: Sequence[Run], grown_from: Mapping[str, str]) -> list[Run]:
    """Runs with starts in `grown_from` replaced by the run that the folder was made of.

    Raises:
        ValueError: a name is unknown, or the chain of starts would be a circle.
    """
    names = {run.name for run in runs}
    begun = {run.starts_from for run in runs} - names - {None}
    for folder, made_of in grown_from.items():
        if folder not in begun:
            others = ", ".join(sorted(map(str, begun))) or "none"
            raise ValueError(
                f"grown_from.{folder}: no run starts from it, or it is a run itself; runs start "
                f"from these other folders: {others}"
            )
        if made_of not in names:
            raise ValueError(f"grown_from.{folder}={made_of}: not one of the compared runs")
    traced = [
        replace(run, starts_from=grown_from.get(run.starts_from or "", run.starts_from))
        for run in runs
    ]
    _check_no_circle(traced)
    return traced


def read_run(folder: Path) -> Run:
    """Read one run folder.

    Raises:
        ValueError: a file is invalid; the message names the line or entry.
    """
    config = read_config(folder / "config.yaml")
    evaluations, borders = read_metrics(folder / "metrics.jsonl")
    evaluated = evaluations[-1].bits if evaluations else {}
    sides = {
        side: tuple(name for name in config["data"].get(side) or {} if name in evaluated)
        for side in SIDES
    }
    name = folder.resolve().name
    rate = config.get("optim", {}).get("lr", math.nan)
    own = {"arm": name, "seed": config.get("seed", 0), "starts_from": None, "lr": rate}
    study = read_study(folder / "study.json")
    who = study or own
    return Run(
        name=name,
        arm=who["arm"],
        seed=int(who["seed"]),
        planned=bool(study),
        lr=float(who["lr"]),
        starts_from=who["starts_from"],
        chunk_bytes=config.get("evaluation", {}).get("chunk_bytes", 0),
        sides=sides,
        evaluations=tuple(evaluations),
        borders=tuple(borders),
        finished=any((folder / name).exists() for name in (*FINAL_FOLDERS, DRAWN_LAST)),
        documents=read_documents(folder / "documents.json"),
        probes=read_probes(folder / "probes.json"),
    )


def _check_no_circle(runs: Sequence[Run]) -> None:
    parents = {run.name: run.starts_from for run in runs}
    for run in runs:
        path, name = [run.name], run.starts_from
        while name in parents:
            if name in path:
                circle = " starts from ".join([*path, name])
                raise ValueError(f"study.json (or grown_from): {circle}, in a circle")
            path.append(name)
            name = parents[name]


def _check_comparable(runs: Sequence[Run]) -> None:
    """ValueError for runs whose held-out texts or pieces differ."""
    _check_documents(runs)
    for run in runs[1:]:
        first = runs[0]
        for what, one, other in (
            ("data.general and data.domain", first.sides, run.sides),
            ("bytes of the held-out sets", _sizes(first), _sizes(run)),
            ("evaluation.chunk_bytes", first.chunk_bytes, run.chunk_bytes),
        ):
            if one != other:
                raise ValueError(
                    f"{first.name} and {run.name} differ in the {what} ({one}, {other}), so their "
                    "bits per byte cannot be compared; remove one of them from runs="
                )


def _check_documents(runs: Sequence[Run]) -> None:
    for run in runs[1:]:
        first = runs[0]
        for name in sorted(first.documents.keys() | run.documents.keys()):
            one, other = (r.documents.get(name, np.empty((0, 2)))[:, 1] for r in (first, run))
            if not np.array_equal(one, other):
                raise ValueError(
                    f"documents.json of {first.name} and {run.name}: the documents of {name} "
                    "differ in their bytes; measure the runs on the same data"
                )


def _sizes(run: Run) -> dict[str, int]:
    return {name: run.final.sizes[name] for side in SIDES for name in run.sides[side]}
