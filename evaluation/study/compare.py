"""Arms of a study against their start, and one arm against each other arm, seed by seed.

All figures are bits per UTF-8 byte of held-out text: lower is better, and a difference below 0
favours the arm that is compared.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from evaluation.statistics import (
    Interval,
    PairedT,
    hierarchical_bootstrap,
    holm,
    paired_t,
    sign_flip_test,
)
from evaluation.study.runs import SIDES, Run
from evaluation.study.study import Study

DIGITS = 12
"""Decimals of a difference in bits per byte; further ones are rounding of sums."""


@dataclass(frozen=True)
class Method:
    """Formation of outcomes and of their intervals.

    Attributes:
        outcome: one of `runs.OUTCOMES`.
        samples, seed: of every bootstrap.
    """

    outcome: str
    confidence: float
    samples: int
    seed: int


@dataclass(frozen=True)
class ArmSummary:
    """Outcome of an arm.

    Attributes:
        rates: peak learning rates of its runs.
        levels: bits per byte of each side; None without a held-out set.
        changes: levels minus those of the start; None where the start is unknown.
        points: seed -> side -> change.

    Changes are over the seeds that all arms have, if there are any: further seeds of one arm would
    compare bases rather than arms.
    """

    arm: str
    seeds: tuple[int, ...]
    rates: tuple[float, ...]
    levels: dict[str, PairedT | None]
    changes: dict[str, PairedT | None]
    points: dict[int, dict[str, float]]


def summarize_arm(study: Study, arm: str, method: Method) -> ArmSummary:
    """Means over the seeds of an arm, with Student's intervals."""
    runs = study.of(arm)
    levels = {seed: _sides(run, method.outcome) for seed, run in runs.items()}
    points = {}
    for seed, run in runs.items():
        start = study.start(run)
        if start is not None and seed in (study.shared_seeds or runs):
            before = {side: start.side(run.sides[side], method.outcome) for side in SIDES}
            points[seed] = {side: levels[seed][side] - before[side] for side in SIDES}
    return ArmSummary(
        arm,
        tuple(runs),
        tuple(sorted({run.lr for run in runs.values()})),
        {side: _estimate([level[side] for level in levels.values()], method) for side in SIDES},
        {side: _estimate([point[side] for point in points.values()], method) for side in SIDES},
        points,
    )


def _sides(run: Run, outcome: str) -> dict[str, float]:
    return {side: run.final.side(run.sides[side], outcome) for side in SIDES}


def _estimate(values: Sequence[float], method: Method) -> PairedT | None:
    if not values or not all(map(math.isfinite, values)):
        return None
    return paired_t(values, method.confidence)


@dataclass(frozen=True)
class ArmComparison:
    """One arm minus another on one side, over the seeds that both have.

    Attributes:
        seeds: in common.
        alone: seeds of only one of the two arms.
        found: mean, Student's interval and p of the paired differences.
        over_documents: interval over seeds and documents; None: a run has no documents.json, or
            nothing varies over seeds and documents.
        signs: p of the sign-flip test.
        adjusted: p of Student's test, and of the sign flips, after Holm; None outside a family.
            Student's p is None where it is not defined.
    """

    arm: str
    other: str
    side: str
    seeds: tuple[int, ...]
    alone: tuple[int, ...]
    found: PairedT
    over_documents: Interval | None
    signs: float
    adjusted: tuple[float | None, float] | None = None


def compare_arms(
    study: Study, arm: str, other: str, side: str, method: Method
) -> ArmComparison | None:
    """Pair two arms by seed; None without a common seed or a held-out set on that side."""
    ours, theirs = study.of(arm), study.of(other)
    if other == study.base:
        # One base may serve several seeds.
        roots = {seed: study.root(run) for seed, run in ours.items()}
        theirs |= {seed: root for seed, root in roots.items() if root and root.arm == other}
    seeds = sorted(ours.keys() & theirs.keys())
    levels = [[_sides(runs[s], method.outcome)[side] for s in seeds] for runs in (ours, theirs)]
    differences = [round(a - b, DIGITS) for a, b in zip(*levels, strict=True)]
    found = _estimate(differences, method)
    if found is None:
        return None
    return ArmComparison(
        arm,
        other,
        side,
        tuple(seeds),
        tuple(sorted(ours.keys() ^ theirs.keys())),
        found,
        _over_documents([(ours[s], theirs[s]) for s in seeds], side, method),
        sign_flip_test(differences, seed=method.seed),
    )


def _over_documents(pairs: Sequence[tuple[Run, Run]], side: str, method: Method) -> Interval | None:
    sets = pairs[0][0].sides[side]
    if any(name not in run.documents for pair in pairs for run in pair for name in sets):
        return None
    first = pairs[0][0].documents
    values = [
        np.concatenate([a.documents[n][:, 0] - b.documents[n][:, 0] for n in sets])
        for a, b in pairs
    ]
    strata = [name for name in sets for _ in first[name]]
    interval = hierarchical_bootstrap(
        np.stack(values) / math.log(2),
        sizes=np.concatenate([first[name][:, 1] for name in sets]),
        strata=strata if method.outcome == "mean" else None,
        seed=method.seed,
        samples=method.samples,
        confidence=method.confidence,
    )
    # Without spread every resample is equal, which gives no evidence about other documents.
    return interval if interval.high - interval.low > 10**-DIGITS else None


def adjust(family: Sequence[ArmComparison], base: str) -> list[ArmComparison]:
    """Comparisons with p adjusted after Holm over the arms, separately for each side.

    The comparison with the base, which tests if anything was learned, is not adjusted. A test that
    is not defined counts in the family as p = 1.
    """
    adjusted = {(c.other, c.side): (c.found.p, c.signs) for c in family}
    for side in SIDES:
        arms = [c for c in family if c.side == side and c.other != base]
        student = holm({c.other: 1.0 if c.found.p is None else c.found.p for c in arms})
        signs = holm({c.other: c.signs for c in arms})
        for c in arms:
            defined = c.found.p is not None
            adjusted[c.other, side] = student[c.other] if defined else None, signs[c.other]
    return [replace(c, adjusted=adjusted[c.other, c.side]) for c in family]


def set_differences(
    study: Study, arm: str, other: str, confidence: float
) -> dict[str, PairedT | None]:
    """Paired difference on every held-out set of both sides."""
    ours, theirs = study.of(arm), study.of(other)
    seeds = sorted(ours.keys() & theirs.keys())
    sets = [n for side in SIDES for n in ours[seeds[0]].sides[side]] if seeds else []
    return {
        name: paired_t(
            [round(ours[s].final.bits[name] - theirs[s].final.bits[name], DIGITS) for s in seeds],
            confidence,
        )
        for name in sets
    }


def superiority(interval: Interval) -> str:
    """Verdict of an interval of a difference, where lower is better."""
    if interval.high < 0:
        return "superior"
    return "inferior" if interval.low > 0 else "not shown"


def non_inferiority(interval: Interval, margin: float) -> str:
    """Verdict of an interval of a difference against the largest acceptable loss.

    The upper limit of a two-sided interval is used: at 95 % the risk of a false verdict
    `non-inferior` is 2.5 %.
    """
    if interval.high < margin:
        return "non-inferior"
    return "inferior by more than the margin" if interval.low > margin else "not shown"


@dataclass(frozen=True)
class Recall:
    """Knowledge of facts that training showed equally often.

    Attributes:
        exposures: number of documents that state such a fact.
        facts: number of questions in each run.
        margin: nats per byte between the right ending and the best wrong one; over seeds.
        accuracy: over seeds.
    """

    exposures: int
    facts: int
    margin: PairedT
    accuracy: PairedT


def recall(study: Study, arm: str, *, invented: bool, confidence: float) -> list[Recall]:
    """Recall by exposures, of invented or of real facts, over seeds with probes."""
    asked = [[p for p in run.probes if p.invented == invented] for run in study.of(arm).values()]
    asked = [probes for probes in asked if probes]
    found = []
    for exposures in sorted({p.exposures for probes in asked for p in probes}):
        own = [[p for p in probes if p.exposures == exposures] for probes in asked]
        own = [probes for probes in own if probes]
        margins = [float(np.mean([p.margin for p in probes])) for probes in own]
        shares = [float(np.mean([p.correct for p in probes])) for probes in own]
        estimates = paired_t(margins, confidence), paired_t(shares, confidence)
        found.append(Recall(exposures, max(map(len, own)), *estimates))
    return found
