"""Report of a study: table.md, comparisons.md, pictures and report.html.

The report is a function of the run folders and `ReportConfig`: the same input gives the same bytes.
"""

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from evaluation.study.compare import (
    ArmComparison,
    ArmSummary,
    Method,
    adjust,
    compare_arms,
    recall,
    summarize_arm,
)
from evaluation.study.plots import (
    draw_border,
    draw_forest,
    draw_forgetting,
    draw_frontier,
    draw_recall,
    numbered_curves,
)
from evaluation.study.render import Block, Heading, Picture, to_html, to_markdown
from evaluation.study.runs import OUTCOMES, SIDES, find_runs, read_runs, trace_back
from evaluation.study.study import Study, build_study
from evaluation.study.tables import (
    describe_arms,
    describe_comparisons,
    describe_gaps,
    describe_knowledge,
    describe_plan,
    describe_primary,
    describe_sets,
)
from storage.atomic import write_atomically


@dataclass(kw_only=True)
class ReportConfig:
    """Runs to compare, and the plan of the comparison."""

    runs: Any
    """A folder of runs, or a list of run folders."""
    out: str
    """Folder of the report; an earlier report in it is replaced."""
    base: str = "base"
    """Arm that the others start from; changes are against it. Without it, changes are against the
    evaluation before the first step of each run."""
    candidate: str = "tspt"
    """Arm that is compared with each other arm."""
    control: str = "one_stage"
    """Arm of the primary comparison."""
    margin: float = 0.005
    """Largest acceptable loss on general text, in bits per byte (margin of non-inferiority)."""
    outcome: str = "mean"
    """One number for the held-out sets of a side: `mean` (unweighted mean of their bits per byte)
    or `pooled` (all nats over all bytes)."""
    arms: list[str] = field(default_factory=list)
    """Planned arms, in the order of the report; any without a run is listed as missing."""
    seeds: list[int] = field(default_factory=list)
    """Further planned seeds; the seeds of the runs are always expected of every arm."""
    arm_seeds: dict[str, list[int]] = field(default_factory=dict, metadata={"free_keys": True})
    """Seeds of arms that were planned with other seeds than the rest."""
    grown_from: dict[str, str] = field(default_factory=dict, metadata={"free_keys": True})
    """Starting models that are not runs (such as a model with a grown vocabulary), and the run that
    each was made of; changes are then against the start of that run."""
    curves: list[list[str]] = field(default_factory=list)
    """Arms joined by a line in frontier.png, line by line; empty: arms of a study that differ in a
    number at the end of their names."""
    confidence: float = 0.95
    """Confidence of all intervals; the level of the tests is 1 minus it."""
    samples: int = 10_000
    """Samples of each bootstrap."""
    seed: int = 0
    """Seed of the bootstraps."""

    def __post_init__(self) -> None:
        several = isinstance(self.runs, list) and all(isinstance(r, str) for r in self.runs)
        if not several and not isinstance(self.runs, str):
            raise ValueError(f"runs={self.runs!r}: a folder, or a list as in runs='[a,b]'")
        if not self.out:
            raise ValueError("out='': name the folder that the report is written to")
        if self.outcome not in OUTCOMES:
            raise ValueError(f"outcome={self.outcome!r}: one of {', '.join(OUTCOMES)}")
        if not 0 <= self.margin < math.inf:
            raise ValueError(f"margin={self.margin}: must be finite and 0 or more")
        if not 0 < self.confidence < 1:
            raise ValueError(f"confidence={self.confidence}: must be between 0 and 1")
        if self.samples < 100:
            raise ValueError(f"samples={self.samples}: must be at least 100")
        if self.seed < 0:
            raise ValueError(f"seed={self.seed}: must be 0 or more")
        if self.candidate in (self.control, self.base):
            raise ValueError(f"candidate={self.candidate}: must be neither control nor base")
        if len(set(self.arms)) < len(self.arms):
            raise ValueError(f"arms={self.arms}: name each arm once")
        for name, seeds in {"seeds": self.seeds, **self._own_seeds}.items():
            if len(set(seeds)) < len(seeds) or min(seeds, default=0) < 0:
                raise ValueError(f"{name}={seeds}: must be numbers from 0 up, each once")
        for name, seeds in self._own_seeds.items():
            if not seeds:
                raise ValueError(f"{name}=[]: give its seeds, or leave the arm out of arm_seeds")

    @property
    def _own_seeds(self) -> dict[str, list[int]]:
        return {f"arm_seeds.{arm}": seeds for arm, seeds in self.arm_seeds.items()}

    @property
    def method(self) -> Method:
        """Formation of outcomes and intervals."""
        return Method(self.outcome, self.confidence, self.samples, self.seed)


@dataclass(frozen=True)
class Report:
    """Content of a report before it is written."""

    table: list[Block]
    comparisons: list[Block]
    pictures: list[Picture]

    def write(self, out: Path) -> None:
        """Write all files; report.html last.

        Raises:
            ValueError: `out` cannot be a folder.
        """
        try:
            out.mkdir(parents=True, exist_ok=True)
        except (FileExistsError, NotADirectoryError):
            raise ValueError(f"out={out} cannot be a folder; name another") from None
        for picture in self.pictures:
            (out / picture.file).write_bytes(picture.png)
        write_atomically(out / "table.md", to_markdown(self.table))
        write_atomically(out / "comparisons.md", to_markdown(self.comparisons))
        blocks = [*self.table, *self.comparisons, Heading("Pictures"), *self.pictures]
        write_atomically(out / "report.html", to_html("Report", blocks))


def read_planned(config: ReportConfig) -> Study:
    """Study of a configuration.

    Raises:
        ValueError: a run cannot be read, or none of them can be counted.
    """
    runs = trace_back(read_runs(find_runs(config.runs)), config.grown_from)
    planned = any(run.planned for run in runs)
    there = {run.arm for run in runs}
    leading = [a for a in (config.candidate, config.control) if planned or a in there]
    arms = [*config.arms, *(arm for arm in leading if arm not in config.arms)]
    study = build_study(
        runs, base=config.base, arms=arms, seeds=config.seeds, arm_seeds=config.arm_seeds
    )
    if not study.runs:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in study.excluded.items())
        raise ValueError(f"runs={config.runs}: no run can be counted ({reasons})")
    if unknown := {arm for curve in config.curves for arm in curve} - set(study.arms):
        raise ValueError(
            f"curves: no arm {', '.join(sorted(unknown))}; there are {', '.join(study.arms)}"
        )
    return study


@dataclass(frozen=True)
class Analysis:
    """Numbers of a report.

    Attributes:
        summaries: of every arm.
        primary: candidate against control, on each side that both have.
        secondary: candidate against the other arms, adjusted as one family.
    """

    summaries: list[ArmSummary]
    primary: list[ArmComparison]
    secondary: list[ArmComparison]


def build_report(config: ReportConfig, study: Study) -> Report:
    """Compute a report without writing it."""
    found = analyse(config, study)
    return Report(
        table_page(config, study, found),
        comparisons_page(config, study, found),
        draw_pictures(config, study, found),
    )


def analyse(config: ReportConfig, study: Study) -> Analysis:
    """Summarize every arm and compare the candidate with each other arm."""
    method = config.method
    found = {
        arm: [
            c for side in SIDES if (c := compare_arms(study, config.candidate, arm, side, method))
        ]
        for arm in study.arms
        if arm != config.candidate
    }
    primary = found.pop(config.control, [])
    return Analysis(
        [summarize_arm(study, arm, method) for arm in study.arms],
        primary,
        adjust([c for comparisons in found.values() for c in comparisons], config.base),
    )


def table_page(config: ReportConfig, study: Study, found: Analysis) -> list[Block]:
    """Page of arms, gaps and knowledge."""
    return [
        Heading("Arms", 1),
        *describe_arms(study, found.summaries, config.method),
        *describe_gaps(study),
        *describe_plan(config.arm_seeds, config.grown_from),
        *describe_knowledge(study, config.confidence),
    ]


def comparisons_page(config: ReportConfig, study: Study, found: Analysis) -> list[Block]:
    """Page of the candidate against the other arms."""
    candidate, control, title = config.candidate, config.control, Heading("Comparisons", 1)
    if not study.of(candidate):
        absent = f"No counted run belongs to arm {candidate}, so nothing is compared"
        return [title, f"{absent}; choose another candidate="]
    other_outcome = next(name for name in OUTCOMES if name != config.outcome)
    return [
        title,
        f"Differences are {candidate} minus the other arm, in bits per byte, paired by seed: below "
        f"0 favours {candidate}. Intervals: {config.confidence:.0%}; bootstrap: {config.samples:,} "
        f"samples, seed {config.seed}.",
        *describe_primary(candidate, control, config.margin, found.primary),
        *describe_sets(study, candidate, control, found.primary, config.method, other_outcome),
        *describe_comparisons(candidate, config.margin, found.secondary, config.method),
    ]


def draw_pictures(config: ReportConfig, study: Study, found: Analysis) -> list[Picture]:
    """Pictures that have content."""
    planned = [arm for arm in study.arms if any(run.planned for run in study.of(arm).values())]
    curves = config.curves or numbered_curves(planned)
    known = {
        arm: recall(study, arm, invented=True, confidence=config.confidence) for arm in study.arms
    }
    share = f"{config.confidence:.0%}"
    drawn = [
        (
            "differences.png",
            f"Paired differences with {share} intervals: Student's over seeds (black), and over "
            "seeds and documents (orange). The dashed line is the margin of non-inferiority. The "
            "base is only in the table.",
            draw_forest(
                [c for c in (*found.primary, *found.secondary) if c.other != config.base],
                config.margin,
            ),
        ),
        (
            "frontier.png",
            "Learning against forgetting: lower left is better. Small points are seeds that all "
            "arms have, lines are their spread; dotted lines join arms that differ in a number.",
            draw_frontier(found.summaries, curves),
        ),
        (
            "border.png",
            "Held-out loss around the step at which the last stage begins, mean over seeds.",
            draw_border(study, config.outcome),
        ),
        (
            "forgetting.png",
            "Change of every held-out set since the start, mean over seeds.",
            draw_forgetting(study),
        ),
        (
            "exposures.png",
            f"Invented facts by how often training showed them, mean over seeds with {share} "
            "intervals over seeds; facts with 0 are controls.",
            draw_recall(known),
        ),
    ]
    return [Picture(name, caption, png) for name, caption, png in drawn if png is not None]
