"""loss.png: training loss per stage, held-out bits per byte per set."""

import json
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure


def plot_run(metrics: Path, picture: Path) -> None:
    """Draw the curves of one metrics.jsonl."""
    rows = [json.loads(line) for line in metrics.read_text(encoding="utf-8").splitlines()]
    training = [row for row in rows if "loss_nats" in row]
    evaluations = [row for row in rows if "eval" in row]
    figure = Figure(figsize=(11, 4.5), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    for stage in dict.fromkeys(row["stage"] for row in training):
        own = [row for row in training if row["stage"] == stage]
        left.plot([row["step"] for row in own], [row["loss_nats"] for row in own], label=stage)
    left.set(xlabel="step", ylabel="training loss (nats per token)")
    for name in dict.fromkeys(name for row in evaluations for name in row["eval"]):
        points = [(row["step"], row["eval"][name]["bits_per_byte"]) for row in evaluations]
        right.plot(*zip(*points, strict=True), marker="o", markersize=3, label=name)
    right.set(xlabel="step", ylabel="held-out bits per byte")
    for axes in (left, right):
        axes.grid(alpha=0.3)
        axes.legend()
    figure.savefig(picture, dpi=130)
