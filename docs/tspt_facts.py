"""The tables of facts in docs/tspt.md: share right by times shown, and what arms differ in.

    python docs/tspt_facts.py RUNS [SEED ...]

RUNS holds run folders with `probes.json`, which `python -m scripts.measure runs=RUNS probes=true`
writes. Prints Markdown. Intervals and p are over facts: all runs were asked the same ones.
"""

import json
import sys
from pathlib import Path

sys.path.insert(0, ".")

from evaluation.statistics import mcnemar, paired_bootstrap

ARMS = ("base", "s1_only", "s2_only", "one_stage", "tspt", "tspt_rate45")
LEVELS = (0, 1, 4, 16, 64)
KINDS = tuple((domain, invented) for domain in ("geo", "general") for invented in (True, False))


def right(root: Path, arm: str, seeds: list[str], domain: str, invented: bool, level: int) -> list:
    """Whether each fact was completed right, in one order, seed after seed."""
    probes = [p for s in seeds for p in json.loads((root / f"{arm}-s{s}/probes.json").read_text())]
    asked = (p for p in probes if (p["domain"], p["invented"]) == (domain, invented))
    return [p["correct"] for p in asked if p["exposures"] == level]


def say_shares(root: Path, seeds: list[str]) -> None:
    """Per cent right of each kind and level."""
    print("| arm | facts |" + "".join(f" {level} |" for level in LEVELS))
    print("|" + "---|" * (2 + len(LEVELS)))
    for domain, invented in KINDS:
        for arm in ARMS:
            found = [right(root, arm, seeds, domain, invented, level) for level in LEVELS]
            cells = (f" {100 * sum(x) / len(x):.1f} |" if x else " |" for x in found)
            print(f"| `{arm}` | {domain}, {'invented' if invented else 'real'} |" + "".join(cells))


def say_difference(root: Path, seeds: list[str], one: str, other: str) -> None:
    """Of the facts shown 64 times, in points."""
    for domain in ("geo", "general"):
        pairs = [
            (first, second)
            for invented in (True, False)
            for first, second in zip(
                right(root, one, seeds, domain, invented, 64),
                right(root, other, seeds, domain, invented, 64),
                strict=True,
            )
        ]
        differences = [float(first) - float(second) for first, second in pairs]
        low, high = paired_bootstrap(differences, seed=0)
        p = mcnemar(sum(d < 0 for d in differences), sum(d > 0 for d in differences))
        mean = sum(differences) / len(differences)
        print(
            f"{one} minus {other}, {domain}, {len(pairs)} answers: {100 * mean:+.1f} "
            f"[{100 * low:+.1f}, {100 * high:+.1f}], McNemar p = {p:.2g}"
        )


if __name__ == "__main__":
    folder, chosen = Path(sys.argv[1]), sys.argv[2:] or ["0"]
    say_shares(folder, chosen)
    print()
    for pair in (("tspt", "one_stage"), ("tspt", "s1_only"), ("one_stage", "s1_only")):
        say_difference(folder, chosen, *pair)
    say_difference(folder, chosen, "tspt_rate45", "one_stage")
