"""loss.png: training loss per stage, held-out bits per byte per set. forgetting.png: how far the
latter have moved from where the run began."""

import json
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from training.run.forgetting import DELTA, starting_point, with_deltas

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def _figure(width: float, height: float) -> "Figure":
    """Empty figure of a size in inches, with a canvas that writes PNG."""
    # Imported here, because matplotlib takes half a second.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def plot_run(metrics: Path, picture: Path) -> None:
    """Draw the curves of one metrics.jsonl; a log without any gives no picture."""
    training, evaluations = _read(metrics)
    stages = {
        stage: [(row["step"], row["loss_nats"]) for row in training if row["stage"] == stage]
        for stage in dict.fromkeys(row["stage"] for row in training)
    }
    sets = {
        name: [(row["step"], row["eval"][name]["bits_per_byte"]) for row in evaluations]
        for name in dict.fromkeys(name for row in evaluations for name in row["eval"])
    }
    panels = {"training loss (nats per token)": stages, "held-out bits per byte": sets}
    panels = {label: curves for label, curves in panels.items() if curves}
    if not panels:
        return
    figure = _figure(5.5 * len(panels), 4.5)
    for axes, (label, curves) in zip(
        figure.subplots(1, len(panels), squeeze=False)[0], panels.items(), strict=True
    ):
        for name, points in curves.items():
            # A line through one point is none.
            marker = "o" if curves is sets or len(points) == 1 else None
            axes.plot(*zip(*points, strict=True), marker=marker, markersize=3, label=name)
        axes.set(xlabel="step", ylabel=label)
        axes.grid(alpha=0.3)
        axes.legend()
    figure.savefig(picture, dpi=130)


def plot_forgetting(metrics: Path, picture: Path) -> None:
    """Draw the bits per byte that each held-out set has gained since step 0, over tokens.

    Above zero lies what was forgotten. Dashed lines are the borders of stages, as near as the
    logged steps tell. A log without held-out text at step 0, or without a logged step, gives no
    picture.
    """
    training, evaluations = _read(metrics)
    start = starting_point(metrics)
    if not start or not training:
        return
    tokens_per_step = training[-1]["tokens"] / training[-1]["step"]
    figure = _figure(7, 4.5)
    axes = figure.subplots()
    axes.axhline(0, color="black", linewidth=1)
    for name in start:
        points = [
            (row["step"] * tokens_per_step, with_deltas(row["eval"], start)[name][DELTA])
            for row in evaluations
        ]
        axes.plot(*zip(*points, strict=True), marker="o", markersize=3, label=name)
    for border in stage_borders(training):
        axes.axvline(border * tokens_per_step, color="gray", linestyle="--", linewidth=1)
    axes.set(xlabel="tokens", ylabel="held-out bits per byte since step 0")
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(picture, dpi=130)


def stage_borders(training: list[dict[str, Any]]) -> list[int]:
    """The last logged step of each stage but the last."""
    return [one["step"] for one, other in pairwise(training) if one["stage"] != other["stage"]]


def _read(metrics: Path) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Rows of steps, and rows of evaluations."""
    rows = [json.loads(line) for line in metrics.read_text(encoding="utf-8").splitlines()]
    training = [row for row in rows if "loss_nats" in row]
    return training, [row for row in rows if "eval" in row]
