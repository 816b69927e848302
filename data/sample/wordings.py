"""Wordings of each relation, in both languages.

In text/wordings_*.txt, below the name of a relation: `?` a question that training text may ask, `-`
statements of the training text, `!` the question and `>` the sentence start that are reserved for
`questions()` and occur in no text. {s} is the subject, {o} the object. A statement is a clause that
is complete alone and after "that".
"""

from functools import cache
from typing import NamedTuple

from data.sample.texts import read_texts


class Wording(NamedTuple):
    """The wordings of a relation in one language; {s} is the subject, {o} the object."""

    ask: str
    statements: list[str]
    prompt: str
    cloze: str


@cache
def wordings(language: str) -> dict[str, Wording]:
    """Relation -> wording."""
    return _read(read_texts(f"wordings_geo_{language}", f"wordings_general_{language}"))


def _read(text: str) -> dict[str, Wording]:
    lines: dict[str, dict[str, list[str]]] = {}
    relation = ""
    for line in text.splitlines():
        if line.endswith(":"):
            relation = line[:-1]
            lines[relation] = {mark: [] for mark in "?-!>"}
        elif line:
            lines[relation][line[0]].append(line[2:])
    return {
        relation: Wording(marked["?"][0], marked["-"], marked["!"][0], marked[">"][0])
        for relation, marked in lines.items()
    }
