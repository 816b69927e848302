"""Totals, means and preferences from verdicts, with intervals, as numbers and as tables.

Intervals (95 %) are over questions of the same kind; they do not cover the choice of the judge.
"""

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

from tabulate import tabulate

from evaluation.judge.prompts import CRITERIA, OVERALL, PLACES
from evaluation.statistics import paired_bootstrap
from inference.generation.question_files import OpenQuestion

Verdicts = Mapping[tuple[str, ...], Mapping[str, Any]]
"""Verdicts by the key of their judgement."""

WINS, TIES, LOSSES = 1.0, 0.5, 0.0
"""Value of a decision in a win rate."""


def summarize_scores(
    questions: Sequence[OpenQuestion],
    names: Sequence[str] | Mapping[str, Any],
    verdicts: Verdicts,
    scale: int,
    seed: int,
) -> dict[str, Any]:
    """Totals and means per criterion of all answers, and differences of every two authors.

    A difference is over the questions for which both have a verdict.
    """
    ids = [question.id for question in questions]
    scores = {
        name: {id: verdicts[id, name] for id in ids if (id, name) in verdicts} for name in names
    }
    differences = []
    for a, b in combinations(scores, 2):
        both = [id for id in scores[a] if id in scores[b]]
        criteria = {
            c: _mean([scores[a][id][c] - scores[b][id][c] for id in both], seed) for c in CRITERIA
        }
        differences.append({"of": a, "less": b, "judged": len(both), "criteria": criteria})
    return {
        "scale": scale,
        "answers": {
            name: {
                "judged": len(found),
                "highest_total": len(found) * scale,
                "criteria": {
                    c: {"total": sum(v[c] for v in found.values())}
                    | _mean([v[c] for v in found.values()], seed)
                    for c in CRITERIA
                },
            }
            for name, found in scores.items()
        },
        "differences": differences,
    }


def summarize_pairs(
    questions: Sequence[OpenQuestion],
    names: Sequence[str] | Mapping[str, Any],
    verdicts: Verdicts,
    seed: int,
) -> dict[str, Any]:
    """Wins, ties and losses of the first of every two authors, and the position bias of the judge.

    A question counts where both orders have a verdict; a win is one in both of them.
    """
    pairs = []
    for a, b in combinations(names, 2):
        decided = [
            (verdicts[question.id, a, b], verdicts[question.id, b, a])
            for question in questions
            if (question.id, a, b) in verdicts and (question.id, b, a) in verdicts
        ]
        criteria = {
            c: _preference([(one[c], other[c]) for one, other in decided], seed)
            for c in (OVERALL, *CRITERIA)
        }
        pairs.append({"names": [a, b], "judged": len(decided), "criteria": criteria})
    return {"pairs": pairs}


def _preference(choices: Sequence[tuple[str, str]], seed: int) -> dict[str, Any]:
    """Preference for the answer that is first in the first order, from choices in both orders."""
    first, second = PLACES
    outcomes = [
        WINS if pair == (first, second) else LOSSES if pair == (second, first) else TIES
        for pair in choices
    ]
    kept_first, kept_second = choices.count((first, first)), choices.count((second, second))
    rate = _mean(outcomes, seed)
    return {
        "wins": outcomes.count(WINS),
        "ties": outcomes.count(TIES),
        "losses": outcomes.count(LOSSES),
        "win_rate": rate["mean"],
        "low": rate["low"],
        "high": rate["high"],
        "first_in_both": kept_first,
        "second_in_both": kept_second,
        "position_bias": (kept_first + kept_second) / len(choices) if choices else None,
    }


def _mean(values: Sequence[float], seed: int) -> dict[str, float | None]:
    """A mean over questions with its interval; None without values."""
    if not values:
        return {"mean": None, "low": None, "high": None}
    low, high = paired_bootstrap(values, seed=seed)
    return {"mean": sum(values) / len(values), "low": low, "high": high}


def judge_table(summary: Mapping[str, Any]) -> str:
    """A summary as tables for a terminal; failed verdicts come last."""
    lines = [f"{summary['questions']} questions, {summary['mode']}, judged by {summary['judge']}"]
    lines += _score_tables(summary) if summary["mode"] == "single" else _pair_table(summary)
    lines += [
        f"failed: question {f['question']}, {' then '.join(f['names'])}: {f['problem']}"
        for f in summary["failed"]
    ]
    return "\n".join(lines)


def _score_tables(summary: Mapping[str, Any]) -> list[str]:
    totals = [
        (name, c, one["judged"], f"{v['total']} of {one['highest_total']}", _interval(v))
        for name, one in summary["answers"].items()
        for c, v in one["criteria"].items()
    ]
    differences = [
        (f"{one['of']} minus {one['less']}", c, one["judged"], _interval(v, "+"))
        for one in summary["differences"]
        for c, v in one["criteria"].items()
    ]
    tables = [_table(("answers", "criterion", "judged", "total", "mean"), totals)]
    if differences:
        tables.append(_table(("difference", "criterion", "judged", "mean"), differences))
    return tables


def _pair_table(summary: Mapping[str, Any]) -> list[str]:
    head = ("answers", "criterion", "judged", "won", "tied", "lost", "win rate", "position bias")
    rows = [
        (
            " against ".join(one["names"]),
            *(c, one["judged"], v["wins"], v["ties"], v["losses"]),
            _interval(v | {"mean": v["win_rate"]}),
            "unknown" if v["position_bias"] is None else f"{v['position_bias']:.0%}",
        )
        for one in summary["pairs"]
        for c, v in one["criteria"].items()
    ]
    return [_table(head, rows)]


def _table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    return tabulate(rows, head, tablefmt="plain", disable_numparse=True)


def _interval(value: Mapping[str, float | None], sign: str = "") -> str:
    if value["mean"] is None:
        return "unknown"
    return f"{value['mean']:{sign}.2f} ({value['low']:{sign}.2f} to {value['high']:{sign}.2f})"
