"""A suite's results as Markdown."""

from collections.abc import Iterator
from typing import Any

LESS_IS_BETTER = ("_gib", "error")


def markdown(content: dict[str, Any], names: list[str]) -> str:
    """Machine and versions of the measurement, and one table per set of sides.

    Args:
        content: what `experiments.benchmarks.harness.runner.run_suite` returns.
        names: of the parts that are asked about, in their order.
    """
    return "\n".join(_lines(content, names)) + "\n"


def _lines(content: dict[str, Any], names: list[str]) -> Iterator[str]:
    told = content["environment"]
    versions = [f"{name} {found}" for name, found in told["versions"].items() if found]
    commit = (told["git_commit"] or "no commit")[:12] + (", edited" if told["git_dirty"] else "")
    yield f"`{content['command']}`"
    yield ""
    yield (
        f"{told['processor'] or told['platform']}, {told['threads']} threads"
        f"{', ' + told['cuda_device'] if told['cuda_device'] else ''}; Python {told['python']}, "
        f"{', '.join(versions)}; commit {commit}."
    )
    yield "A cell: median (least to most of the rounds), share of the measured ceiling."
    parts = content["parts"]
    groups: dict[tuple[str, ...], list[str]] = {}
    for name in names:
        groups.setdefault(tuple(parts[name]["settings"]["sides"]), []).append(name)
    reasons: dict[str, list[str]] = {}
    for sides, members in groups.items():
        yield ""
        yield from _table(sides, {name: parts[name] for name in members})
        for name in members:
            for side in sides:
                if reason := parts[name]["sides"][side].get("not_measured"):
                    reasons.setdefault(f"{side}: {reason}", []).append(name)
    if reasons:
        yield ""
        yield "Not measured:"
        yield ""
        yield from (f"- {', '.join(found)}: {why}" for why, found in reasons.items())


def _table(sides: tuple[str, ...], parts: dict[str, Any]) -> Iterator[str]:
    ratios = [f"{sides[0]} / {side}" for side in sides[1:]]
    columns = ["part", "figure", *sides, *ratios, "measured ceiling"]
    yield "| " + " | ".join(columns) + " |"
    yield "|" + "---|" * len(columns)
    for name, part in parts.items():
        figures = [figure for side in part["figures"].values() for figure in side]
        for figure in dict.fromkeys(figures) or ["all"]:
            cells = [_cell(part["figures"].get(side, {}).get(figure)) for side in sides]
            cells += [_ratio(part, side, figure) for side in sides[1:]]
            shared = any(
                side.get(figure, {}).get("share") is not None for side in part["figures"].values()
            )
            machine = _machine(part["machine"]) if shared else "-"
            yield "| " + " | ".join([name, figure, *cells, machine]) + " |"
        for side, found in part["same_answers"].items():
            blank = ["-"] * (len(sides) + 1)
            place = 1 + sides.index(side)
            blank[place - 1] = found
            yield "| " + " | ".join([name, "answers as ours", *blank, *["-"] * len(ratios)]) + " |"


def _cell(found: dict[str, float] | None) -> str:
    if found is None:
        return "not measured"
    text = _number(found["median"])
    if found["low"] != found["high"]:
        text += f" ({_number(found['low'])} to {_number(found['high'])})"
    share = found["share"]
    return text if share is None else f"{text}, {share:.{0 if share >= 0.1 else 1}%}"


def _ratio(part: dict[str, Any], side: str, figure: str) -> str:
    """With the goal where there is one, which is set against the peer alone."""
    ratio = part["ratios"].get(side, {}).get(figure)
    goal = part["settings"]["goals"].get(figure) if side == "peer" else None
    if ratio is None:
        return "-" if goal is None else f"- (goal {goal:g})"
    if goal is None:
        return f"{ratio:.2f}"
    met = ratio <= goal if figure.endswith(LESS_IS_BETTER) else ratio >= goal
    return f"{ratio:.2f} (goal {goal:g}{'' if met else ', **missed**'})"


def _machine(rates: dict[str, Any]) -> str:
    return ", ".join(
        f"{_number(rate)} {name}" for name, rate in rates.items() if not isinstance(rate, str)
    )


def _number(value: float) -> str:
    """Three digits that count."""
    if value == 0 or abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}"
