"""Verdicts -> totals, means, preferences and how sure they are, as numbers and as tables.

Intervals hold 95 % of what other questions of the same kind would give; they say nothing of another
judge.
"""

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

from evaluation.judge.prompts import CRITERIA, OVERALL, PLACES
from evaluation.statistics import paired_bootstrap
from inference.generation.question_files import OpenQuestion

Verdicts = Mapping[tuple[str, ...], Mapping[str, Any]]
"""By the key of a judgement."""

WINS, TIES, LOSSES = 1.0, 0.5, 0.0
"""What a decision counts in a win rate."""


def summarize_scores(
    questions: Sequence[OpenQuestion],
    names: Sequence[str] | Mapping[str, Any],
    verdicts: Verdicts,
    scale: int,
    seed: int,
) -> dict[str, Any]:
    """Totals and means per criterion of everybody's answers, and differences of every two.

    A difference is taken over the questions for which both have a verdict.
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
    """Wins, ties and losses of the first of every two, and how often the judge followed the place.

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
    """What choices in both orders amount to for the answer that comes first in the first order."""
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
    """A mean over questions with its interval; None where there are no values."""
    if not values:
        return {"mean": None, "low": None, "high": None}
    low, high = paired_bootstrap(values, seed=seed)
    return {"mean": sum(values) / len(values), "low": low, "high": high}


def judge_table(summary: Mapping[str, Any]) -> str:
    """A summary for the terminal; what failed stands at the end."""
    lines = [f"{summary['questions']} questions, {summary['mode']}, judged by {summary['judge']}"]
    lines += _score_lines(summary) if summary["mode"] == "single" else _pair_lines(summary)
    lines += [
        f"failed: question {f['question']}, {' then '.join(f['names'])}: {f['problem']}"
        for f in summary["failed"]
    ]
    return "\n".join(lines)


def _score_lines(summary: Mapping[str, Any]) -> list[str]:
    lines = []
    for name, one in summary["answers"].items():
        lines.append(f"{name}: {one['judged']} judged, highest total {one['highest_total']}")
        lines += [
            f"  {c:<13}{v['total']:>6}  mean {_interval(v)}" for c, v in one["criteria"].items()
        ]
    for one in summary["differences"]:
        lines.append(f"{one['of']} less {one['less']}, {one['judged']} questions")
        lines += [f"  {c:<13}{_interval(v, '+')}" for c, v in one["criteria"].items()]
    return lines


def _pair_lines(summary: Mapping[str, Any]) -> list[str]:
    lines = []
    for one in summary["pairs"]:
        a, b = one["names"]
        lines.append(f"{a} against {b}, {one['judged']} questions in both orders")
        for c, v in one["criteria"].items():
            bias = "" if v["position_bias"] is None else f"{v['position_bias']:.0%}"
            lines.append(
                f"  {c:<13}{v['wins']} won, {v['ties']} tied, {v['losses']} lost; win rate "
                f"{_interval(v | {'mean': v['win_rate']})}; position bias {bias or 'unknown'}"
            )
    return lines


def _interval(value: Mapping[str, float | None], sign: str = "") -> str:
    if value["mean"] is None:
        return "unknown"
    return f"{value['mean']:{sign}.2f} ({value['low']:{sign}.2f} to {value['high']:{sign}.2f})"
