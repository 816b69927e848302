"""What a study has found, in words and tables; every verdict is derived from its numbers."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

from evaluation.statistics import EXACT_SIGNS, Interval, PairedT
from evaluation.study.compare import (
    Comparison,
    Method,
    Summary,
    compare,
    non_inferiority,
    recall,
    set_differences,
    superiority,
)
from evaluation.study.render import Block, Heading, Table
from evaluation.study.runs import SIDES
from evaluation.study.study import Study

NONE = "-"
OUTCOME = {
    "mean": "the plain mean of its held-out sets' bits per UTF-8 byte",
    "pooled": "all nats of its held-out sets over all their UTF-8 bytes, in bits",
}
RECALL = {
    "margin": "margin in nats per byte",
    "accuracy": "share known",
}


def describe_arms(study: Study, summaries: Sequence[Summary], method: Method) -> list[Block]:
    """One row per arm: levels, and changes since the start."""
    sides = next(run.sides for run in study.runs)
    sets = "; ".join(f"{side}: {', '.join(sides[side]) or 'no set'}" for side in SIDES)
    base = any(run.arm == study.base for run in study.runs)
    start = (
        f"the run of {study.base} that a run goes back to"
        if base
        else "what a run, or the first of the runs it continues, evaluated before its first step"
    )
    header = ("arm", "seeds", "lr", *(f"{side} bits per byte" for side in SIDES))
    header += ("forgetting (general)", "learning (domain)")
    rows = [
        (
            s.arm,
            str(len(s.seeds)),
            ", ".join(f"{rate:g}" for rate in s.rates) or NONE,
            *(_estimate(s.levels[side], signed=False) for side in SIDES),
            *(_estimate(s.changes[side]) if s.arm != study.base else NONE for side in SIDES),
        )
        for s in summaries
    ]
    return [
        f"The outcome of a side is {OUTCOME[method.outcome]} after the last step ({sets}); less is "
        f"better. Forgetting and learning are its change against {start}: above 0 the general side "
        "has forgotten, below 0 the domain side has learnt. Changes are over the seeds that all "
        "arms have, where there are any.",
        Table(header, tuple(rows)),
        f"Means over seeds with {method.confidence:.0%} intervals (Student's t over seeds); with "
        "one seed there is none.",
    ]


def describe_gaps(study: Study) -> list[Block]:
    """What is missing, left out, or without a starting point."""
    gaps = [(f"{arm}, seed {seed}", "no run") for arm, seed in study.missing]
    gaps += [(name, f"not counted; {reason}") for name, reason in study.excluded.items()]
    gaps += [
        (run.name, f"no change computed: {run.starts_from} or what it began from is not there")
        for run in study.runs
        if study.start(run) is None
    ]
    if not gaps:
        return [Heading("Completeness"), "Every run of every arm and seed is there and finished."]
    return [Heading("Completeness"), Table(("run", "what is wrong"), tuple(gaps))]


def describe_plan(
    arm_seeds: Mapping[str, Sequence[int]], grown_from: Mapping[str, str]
) -> list[Block]:
    """What the plan says of single arms and folders, where it does."""
    arms: dict[tuple[int, ...], list[str]] = {}
    for arm, seeds in arm_seeds.items():
        arms.setdefault(tuple(sorted(seeds)), []).append(arm)
    blocks: list[Block] = [
        f"Planned with no other seeds than {', '.join(map(str, seeds))}: {', '.join(names)}."
        for seeds, names in arms.items()
    ]
    if grown_from:
        pairs = ", ".join(f"{folder} of {run}" for folder, run in grown_from.items())
        blocks.append(
            f"Models that runs began from and that were made of a run: {pairs}. Changes are those "
            "since that run, the making included; the curves of forgetting.png begin after it."
        )
    return blocks


def describe_knowledge(study: Study, confidence: float) -> list[Block]:
    """Margin and share known, of invented and of real facts: a row per arm, by exposures."""
    blocks: list[Block] = []
    for invented in (True, False):
        found = {arm: recall(study, arm, invented=invented, confidence=confidence)
                 for arm in study.arms}  # fmt: skip
        facts = {r.exposures: r.facts for known in found.values() for r in known}
        header = ("arm", *(f"shown {n} times ({facts[n]} facts)" for n in sorted(facts)))
        for what in ("margin", "accuracy") if facts else ():
            rows = []
            for arm, known in found.items():
                cells = {r.exposures: _estimate(getattr(r, what), signed=False) for r in known}
                if cells:
                    rows.append((arm, *(cells.get(n, NONE) for n in sorted(facts))))
            kind = "Invented" if invented else "Real"
            blocks += [f"{kind} facts, {RECALL[what]}:", Table(header, tuple(rows))]
    if not blocks:
        return []
    return [
        Heading("Knowledge"),
        "A fact is known if its right ending is likelier per byte than every wrong one; the margin "
        "is by how much. What was shown 0 times is a control. Intervals are over seeds.",
        *blocks,
    ]


def describe_primary(
    candidate: str,
    control: str,
    margin: float,
    primary: Sequence[Comparison],
) -> list[Block]:
    """The two hypotheses fixed beforehand, and whether both hold."""
    found = {c.side: c for c in primary}
    blocks: list[Block] = [Heading(f"Primary: {candidate} against {control}")]
    if "domain" not in found or "general" not in found:
        return [
            *blocks,
            f"Not computed: {candidate} and {control} have no finished run with the same seed, or "
            "one side has no held-out set.",
        ]
    domain, general = found["domain"], found["general"]
    learnt = superiority(domain.found.interval)
    kept = non_inferiority(general.found.interval, margin)
    better = superiority(general.found.interval)
    also = " (and superior)" if better == "superior" else ""
    both = learnt == "superior" and kept == "non-inferior"
    conclusion = (
        f"Both hold: {candidate} learns more of the domain than {control} and keeps as much."
    )
    if not both:
        conclusion = (
            f"Not both hold: that {candidate} is to be preferred to {control} is not shown."
        )
    return [
        *blocks,
        f"Hypotheses: on the domain {candidate} has fewer bits per byte than {control} "
        f"(superiority); on general text it has at most {margin:g} more (non-inferiority). The "
        "claim needs both, so neither is corrected for the other. Runs are paired by seed: the "
        "same base, the same data order.",
        _table([domain, general], [learnt, kept + also]),
        f"Domain: {learnt}. General: {kept}{also}, margin {margin:g}. {conclusion}",
        *_undefined([domain, general]),
        *_unpaired([domain]),
    ]


def describe_sets(
    study: Study,
    candidate: str,
    control: str,
    primary: Sequence[Comparison],
    method: Method,
    other_outcome: str,
) -> list[Block]:
    """The primary comparison by the other outcome and on every set, as a look and not a test."""
    if not primary:
        return []
    rows = []
    for side in reversed(SIDES):
        c = compare(study, candidate, control, side, replace(method, outcome=other_outcome))
        rows.append((f"{side}, {other_outcome}", _estimate(c.found if c else None)))
    differences = set_differences(study, candidate, control, method.confidence)
    rows += [(name, _estimate(found)) for name, found in differences.items()]
    return [
        f"The same difference where a side is {OUTCOME[other_outcome]}, and on each set by itself; "
        "not corrected for their number:",
        Table(("outcome", f"{candidate} less {control}"), tuple(rows)),
    ]


def describe_comparisons(
    candidate: str, margin: float, secondary: Sequence[Comparison], method: Method
) -> list[Block]:
    """The candidate against each other arm, on both sides, as one family after Holm."""
    blocks: list[Block] = [Heading(f"Secondary: {candidate} against each other arm")]
    if not secondary:
        return [*blocks, f"Nothing to compare: no other arm shares a seed with {candidate}."]
    verdicts = []
    for c in secondary:
        assert c.adjusted is not None
        verdict = superiority(c.found.interval)
        if c.adjusted[0] is None or c.adjusted[0] >= 1 - method.confidence:
            verdict = "not shown"
        if c.side == "general":
            verdict += f"; {non_inferiority(c.found.interval, margin)} (uncorrected)"
        verdicts.append(verdict)
    return [
        *blocks,
        f"{len(secondary)} tests of no difference, corrected over the arms by Holm's method, each "
        "side by itself, that against the base left as it is. A verdict of superior or inferior "
        f"needs an adjusted p of Student's test below {1 - method.confidence:.2g}. On general text "
        f"the second verdict is whether {candidate} is worse by less than {margin:g}.",
        _table(secondary, verdicts),
        *_undefined(secondary),
        *_unpaired(secondary),
    ]


def describe_method(method: Method) -> list[Block]:
    """How the figures came about."""
    return [
        Heading("How it was computed"),
        "Differences are the first arm less the other, run by run of the same seed, in bits per "
        "byte: below 0 speaks for the first.",
        f"Intervals cover {method.confidence:.0%}. `t over seeds` is Student's for the paired "
        "differences, from which verdicts are derived; it takes them for normal, which a handful "
        "of seeds cannot prove. `seeds and documents` is a bootstrap that draws seeds and, crossed "
        f"with them, held-out documents anew ({method.samples:,} samples, seed {method.seed}); "
        "with few seeds it is too narrow. A dash: some run has no documents.json.",
        "`p (signs)` counts all ways to flip the signs of the differences (random ones beyond "
        f"{EXACT_SIGNS} seeds) and assumes no normality; with n seeds it cannot be below 2 / 2^n: "
        "0.25 with three, 0.0625 with five.",
    ]


def _table(comparisons: Sequence[Comparison], verdicts: Sequence[str]) -> Table:
    header = ("against", "side", "seeds", "difference, t over seeds", "seeds and documents")
    header += ("p (t)", "Holm", "p (signs)", "Holm", "verdict")
    rows = []
    for c, verdict in zip(comparisons, verdicts, strict=True):
        student, signs = c.adjusted or (None, None)
        documents = _interval(c.over_documents) if c.over_documents else NONE
        tests = (_p(c.found.p), _p(student), _p(c.signs), _p(signs))
        figures = (str(len(c.seeds)), _estimate(c.found), documents)
        rows.append((c.other, c.side, *figures, *tests, verdict))
    return Table(header, tuple(rows))


def _undefined(comparisons: Sequence[Comparison]) -> list[Block]:
    """Why a comparison has no interval and no p of Student's test."""
    reasons = {
        True: "there is one seed",
        False: "the difference is the same with every seed, as if they were one",
    }
    blocks: list[Block] = []
    for single, reason in reasons.items():
        named = [
            f"{c.other} ({c.side})"
            for c in comparisons
            if c.found.p is None and (len(c.seeds) == 1) == single
        ]
        if named:
            blocks.append(
                f"Student's interval and test are not defined against {', '.join(named)}: "
                f"{reason}, so that nothing tells how far that of another seed would lie from it. "
                "The sign flips need no spread."
            )
    return blocks


def _unpaired(comparisons: Sequence[Comparison]) -> list[Block]:
    alone = {c.other: c for c in comparisons if c.alone}
    return [
        f"Seeds {', '.join(map(str, c.alone))} are left out against {c.other}: only one of the two "
        "has a counted run."
        for c in alone.values()
    ]


def _estimate(found: PairedT | None, *, signed: bool = True) -> str:
    if found is None:
        return NONE
    value = f"{found.mean:+.4f}" if signed else f"{found.mean:.4f}"
    if math.isinf(found.interval.low):
        return value
    return f"{value} {_interval(found.interval, signed=signed)}"


def _interval(interval: Interval, *, signed: bool = True) -> str:
    low, high = (f"{x:+.4f}" if signed else f"{x:.4f}" for x in interval)
    return f"[{low}, {high}]"


def _p(p: float | None) -> str:
    if p is None:
        return NONE
    return "< 0.0001" if p < 0.0001 else f"{p:.4f}"
