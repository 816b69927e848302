"""Two variants of a benchmark: the one that was published about, and one without its faults.

`released` counts every row, so that a score compares with published ones. `cleaned` leaves out, in
this order, rows that repeat an earlier one (question, options in order, and answer alike), rows
that are broken, and the option `Null` where the reader names it as a placeholder.
"""

from dataclasses import replace

from evaluation.benchmarks.items import Item, Problem, Task

VARIANTS = ("released", "cleaned")


def as_released(task: Task) -> Task:
    """Every row; `problems` lists those that count as wrong, and those that are doubtful."""
    broken = [
        Problem(item.place, f"counts as wrong: {item.tags['broken']}")
        for item in task.items
        if "broken" in item.tags
    ]
    return replace(task, problems=(*task.problems, *broken, *_doubts(task.items)))


def as_cleaned(task: Task, placeholder: str | None = None) -> Task:
    """What can be asked, once each; `problems` lists what was left out, and what is doubtful.

    Args:
        placeholder: text of an option that stands for none. It stays where it is the answer, for
            `none of these` is then what the examiners say.
    """
    kept, problems = [], []
    first: dict[tuple[str, ...], str] = {}
    for item in task.items:
        key = (item.question, *item.options, str(item.answer))
        if key in first:
            problems.append(Problem(item.place, f"left out: the same as {first[key]}"))
            continue
        first[key] = item.place
        if "broken" in item.tags:
            problems.append(Problem(item.place, f"left out: {item.tags['broken']}"))
        else:
            kept.append(_without(item, placeholder))
    problems += [
        Problem(item.place, f"doubtful: {placeholder} is the right option")
        for item in kept
        if placeholder is not None and item.options[item.answer] == placeholder
    ]
    problems += _doubts(tuple(kept))
    return replace(task, variant="cleaned", items=tuple(kept), problems=(*task.problems, *problems))


def _without(item: Item, placeholder: str | None) -> Item:
    right = item.options[item.answer]
    if placeholder not in item.options or right == placeholder:
        return item
    options = tuple(option for option in item.options if option != placeholder)
    shift = item.options[: item.answer].count(str(placeholder))
    return replace(item, options=options, answer=item.answer - shift)


def _doubts(items: tuple[Item, ...]) -> list[Problem]:
    """Rows that are asked although no answer to them, or not only one, can be right."""
    problems = []
    first: dict[tuple[str, frozenset[str]], Item] = {}
    for item in items:
        if "broken" in item.tags:
            continue
        right = item.options[item.answer]
        if not item.question:
            problems.append(Problem(item.place, "doubtful: options without a question"))
        if item.options.count(right) > 1:
            problems.append(Problem(item.place, "doubtful: the right option is there twice"))
        twin = first.setdefault((item.question, frozenset(item.options)), item)
        if twin.options[twin.answer] != right:
            problems.append(
                Problem(item.place, f"doubtful: {twin.place} gives another answer to the same")
            )
    return problems
