"""Pictures of a study, each as the bytes of a PNG, or None without content."""

import io
import math
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from evaluation.statistics import Interval
from evaluation.study.compare import ArmComparison, ArmSummary, Recall
from evaluation.study.runs import SIDES, Run
from evaluation.study.study import Study

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

AXIS = {
    "general": "change of general bits per byte",
    "domain": "change of domain bits per byte",
}

LABELS = {
    "margin": "margin of the right ending, nats per byte",
    "accuracy": "share of facts known",
}

MARKERS = "os^Dv"
"""Markers; the next one is used after every ten arms, when colours repeat."""


def _figure(panels: int, height: float, *, width: float = 11, rows: int = 1) -> tuple:
    # Imported here, because importing matplotlib takes half a second.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(rows, -(-panels // rows), squeeze=False).flatten()
    for spare in axes[panels:]:
        spare.set_visible(False)
    return figure, list(axes[:panels])


def _png(figure: "Figure") -> bytes:
    stream = io.BytesIO()
    figure.savefig(stream, dpi=120, format="png", metadata={"Software": None})
    return stream.getvalue()


def _styles(arms: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Colour and marker of each arm, equal in all pictures with the same arms."""
    import matplotlib

    palette = matplotlib.colormaps["tab10"]
    return {
        arm: {"color": palette(n % 10), "marker": MARKERS[n // 10 % len(MARKERS)]}
        for n, arm in enumerate(arms)
    }


def _reach(value: float, interval: Interval) -> list[list[float]]:
    """Error bars of a value; zero without limits."""
    if not math.isfinite(interval.low):
        return [[0.0], [0.0]]
    return [[max(0.0, value - interval.low)], [max(0.0, interval.high - value)]]


def draw_forest(comparisons: Sequence[ArmComparison], margin: float) -> bytes | None:
    """Paired differences with Student's intervals, and the intervals over documents below."""
    if not comparisons:
        return None
    others = list(dict.fromkeys(c.other for c in comparisons))
    figure, panels = _figure(2, 1.8 + 0.45 * len(others))
    for axes, side in zip(panels, reversed(SIDES), strict=True):
        for c in (c for c in comparisons if c.side == side):
            place, mean = others.index(c.other), c.found.mean
            bars = _reach(mean, c.found.interval)
            axes.errorbar(mean, place, xerr=bars, fmt="o", color="black", capsize=3)
            if c.over_documents is not None:
                axes.plot(c.over_documents, [place + 0.25] * 2, color="tab:orange", linewidth=2)
        axes.axvline(0, color="gray", linewidth=0.8)
        if side == "general":
            axes.axvline(margin, color="tab:red", linestyle="--", linewidth=0.8)
        axes.set_yticks(range(len(others)), others)
        axes.set_ylim(len(others) - 0.5, -0.5)
        axes.locator_params(axis="x", nbins=6)
        axes.set(xlabel=f"{side}: {comparisons[0].arm} minus the other arm, bits per byte")
        axes.grid(alpha=0.3, axis="x")
    return _png(figure)


def draw_frontier(summaries: Sequence[ArmSummary], curves: Sequence[Sequence[str]]) -> bytes | None:
    """Learning against forgetting of each arm: a point with the spread of its seeds.

    The base, which has no change, is omitted where other arms are shown.
    """
    shown = [s for s in summaries if all(s.changes[side] is not None for side in SIDES)]
    moved = [s for s in shown if any(p[side] for p in s.points.values() for side in SIDES)]
    shown = moved or shown
    if not shown:
        return None
    figure, (axes,) = _figure(1, 6.5, width=9)
    styles, means = _styles([s.arm for s in summaries]), {}
    for s in shown:
        x, y = (np.array([p[side] for p in s.points.values()]) for side in SIDES)
        means[s.arm] = (x.mean(), y.mean())
        style = styles[s.arm]
        axes.scatter(x, y, s=10, alpha=0.5, **style)
        axes.scatter(*means[s.arm], label=s.arm, **style)
        axes.plot([x.min(), x.max()], [y.mean()] * 2, color=style["color"], linewidth=1)
        axes.plot([x.mean()] * 2, [y.min(), y.max()], color=style["color"], linewidth=1)
    for arms in curves:
        if line := [means[arm] for arm in arms if arm in means]:
            axes.plot(*zip(*line, strict=True), linestyle=":", color="gray", zorder=0)
    limits = axes.get_xlim(), axes.get_ylim()
    axes.axvline(0, color="gray", linewidth=0.8)
    axes.axhline(0, color="gray", linewidth=0.8)
    axes.set(xlim=limits[0], ylim=limits[1])
    axes.set(xlabel=f"{AXIS['general']} (forgetting)", ylabel=f"{AXIS['domain']} (learning)")
    axes.grid(alpha=0.3)
    axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), fontsize=8)
    return _png(figure)


def numbered_curves(arms: Sequence[str]) -> list[list[str]]:
    """Arms whose names differ only in a number at their end, in the order of that number."""
    families: dict[str, list[tuple[float, str]]] = {}
    for arm in arms:
        if found := re.fullmatch(r"(.*?)[_-]?(\d+(?:\.\d+)?)%?", arm):
            families.setdefault(found[1], []).append((float(found[2]), arm))
    return [
        [arm for _, arm in sorted(members)]
        for name, members in families.items()
        if name and len(members) > 1
    ]


def draw_border(study: Study, outcome: str) -> bytes | None:
    """Both sides around the first step of the last stage, mean over seeds."""
    sizes: dict[str, dict[str, int]] = {}
    lines: dict[str, dict[str, dict[int, float]]] = {}
    for arm in study.arms:
        runs = [study.history(run) for run in _shared(study, arm)]
        if arm == study.base or not runs or not all(run.borders for run in runs):
            continue
        read = runs[0].evaluations[-1].sizes
        if read != sizes.setdefault("bytes", read):
            continue  # another evaluated text has another level
        for side in SIDES:
            curves = [
                {
                    e.step - run.borders[-1]: e.side(run.sides[side], outcome)
                    for e in run.evaluations
                }
                for run in runs
            ]
            lines.setdefault(arm, {})[side] = _mean_curve(curves)
    if not lines:
        return None
    figure, panels = _figure(2, 5)
    styles = _styles(study.arms)
    reach = max(max(line, default=0) for sides in lines.values() for line in sides.values())
    for axes, side in zip(panels, SIDES, strict=True):
        for arm, sides in lines.items():
            near = {step: value for step, value in sides[side].items() if step >= -reach}
            axes.plot(*_points(near), markersize=3, linewidth=1, label=arm, **styles[arm])
        axes.axvline(0, color="gray", linewidth=0.8)
        axes.set(xlabel="steps from the stage border", ylabel=f"{side} bits per byte")
        axes.grid(alpha=0.3)
    _legend_outside(figure, panels)
    return _png(figure)


def _mean_curve(curves: Sequence[Mapping[int, float]]) -> dict[int, float]:
    """Mean over the steps that all curves have."""
    steps = sorted(set.intersection(*(set(curve) for curve in curves)))
    return {step: float(np.mean([curve[step] for curve in curves])) for step in steps}


def _points(curve: Mapping[int, float]) -> tuple[list[int], list[float]]:
    return list(curve), list(curve.values())


def draw_forgetting(study: Study) -> bytes | None:
    """Change of every held-out set since the start, by step, mean over seeds."""
    curves: dict[str, dict[str, dict[int, float]]] = {}
    for arm in study.arms:
        changes = [_changes(study, run) for run in _shared(study, arm)]
        for name in dict.fromkeys(name for change in changes for name in change):
            own = [change[name] for change in changes if name in change]
            curves.setdefault(name, {})[arm] = _mean_curve(own)
    if not curves:
        return None
    figure, panels = _figure(len(curves), 3.2 * -(-len(curves) // 3), rows=-(-len(curves) // 3))
    styles = _styles(study.arms)
    for axes, (name, arms) in zip(panels, curves.items(), strict=True):
        for arm, curve in arms.items():
            axes.plot(*_points(curve), markersize=3, linewidth=1, label=arm, **styles[arm])
        axes.axhline(0, color="gray", linewidth=0.8)
        axes.set_title(name, fontsize=10)
        axes.set(xlabel="step", ylabel="change, bits per byte")
        axes.grid(alpha=0.3)
    _legend_outside(figure, panels)
    return _png(figure)


def _shared(study: Study, arm: str) -> list[Run]:
    """Runs of an arm with the seeds that all arms have; all runs without such seeds."""
    runs = study.of(arm)
    return [run for seed, run in runs.items() if seed in (study.shared_seeds or runs)]


def _changes(study: Study, run: Run) -> dict[str, dict[int, float]]:
    """Change of every set by step; empty if the start is unknown or is the run itself."""
    if study.start(run) is None or run.arm == study.base:
        return {}
    rows = study.history(run).evaluations
    start = rows[0]  # same text as the other rows, unlike `Run.final`
    sets = [n for n in start.bits if all(n in row.bits for row in rows)]
    return {n: {row.step: row.bits[n] - start.bits[n] for row in rows} for n in sets}


def draw_recall(known: Mapping[str, Sequence[Recall]]) -> bytes | None:
    """Margin and accuracy by the number of exposures of a fact, per arm."""
    styles = _styles(list(known))
    known = {arm: points for arm, points in known.items() if points}
    if not known:
        return None
    figure, panels = _figure(2, 4.5)
    counts = sorted({r.exposures for points in known.values() for r in points})
    for axes, field in zip(panels, ("margin", "accuracy"), strict=True):
        for number, (arm, points) in enumerate(known.items()):
            # Shifted, so that intervals of arms do not overlap.
            shift = 0.3 * (number / max(1, len(known) - 1) - 0.5)
            at = [counts.index(r.exposures) + shift for r in points]
            found = [getattr(r, field) for r in points]
            bars = np.concatenate([_reach(f.mean, f.interval) for f in found], axis=1)
            means = [f.mean for f in found]
            look = {"markersize": 3, "linewidth": 1, "capsize": 2, "label": arm} | styles[arm]
            axes.errorbar(at, means, yerr=bars, **look)
        axes.set_xticks(range(len(counts)), [str(count) for count in counts])
        axes.set(xlabel="times shown in training", ylabel=LABELS[field])
        axes.grid(alpha=0.3)
    panels[0].axhline(0, color="gray", linewidth=0.8)
    _legend_outside(figure, panels)
    return _png(figure)


def _legend_outside(figure: "Figure", panels: Sequence["Axes"]) -> None:
    """One legend for all panels, below them."""
    handles = {}
    for axes in panels:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            handles.setdefault(label, handle)
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=6, fontsize=8)
