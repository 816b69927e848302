"""A study: its counted, excluded and missing runs, and their starts."""

import math
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from evaluation.study.files import Evaluation
from evaluation.study.runs import SIDES, Run


@dataclass(frozen=True)
class Study:
    """Runs that can be compared, and reasons against the others.

    Attributes:
        runs: counted runs: finished, with finite results.
        excluded: run -> reason against counting it.
        missing: (arm, seed) without a run.
        arms: in the order of reports, with those without a counted run.
        base: arm that all others start from.
    """

    runs: tuple[Run, ...]
    excluded: dict[str, str]
    missing: tuple[tuple[str, int], ...]
    arms: tuple[str, ...]
    base: str

    def of(self, arm: str) -> dict[int, Run]:
        """Counted runs of an arm by seed."""
        runs = [run for run in self.runs if run.arm == arm]
        return {run.seed: run for run in sorted(runs, key=lambda run: run.seed)}

    def parent(self, run: Run) -> Run | None:
        """Counted run whose weights this run started from."""
        return next((other for other in self.runs if other.name == run.starts_from), None)

    def root(self, run: Run) -> Run | None:
        """First run of the chain of starts: one of the base arm, or one that continues no run."""
        while run.arm != self.base and run.starts_from is not None:
            parent = self.parent(run)
            if parent is None:
                return None
            run = parent
        return run

    def start(self, run: Run) -> Evaluation | None:
        """Start of a chain of runs: the end of a run of the base arm, or the evaluation before the
        first step of its root, unless its end was measured on other text. None if it is missing.
        """
        root = self.root(run)
        if root is None:
            return None
        if root.arm == self.base:
            return root.final
        first = root.evaluations[0]
        return first if first.step == 0 and not run.documents else None

    @cached_property
    def shared_seeds(self) -> frozenset[int]:
        """Seeds that every arm with a counted run has."""
        seeds = [frozenset(self.of(arm)) for arm in self.arms if self.of(arm)]
        return frozenset.intersection(*seeds) if seeds else frozenset()

    def history(self, run: Run) -> Run:
        """The run joined with its predecessors since the base."""
        parent = self.parent(run)
        if parent is None or parent.arm == self.base or run.arm == self.base:
            return run
        before = self.history(parent)
        shift = before.final.step
        later = [replace(e, step=e.step + shift) for e in run.evaluations if e.step > 0]
        borders = (*before.borders, shift, *(step + shift for step in run.borders))
        return replace(run, evaluations=(*before.evaluations, *later), borders=borders)


def build_study(
    runs: Sequence[Run],
    *,
    base: str,
    arms: Collection[str] = (),
    seeds: Collection[int] = (),
    arm_seeds: Mapping[str, Collection[int]] | None = None,
) -> Study:
    """Counted, excluded and missing runs of a study.

    Args:
        arms, seeds: planned ones, in addition to those of the runs.
        arm_seeds: all planned seeds of some arms; they are not expected of other arms.

    Raises:
        ValueError: `arm_seeds` names an unknown arm, or omits a seed that has a run.
    """
    own = arm_seeds or {}
    _check_arm_seeds(own, runs, arms)
    measured = any(run.documents for run in runs)
    excluded = {run.name: reason for run in runs if (reason := _reason_to_exclude(run, measured))}
    counted = tuple(run for run in runs if run.name not in excluded)
    planned = [run for run in runs if run.planned]
    all_arms = sorted({*arms, *(run.arm for run in planned)})
    all_seeds = sorted({*seeds, *(run.seed for run in planned if run.arm not in own)})
    there = {(run.arm, run.seed) for run in runs}
    expected = [(a, s) for a in all_arms for s in sorted(own.get(a, all_seeds))]
    missing = [pair for pair in expected if pair not in there]
    order = [*arms, *sorted({run.arm for run in runs} - {*arms, base}, key=_natural)]
    if base not in arms and any(run.arm == base for run in runs):
        order.insert(0, base)
    study = Study(counted, excluded, (), tuple(order), base)
    # One base may serve several seeds.
    unserved = {run.seed for run in counted if study.start(run) is None}
    served = {run.seed for run in counted} - unserved
    missing = [(a, s) for a, s in missing if a != base or s not in served]
    return replace(study, missing=tuple(missing))


def _check_arm_seeds(
    arm_seeds: Mapping[str, Collection[int]], runs: Sequence[Run], arms: Collection[str]
) -> None:
    known = {*arms, *(run.arm for run in runs)}
    for arm, seeds in arm_seeds.items():
        if arm not in known:
            raise ValueError(
                f"arm_seeds.{arm}: no such arm; the arms are {', '.join(sorted(known))} (arms= "
                "adds planned arms without a run)"
            )
        for run in runs:
            if run.arm == arm and run.seed not in seeds:
                raise ValueError(
                    f"arm_seeds.{arm}={seeds}: {run.name} has seed {run.seed}; add it, or omit "
                    "the run from runs="
                )


def _natural(name: str) -> list[tuple[bool, float, str]]:
    """Sort key that orders numbers in names by their value."""
    parts = re.split(r"(\d+(?:\.\d+)?)", name)
    return [(True, float(p), "") if p[:1].isdigit() else (False, 0.0, p) for p in parts]


def _reason_to_exclude(run: Run, measured: bool) -> str | None:
    if not run.evaluations:
        return "unfinished: no evaluation yet"
    if not run.finished:
        return f"unfinished: last evaluated at step {run.final.step}"
    if measured and not run.documents:
        return "not measured, unlike others: it has no documents.json (python -m scripts.measure)"
    sets = [name for side in SIDES for name in run.sides[side]]
    wrong = [name for name in sets if not math.isfinite(run.final.bits[name])]
    if wrong:
        return f"diverged: the last loss of {', '.join(wrong)} is not finite"
    return None
