"""The tables and the picture of docs/results/real_run.md, from the run folders.

    python -m experiments.studies.real_run.tables RUNS SEED [SEED ...]

RUNS holds stage1-SEED, stage2-SEED and continued-SEED. Prints Markdown and draws the curves of
results/real_run.png in the folder of this file.
"""

import json
import sys
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from evaluation.statistics import paired_t

SETS = ("general_en", "general_zh", "geo_en", "geo_zh")
DOMAIN_FIRST = ("geo_en", "geo_zh", "general_en", "general_zh")
RUN_NAMES = {
    "stage1": "after stage 1",
    "stage2": "then stage 2",
    "continued": "instead, stage 1 continued",
}


def curves(run: Path) -> dict[int, dict[str, float]]:
    """Bits per byte of each held-out set by step."""
    rows = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    return {
        row["step"]: {name: row["eval"][name]["bits_per_byte"] for name in SETS}
        for row in rows
        if "eval" in row
    }


def print_levels(runs: Path, seeds: list[str]) -> None:
    """Print bits per byte at the start and at the end of each run."""
    print(f"| seed | run | {' | '.join(SETS)} |\n|---|---|---|---|---|---|")
    for seed in seeds:
        start = curves(runs / f"stage1-{seed}")[0]
        rows = {"start": start}
        for name, words in RUN_NAMES.items():
            found = curves(runs / f"{name}-{seed}")
            rows[words] = found[max(found)]
        for words, bits in rows.items():
            print(f"| {seed} | {words} | {' | '.join(f'{bits[name]:.4f}' for name in SETS)} |")


def print_differences(runs: Path, seeds: list[str]) -> None:
    """Stage 2 less its control, seed by seed, with Student's interval."""
    print(f"\n| set | {' | '.join(f'seed {seed}' for seed in seeds)} | mean | interval |")
    print("|---" * (len(seeds) + 3) + "|")
    for name in DOMAIN_FIRST:
        differences = []
        for seed in seeds:
            ends = [curves(runs / f"{run}-{seed}") for run in ("stage2", "continued")]
            ours, control = (end[max(end)][name] for end in ends)
            differences.append(ours - control)
        found = paired_t(differences)
        cells = " | ".join(f"{x:+.4f}" for x in differences)
        half = found.interval.high - found.mean
        print(f"| {name} | {cells} | {found.mean:+.3f} | +-{half:.3f} |")


def print_speeds(runs: Path, seeds: list[str]) -> None:
    """Tokens and minutes of training steps, evaluations and saves not counted."""
    print("\n| run | tokens | minutes in steps, by seed |\n|---|---|---|")
    for name in RUN_NAMES:
        minutes: list[float] = []
        rows: list[dict] = []
        for seed in seeds:
            lines = (runs / f"{name}-{seed}" / "metrics.jsonl").read_text().splitlines()
            rows = [row for row in map(json.loads, lines) if "loss_nats" in row]
            step = rows[-1]["tokens"] / rows[-1]["step"]
            minutes.append(sum(step / row["tokens_per_second"] for row in rows) / 60)
        print(f"| {name} | {rows[-1]['tokens']:,} | {', '.join(f'{m:.1f}' for m in minutes)} |")


def draw(runs: Path, seeds: list[str]) -> None:
    """Stage 1, then stage 2 and its control, one panel for each held-out set."""
    figure, panels = plt.subplots(2, 2, figsize=(9, 6), sharex=True)
    for panel, name in zip(panels.flat, SETS, strict=True):
        for seed in seeds:
            first = curves(runs / f"stage1-{seed}")
            border = max(first)
            panel.plot(list(first), [bits[name] for bits in first.values()], color="black", lw=1)
            for run, color in (("stage2", "tab:red"), ("continued", "tab:blue")):
                found = curves(runs / f"{run}-{seed}")
                steps = [border + step for step in found]
                label = RUN_NAMES[run] if seed == seeds[0] else None
                values = [bits[name] for bits in found.values()]
                panel.plot(steps, values, color=color, lw=1, label=label)
            panel.axvline(border, color="grey", lw=0.5)
        panel.set_title(name)
        panel.set_ylabel("bits per byte")
    panels[0, 0].legend()
    for panel in panels[1]:
        panel.set_xlabel("step")
    figure.tight_layout()
    figure.savefig(Path(__file__).parent / "results" / "real_run.png", dpi=110)


if __name__ == "__main__":
    folder, chosen = Path(sys.argv[1]), sys.argv[2:]
    print_levels(folder, chosen)
    print_differences(folder, chosen)
    print_speeds(folder, chosen)
    draw(folder, chosen)
