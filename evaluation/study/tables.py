"""Tables of a report; every verdict follows from the numbers in its row.

docs/howto/report.md explains the columns.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

from evaluation.statistics import Interval, PairedT
from evaluation.study.compare import (
    ArmComparison,
    ArmSummary,
    Method,
    compare_arms,
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
    "mean": "mean over held-out sets of their bits per byte",
    "pooled": "all nats over all bytes, in bits",
}
RECALL = {"margin": "margin, nats per byte", "accuracy": "share known"}


def describe_arms(study: Study, summaries: Sequence[ArmSummary], method: Method) -> list[Block]:
    """One row per arm: levels, and changes since the start."""
    sides = next(run.sides for run in study.runs)
    sets = "; ".join(f"{side}: {', '.join(sides[side]) or 'no set'}" for side in SIDES)
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
        f"Outcome of a side ({sets}): {OUTCOME[method.outcome]}, after the last step; lower is "
        "better. Forgetting and learning are changes since the start, over the seeds that all "
        f"arms have. Means over seeds with {method.confidence:.0%} intervals (Student's t).",
        Table(header, tuple(rows)),
    ]


def describe_gaps(study: Study) -> list[Block]:
    """Missing and excluded runs, and runs without a starting point."""
    gaps = [(f"{arm}, seed {seed}", "no run") for arm, seed in study.missing]
    gaps += [(name, f"not counted; {reason}") for name, reason in study.excluded.items()]
    gaps += [
        (run.name, f"no change computed: no run {run.starts_from}, or no start of it")
        for run in study.runs
        if study.start(run) is None
    ]
    if not gaps:
        return [Heading("Completeness"), "Every run of every arm and seed is present and finished."]
    return [Heading("Completeness"), Table(("run", "problem"), tuple(gaps))]


def describe_plan(
    arm_seeds: Mapping[str, Sequence[int]], grown_from: Mapping[str, str]
) -> list[Block]:
    """Arms with their own seeds, and starting models that were made of a run."""
    rows = [
        (arm, f"planned with seeds {', '.join(map(str, sorted(seeds)))}")
        for arm, seeds in arm_seeds.items()
    ]
    rows += [(folder, f"made of run {run}") for folder, run in grown_from.items()]
    return [Table(("arm or model", "plan"), tuple(rows))] if rows else []


def describe_knowledge(study: Study, confidence: float) -> list[Block]:
    """Margin and share known, of invented and of real facts: a row per arm, by exposures."""
    blocks: list[Block] = []
    for invented in (True, False):
        found = {
            arm: recall(study, arm, invented=invented, confidence=confidence) for arm in study.arms
        }
        facts = {r.exposures: r.facts for known in found.values() for r in known}
        header = ("arm", *(f"shown {n} times ({facts[n]} facts)" for n in sorted(facts)))
        for field, title in RECALL.items() if facts else ():
            rows = []
            for arm, known in found.items():
                cells = {r.exposures: _estimate(getattr(r, field), signed=False) for r in known}
                if cells:
                    rows.append((arm, *(cells.get(n, NONE) for n in sorted(facts))))
            kind = "Invented" if invented else "Real"
            blocks += [f"{kind} facts, {title}:", Table(header, tuple(rows))]
    return [Heading("Knowledge"), *blocks] if blocks else []


def describe_primary(
    candidate: str, control: str, margin: float, primary: Sequence[ArmComparison]
) -> list[Block]:
    """The two hypotheses that were fixed beforehand; the claim needs both."""
    found = {c.side: c for c in primary}
    title = Heading(f"Primary: {candidate} against {control}")
    if "domain" not in found or "general" not in found:
        return [
            title,
            f"Not computed: {candidate} and {control} have no finished run with the same seed, or "
            "one side has no held-out set.",
        ]
    domain, general = found["domain"], found["general"]
    learned = superiority(domain.found.interval)
    kept = non_inferiority(general.found.interval, margin)
    also = "; superior" if superiority(general.found.interval) == "superior" else ""
    both = learned == "superior" and kept == "non-inferior"
    return [
        title,
        _table([domain, general], [learned, kept + also]),
        f"Claim (superior on the domain, and non-inferior on general text by {margin:g} bits per "
        f"byte): {'shown' if both else 'not shown'}.",
    ]


def describe_sets(
    study: Study,
    candidate: str,
    control: str,
    primary: Sequence[ArmComparison],
    method: Method,
    other_outcome: str,
) -> list[Block]:
    """The primary difference by the other outcome and on every set; not a test."""
    if not primary:
        return []
    rows = []
    for side in reversed(SIDES):
        c = compare_arms(study, candidate, control, side, replace(method, outcome=other_outcome))
        rows.append((f"{side}, {other_outcome}", _estimate(c.found if c else None)))
    differences = set_differences(study, candidate, control, method.confidence)
    rows += [(name, _estimate(found)) for name, found in differences.items()]
    return [Table(("outcome or set", f"{candidate} minus {control} (no test)"), tuple(rows))]


def describe_comparisons(
    candidate: str, margin: float, secondary: Sequence[ArmComparison], method: Method
) -> list[Block]:
    """The candidate against each other arm, on both sides, as one family after Holm."""
    title = Heading(f"Secondary: {candidate} against each other arm")
    if not secondary:
        return [title, f"Nothing to compare: no other arm shares a seed with {candidate}."]
    verdicts = []
    for c in secondary:
        assert c.adjusted is not None
        verdict = superiority(c.found.interval)
        if c.adjusted[0] is None or c.adjusted[0] >= 1 - method.confidence:
            verdict = "not shown"
        if c.side == "general":
            verdict += f"; {non_inferiority(c.found.interval, margin)} (uncorrected)"
        verdicts.append(verdict)
    return [title, _table(secondary, verdicts)]


def _table(comparisons: Sequence[ArmComparison], verdicts: Sequence[str]) -> Table:
    header = ("against", "side", "seeds", "difference, t over seeds", "seeds and documents")
    header += ("p (t)", "Holm", "p (signs)", "Holm", "verdict")
    rows = []
    for c, verdict in zip(comparisons, verdicts, strict=True):
        student, signs = c.adjusted or (None, None)
        documents = _interval(c.over_documents) if c.over_documents else NONE
        tests = (_p(c.found.p), _p(student), _p(c.signs), _p(signs))
        seeds = str(len(c.seeds))
        if c.alone:
            seeds += f" (unpaired: {', '.join(map(str, c.alone))})"
        if c.found.p is None:
            verdict += " (one seed)" if len(c.seeds) == 1 else " (equal for all seeds)"
        rows.append((c.other, c.side, seeds, _estimate(c.found), documents, *tests, verdict))
    return Table(header, tuple(rows))


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
