"""What a run forgets: each held-out set against the starting point of the run.

The starting point is the evaluation at step 0, before any update; a run with `init_from` starts
from that model. It is read from metrics.jsonl, so that the figures follow from the log alone: a run
that was killed and continued logs the same ones, bit for bit.
"""

import json
from pathlib import Path

from training.run.metrics import MetricsLog

Results = dict[str, dict[str, float]]
"""Held-out set -> its figures, as `training.evaluate.evaluate` returns them."""
DELTA = "delta_bits_per_byte"


def starting_point(metrics: Path) -> Results | None:
    """The evaluation at step 0 in a metrics.jsonl; None if the log lacks it."""
    with metrics.open(encoding="utf-8") as lines:
        for line in lines:  # it is the first one, nothing is logged before it
            row = json.loads(line)
            if row["step"] > 0:
                break
            if "eval" in row:
                return row["eval"]
    return None


def with_deltas(results: Results, start: Results) -> Results:
    """Results with `delta_bits_per_byte` added: bits per byte more than at the starting point.

    Positive means forgotten, negative learnt. A set that the starting point lacks gets none.
    """
    return {
        name: result | {DELTA: result["bits_per_byte"] - start[name]["bits_per_byte"]}
        if name in start
        else result
        for name, result in results.items()
    }


def log_evaluation(log: MetricsLog, metrics: Path, step: int, stage: str, results: Results) -> None:
    """Log one evaluation with its deltas, and print it; for the main process.

    Without held-out text there is nothing to log.

    Args:
        metrics: what `log` writes.
    """
    if not results:
        return
    start = results if step == 0 else starting_point(metrics) or {}
    results = with_deltas(results, start)
    log.write({"step": step, "stage": stage, "eval": results})
    log.say(f"step {step}: bits per byte " + ", ".join(map(_figures, results.items())))


def _figures(named: tuple[str, dict[str, float]]) -> str:
    name, result = named
    delta = f" ({result[DELTA]:+.4f})" if DELTA in result else ""
    return f"{name} {result['bits_per_byte']:.4f}{delta}"
