"""Two variants of a benchmark: as released, and without faulty rows.

`released` counts every row, so that a score compares with published ones. `cleaned` omits, in this
order, rows that repeat an earlier row (same question, options in order and answer), broken rows,
and the option `Null` where the registry names it as a placeholder.
"""

from dataclasses import replace

from evaluation.benchmarks.items import Item, Problem, Task

VARIANTS = ("released", "cleaned")


def released(task: Task) -> Task:
    """Every row; `problems` lists rows that are scored incorrect and doubtful rows."""
    broken = [
        Problem(item.place, f"scored incorrect: {item.tags['broken']}")
        for item in task.items
        if "broken" in item.tags
    ]
    return replace(task, problems=(*task.problems, *broken, *_doubts(task.items)))


def cleaned(task: Task, placeholder: str | None = None) -> Task:
    """Every distinct row that can be asked; `problems` lists omitted and doubtful rows.

    Args:
        placeholder: text of an option that means "no option". Such an option stays where it is the
            right answer ("none of these").
    """
    kept, problems = [], []
    first: dict[tuple[str, ...], str] = {}
    for item in task.items:
        key = (item.question, *item.options, str(item.answer))
        if key in first:
            problems.append(Problem(item.place, f"omitted: the same as {first[key]}"))
            continue
        first[key] = item.place
        if "broken" in item.tags:
            problems.append(Problem(item.place, f"omitted: {item.tags['broken']}"))
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
    """Rows that are asked although no answer, or more than one answer, is right."""
    problems = []
    first: dict[tuple[str, frozenset[str]], Item] = {}
    for item in items:
        if "broken" in item.tags:
            continue
        right = item.options[item.answer]
        if not item.question:
            problems.append(Problem(item.place, "doubtful: options without a question"))
        if item.options.count(right) > 1:
            problems.append(Problem(item.place, "doubtful: two options have the right text"))
        twin = first.setdefault((item.question, frozenset(item.options)), item)
        if twin.options[twin.answer] != right:
            problems.append(Problem(item.place, f"doubtful: {twin.place} has another answer to it"))
    return problems
