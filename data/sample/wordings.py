"""How each relation is put into words, in both languages.

Training text uses `ask` and `statements`; `prompt` and `cloze` are reserved for `questions()`.
"""

from functools import cache
from typing import NamedTuple

from data.sample.wordings_general_en import WORDINGS_GENERAL_EN
from data.sample.wordings_general_zh import WORDINGS_GENERAL_ZH
from data.sample.wordings_geo_en import WORDINGS_GEO_EN
from data.sample.wordings_geo_zh import WORDINGS_GEO_ZH


class Wording(NamedTuple):
    """The wordings of a relation in one language; {s} is the subject, {o} the object."""

    ask: str
    statements: list[str]
    prompt: str
    cloze: str


@cache
def wordings(language: str) -> dict[str, Wording]:
    """Relation -> wording."""
    if language == "en":
        return _read(WORDINGS_GEO_EN + WORDINGS_GENERAL_EN)
    return _read(WORDINGS_GEO_ZH + WORDINGS_GENERAL_ZH)


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
