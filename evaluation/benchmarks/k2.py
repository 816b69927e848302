"""The multiple-choice parts of K2's GeoBench, in the JSON files of its repository.

`k2_npee_choice` and `k2_npee_tf` (true or false) come from geobench_npee.json, `k2_apstudy` from
geobench_apstudy.json. The rows differ from those of JiuZhou's tables, and K2 used another protocol,
so the figures of the two are not comparable. K2's other parts (terms, completions, essays) have no
options and are not read.
"""

import re
from pathlib import Path
from typing import Any, TypeGuard

from evaluation.benchmarks.files import Reading, find
from evaluation.benchmarks.items import LETTERS, Item, Task
from evaluation.benchmarks.table_rows import letter_index, missing_texts

FILES = {
    "k2_npee_choice": "geobench_npee.json",
    "k2_npee_tf": "geobench_npee.json",
    "k2_apstudy": "geobench_apstudy.json",
}

ORIGIN = "geobench_npee.json and geobench_apstudy.json of github.com/davendw49/k2, data/geobench,"

_CHOOSE = "\nChoose from:\n"
_OPTION = re.compile(rf"^([{LETTERS}])\. ", re.MULTILINE)


def read_k2(name: str, data: Path) -> Task:
    """Every question of one of `FILES`.

    Options are sorted by letter; a few questions list them in another order.

    Raises:
        ValueError: a question is malformed; the message names file and number.
    """
    path = find(name, data, "k2", (FILES[name],), ORIGIN)
    reading = Reading(path.parent)
    content, label = reading.json(path), reading.label(path)
    subject = name.removeprefix("k2_")
    if name == "k2_apstudy":
        items = [
            _ap_item(f"{subject}/{number}", row, f"{label}, question {number}")
            for number, row in enumerate(_list(content, label), start=1)
        ]
    else:
        part = subject.removeprefix("npee_")
        build = _choice_item if part == "choice" else _statement_item
        items = [
            build(f"{subject}/{number}", question, answer, f"{label}, {part} {number}")
            for number, (question, answer) in enumerate(_pairs(content, part, label), start=1)
        ]
    return Task(
        name=name,
        variant="released",
        language="en",
        items=tuple(items),
        demonstrations={},
        categories={subject: "Geoscience"},
        titles={subject: "geoscience"},
        files=reading.digests,
    )


def _list(content: Any, label: str) -> list[Any]:
    if not isinstance(content, list) or not content:
        raise ValueError(f"{label}: must be a list of questions; fetch the file again")
    return content


def _pairs(content: Any, part: str, label: str) -> list[tuple[str, str]]:
    """Pairs of question and answer, which are two lists in the file."""
    held = content.get(part) if isinstance(content, dict) else None
    fields = held if isinstance(held, dict) else {}
    questions, answers = fields.get("question"), fields.get("answer")
    if not _are_texts(questions) or not _are_texts(answers) or len(questions) != len(answers):
        raise ValueError(
            f"{label}: `{part}` must have `question` and `answer`, two lists of texts of the same "
            "length; fetch the file again"
        )
    return list(zip(questions, answers, strict=True))


def _are_texts(value: Any) -> TypeGuard[list[str]]:
    return isinstance(value, list) and value != [] and all(isinstance(v, str) for v in value)


def _choice_item(id: str, text: str, answer: str, place: str) -> Item:
    question, choose, listed = text.partition(_CHOOSE)
    pieces = _OPTION.split(listed)  # what precedes A, then letter, text, letter, text, ...
    if not choose or len(pieces) < 5 or pieces[0].strip():
        raise ValueError(
            f"{place}: must be a question, the line 'Choose from:', and options, each on a line "
            "that begins with its letter, as in 'A. '"
        )
    labelled = list(zip(pieces[1::2], pieces[2::2], strict=True))
    return _labelled_item(id, question, labelled, answer, place)


def _statement_item(id: str, text: str, answer: str, place: str) -> Item:
    options = ("True", "False")
    if answer.strip() not in options:
        raise ValueError(f"{place}: the answer is {answer[:40]!r}; must be True or False")
    return Item(
        id=id,
        subject="npee_tf",
        question=text.strip(),
        options=options,
        answer=options.index(answer.strip()),
        place=place,
    )


def _ap_item(id: str, row: Any, place: str) -> Item:
    """An item of {"question": {"stem", "choices": [{"text", "label"}]}, "answerKey"}.

    The file's `id` is not used, because it is equal in every row.
    """
    try:
        stem, answer = row["question"]["stem"], row["answerKey"]
        labelled = [(choice["label"], choice["text"]) for choice in row["question"]["choices"]]
    except (KeyError, TypeError, IndexError):
        stem, answer, labelled = "", "", []
    texts = [stem, answer, *(text for pair in labelled for text in pair)]
    if not all(isinstance(text, str) for text in texts) or len(labelled) < 2:
        raise ValueError(
            f"{place}: must be an object with question.stem, question.choices (text and label, "
            "two or more) and answerKey"
        )
    return _labelled_item(id, stem, labelled, answer, place)


def _labelled_item(
    id: str, question: str, labelled: list[tuple[str, str]], answer: str, place: str
) -> Item:
    """An item whose options have letters; broken if the key names none or two of them."""
    answer = answer.strip()
    key = letter_index(answer, len(LETTERS), place)
    for letter, _ in labelled:
        letter_index(letter, len(LETTERS), place)
    labelled = sorted(labelled, key=lambda pair: pair[0])
    letters = [letter for letter, _ in labelled]
    options = [text.strip() for _, text in labelled]
    if letters.count(answer) == 1:
        key = letters.index(answer)
        broken = missing_texts(options, key)
    else:
        broken = f"{letters.count(answer)} options have the letter {answer}, the right one"
    return Item(
        id=id,
        subject=id.partition("/")[0],
        question=question.strip(),
        options=tuple(options),
        answer=key,
        place=place,
        tags={"broken": broken} if broken else {},
    )
