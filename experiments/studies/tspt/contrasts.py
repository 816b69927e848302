"""Contrasts of docs/results/tspt.md that the report lacks: any two arms, and the 2 x 2 of growth.

    python -m experiments.studies.tspt.contrasts <folder of measured runs>

Prints means over paired seeds with Student's 95 % interval, in bits per byte of the test half.
"""

import json
import math
import sys
from pathlib import Path
from statistics import mean

import numpy as np

from evaluation.statistics import paired_t

SIDES = {"domain": ("geo_en", "geo_zh"), "general": ("general_en", "general_zh", "arithmetic")}
PAIRS = (
    ("tspt_single", "one_stage"),
    ("tspt_kept", "one_stage"),
    ("tspt_rate45", "one_stage"),
    ("tspt_rate45", "tspt_kept"),
    ("tspt", "one_stage_70"),
    ("reversed", "one_stage"),
    ("grown_tspt", "tspt"),
    ("grown_one_stage", "one_stage"),
    ("grown_tspt", "grown_one_stage"),
)


def level(root: Path, arm: str, seed: int, side: str) -> float:
    """Bits per byte of a side: the plain mean over its sets."""
    sets = json.loads((root / f"{arm}-s{seed}" / "documents.json").read_text())
    totals = [np.sum(sets[name], axis=0) for name in SIDES[side] if name in sets]
    return mean(nats / math.log(2) / size for nats, size in totals)


def seeds_of(root: Path, *arms: str) -> list[int]:
    """Seeds of which all arms have been measured."""
    return [
        seed
        for seed in range(100)
        if all((root / f"{arm}-s{seed}" / "documents.json").exists() for arm in arms)
    ]


def say(name: str, side: str, values: list[float]) -> None:
    """Print one contrast."""
    found = paired_t(np.array(values))
    low, high = found.interval
    print(f"{name:<34}{side:<9}{found.mean:+.3f} [{low:+.3f}, {high:+.3f}] {len(values)} seeds")


if __name__ == "__main__":
    root = Path(sys.argv[1])
    for one, other in PAIRS:
        for side in SIDES:
            if seeds := seeds_of(root, one, other):
                differences = [
                    level(root, one, seed, side) - level(root, other, seed, side) for seed in seeds
                ]
                say(f"{one} - {other}", side, differences)
    corners = ("grown_tspt", "tspt", "grown_one_stage", "one_stage")
    for side in SIDES:
        if seeds := seeds_of(root, *corners):
            table = np.array([[level(root, arm, s, side) for arm in corners] for s in seeds])
            say("growth x stages", side, (table @ [1, -1, -1, 1]).tolist())
