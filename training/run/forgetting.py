"""Forgetting: the loss on each held-out set relative to the starting point of the run.

The starting point is the evaluation at step 0, before any update; a run with `init_from` starts
from that model. The starting point is read from metrics.jsonl, so the figures follow from the log
alone: a run that was killed and resumed logs the same figures, bit for bit.
"""

import json
from pathlib import Path

Results = dict[str, dict[str, float]]
"""Held-out set -> its figures, as `training.evaluate.evaluate` returns them."""
DELTA = "delta_bits_per_byte"


def starting_point(metrics: Path) -> Results | None:
    """The evaluation at step 0 in a metrics.jsonl; None if the log lacks it."""
    with metrics.open(encoding="utf-8") as lines:
        for line in lines:  # the evaluation at step 0 is logged before any step
            row = json.loads(line)
            if row["step"] > 0:
                break
            if "eval" in row:
                return row["eval"]
    return None


def with_deltas(results: Results, start: Results) -> Results:
    """Results with `delta_bits_per_byte` added: bits per byte minus those at the starting point.

    Positive means forgotten, negative means learned. Sets without a starting point get no delta.
    """
    return {
        name: result | {DELTA: result["bits_per_byte"] - start[name]["bits_per_byte"]}
        if name in start
        else result
        for name, result in results.items()
    }


def describe_evaluation(results: Results) -> str:
    """Bits per byte of each set, with the difference from the starting point where there is one."""
    return "bits per byte " + ", ".join(map(_figures, results.items()))


def _figures(named: tuple[str, dict[str, float]]) -> str:
    name, result = named
    delta = f" ({result[DELTA]:+.4f})" if DELTA in result else ""
    return f"{name} {result['bits_per_byte']:.4f}{delta}"
