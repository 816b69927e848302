"""The tables of facts in docs/results/tspt.md: share right by times shown, and what arms differ in.

    python -m experiments.studies.tspt.facts RUNS [SEED ...]

RUNS holds run folders with `probes.json`, which `python -m scripts.measure runs=RUNS probes=true`
writes. Prints Markdown. Intervals are over facts, whose answers in two languages belong together.
"""

import json
import sys
from collections import defaultdict
from pathlib import Path
from statistics import mean

from evaluation.statistics import paired_bootstrap

ARMS = ("base", "s1_only", "s2_only", "one_stage", "tspt", "tspt_rate45")
PAIRS = (("tspt", "one_stage"), ("tspt", "s1_only"), ("one_stage", "s1_only"))
LEVELS = (0, 1, 4, 16, 64)
KINDS = tuple((domain, invented) for domain in ("geo", "general") for invented in (True, False))


def asked(root: Path, arm: str, seeds: list[str], domain: str, invented: bool, level: int) -> dict:
    """Share of right completions of each fact, over two languages and all seeds."""
    found = defaultdict(list)
    for seed in seeds:
        for probe in json.loads((root / f"{arm}-s{seed}" / "probes.json").read_text()):
            kind = probe["domain"], probe["invented"], probe["exposures"]
            if kind == (domain, invented, level):
                found[probe["id"]].append(probe["correct"])
    return {fact: mean(answers) for fact, answers in found.items()}


def say_shares(root: Path, seeds: list[str]) -> None:
    """Per cent right of each kind and level."""
    print("| arm | facts |" + "".join(f" {level} |" for level in LEVELS))
    print("|" + "---|" * (2 + len(LEVELS)))
    for domain, invented in KINDS:
        for arm in ARMS:
            if not all((root / f"{arm}-s{seed}" / "probes.json").exists() for seed in seeds):
                continue
            found = [asked(root, arm, seeds, domain, invented, level) for level in LEVELS]
            cells = (f" {100 * mean(x.values()):.1f} |" if x else " |" for x in found)
            print(f"| `{arm}` | {domain}, {'invented' if invented else 'real'} |" + "".join(cells))


def say_difference(root: Path, seeds: list[str], one: str, other: str) -> None:
    """Of the facts shown 64 times, in points, with a bootstrap over facts."""
    for domain in ("geo", "general"):
        first, second = (
            asked(root, arm, seeds, domain, True, 64) | asked(root, arm, seeds, domain, False, 64)
            for arm in (one, other)
        )
        differences = [first[fact] - second[fact] for fact in first]
        low, high = paired_bootstrap(differences, seed=0)
        found = f"{100 * mean(differences):+.1f} [{100 * low:+.1f}, {100 * high:+.1f}]"
        print(f"{one} minus {other}, {domain}, {len(differences)} facts: {found}")


if __name__ == "__main__":
    folder, chosen = Path(sys.argv[1]), sys.argv[2:] or ["0"]
    say_shares(folder, chosen)
    print()
    for pair in PAIRS:
        say_difference(folder, chosen, *pair)
