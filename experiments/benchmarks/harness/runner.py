"""Runs the parts of a suite, sides taking turns, and keeps what is known in one JSON file."""

import hashlib
import importlib.metadata
import json
import statistics
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from experiments.benchmarks.harness.suites import Part
from experiments.benchmarks.harness.workloads import Job
from storage.atomic import write_json
from storage.lock import only_writer
from training.distributed import World
from training.run.folder import describe_environment

ROOT = Path(__file__).resolve().parents[3]
PEERS = ("transformers", "peft", "tokenizers", "liger-kernel")
PACKAGES = ("kernels", "model", "tokenizer", "data", "training", "conf", "scripts")
Launch = Callable[[Job], dict]
"""Measures elsewhere: the figures, or `not_measured` with the reason."""


def describe(threads: int) -> dict[str, Any]:
    """Conditions of a figure apart from its settings: code, versions, hardware."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    world = World(rank=0, dp_size=1, device=device, threads=threads)
    told = describe_environment(world, {})
    for name in ("data_fingerprints", "world_size"):
        del told[name]
    for name in PEERS:
        try:
            told["versions"][name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            told["versions"][name] = None
    told["processor"] = _processor()
    digest = hashlib.sha256()
    for path in sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py")):
        digest.update(path.read_bytes())
    return told | {"sources": digest.hexdigest()[:16]}


def _processor() -> str | None:
    path = Path("/proc/cpuinfo")
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, None)


def run_suite(
    parts: list[Part],
    *,
    rounds: int,
    out: Path,
    environment: dict[str, Any],
    command: str,
    launch: Launch,
    say: Callable[[str], None] = print,
) -> dict[str, Any]:
    """Measure what `out` does not hold yet, and return all that it holds then.

    A part counts as held when it was measured by the same code, versions and hardware with the same
    settings; what was not is forgotten.

    Args:
        rounds: how often each side is measured.
        command: that led here, for the record.
        launch: measures a job.

    Raises:
        ValueError: `out` is another file, or another process writes it.
    """
    out.parent.mkdir(parents=True, exist_ok=True)
    with only_writer(out.with_name(out.name + ".lock"), out):
        known = _known_parts(out, environment)
        content = {"command": command, "environment": environment, "parts": known}
        for number, part in enumerate(parts, start=1):
            settings = _settings(part, rounds)
            if known.get(part.name, {}).get("settings") == settings:
                say(f"{number}/{len(parts)} {part.name}: measured before")
                continue
            known.pop(part.name, None)
            say(f"{number}/{len(parts)} {part.name}")
            sides = _measure_sides(part, rounds, environment["threads"], launch)
            known[part.name] = {"settings": settings, **summarize(part, sides)}
            write_json(out, content)
    return content


def _settings(part: Part, rounds: int) -> dict[str, Any]:
    work = {"kind": type(part.work).__name__, **asdict(part.work)}
    return {"work": work, "sides": list(part.sides), "goals": part.goals, "rounds": rounds}


def _known_parts(out: Path, environment: dict[str, Any]) -> dict[str, Any]:
    if not out.exists():
        return {}
    try:
        held = json.loads(out.read_text(encoding="utf-8"))
        before, parts = dict(held["environment"]), dict(held["parts"])
    except (ValueError, KeyError, TypeError):
        raise ValueError(f"out={out} is not a file of this command; choose another out=") from None
    # A file that is being edited elsewhere in the project changes no figure.
    same = before | {"git_dirty": None} == environment | {"git_dirty": None}
    return parts if same else {}


def _measure_sides(part: Part, rounds: int, threads: int, launch: Launch) -> dict[str, Any]:
    """The rounds of each side, or why there are none: ours, peer, ours, peer, ..."""
    sides: dict[str, Any] = {side: {"rounds": []} for side in part.sides}
    for _ in range(rounds):
        for side in part.sides:
            if "not_measured" in sides[side]:
                continue
            found = launch(Job(part.work, side, threads))
            if "not_measured" in found:
                sides[side] = found
            else:
                sides[side]["rounds"].append(found)
    first = next((s for s in part.sides if "rounds" in sides[s]), None)
    for side in part.sides:
        if "rounds" not in sides[side] or first is None:
            continue
        ours, theirs = (sides[s]["rounds"][0].get("precision") for s in (first, side))
        if ours != theirs:
            reason = f"its precision, {theirs}, is not that of {first}, {ours}"
            sides[side] = {"not_measured": reason}
    return sides


def summarize(part: Part, sides: dict[str, Any]) -> dict[str, Any]:
    """Medians, spreads, shares of the measured ceilings, and ratios of the medians.

    A ceiling is the median over the rounds of all sides, which did not have the machine at the same
    moment.
    """
    rounds = {side: found["rounds"] for side, found in sides.items() if "rounds" in found}
    machine, ceilings = (
        _medians([r[key] for found in rounds.values() for r in found])
        for key in ("machine", "ceilings")
    )
    figures = {
        side: {
            name: _spread([r["figures"][name] for r in found], ceilings.get(name))
            for name in found[0]["figures"]
        }
        for side, found in rounds.items()
    }
    ratios: dict[str, dict[str, float]] = {}
    first = part.sides[0]
    for side in part.sides[1:]:
        if first in figures and side in figures:
            shared = figures[first].keys() & figures[side].keys()
            ratios[side] = {
                name: figures[first][name]["median"] / figures[side][name]["median"]
                for name in sorted(shared)
                if figures[side][name]["median"]
            }
    return {
        "sides": sides,
        "machine": machine,
        "figures": figures,
        "ratios": ratios,
        "same_answers": _same_answers(rounds, first),
    }


def _medians(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Of each number by name; of names, the first."""
    found: dict[str, list[Any]] = {}
    for row in rows:
        for name, value in row.items():
            found.setdefault(name, []).append(value)
    return {
        name: values[0] if isinstance(values[0], str) else statistics.median(values)
        for name, values in found.items()
    }


def _spread(values: list[float], ceiling: float | None) -> dict[str, Any]:
    median = statistics.median(values)
    share = None if ceiling is None else median / ceiling
    return {"median": median, "low": min(values), "high": max(values), "share": share}


def _same_answers(rounds: dict[str, Any], first: str) -> dict[str, str]:
    """Of each other side: how many of its answers are those of the first."""
    if first not in rounds or "answers" not in rounds[first][0]:
        return {}
    ours = rounds[first][0]["answers"]
    same = {
        side: sum(a == b for a, b in zip(ours, found[0]["answers"], strict=True))
        for side, found in rounds.items()
        if side != first
    }
    return {side: f"{count} of {len(ours)}" for side, count in same.items()}
