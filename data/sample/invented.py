"""Invented minerals, rivers, towns, people ..., which no model can know beforehand.

Every kind has ENTITIES_PER_KIND entities with three facts each, distributed evenly over LEVELS.
Names are built from syllables with a fixed transliteration. No name is contained in another name,
so a search for a name finds only the entity. Values are assigned independently of levels, so an
object does not reveal how often its fact is stated. Syllables, values and kinds are in
text/invented.yaml.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

from data.sample.dice import Dice
from data.sample.texts import read_table

LEVELS = (64, 16, 4, 1, 0)
"""Documents of each source of its domain that state a fact; 0 is a control."""
ENTITIES_PER_KIND = 20

Pair = tuple[str, str]
"""A surface form in English and in Chinese."""


_TABLE = read_table("invented")


def _pairs(cells: list[str]) -> list[Pair]:
    parts = [cell.partition("=") for cell in cells]
    return [(en, zh or en) for en, _, zh in parts]


SYLLABLES = _pairs(_TABLE["pools"].pop("syllables"))

_DICE = Dice(0, "invented names")
_TAKEN: list[Pair] = []


def _name(syllables: int) -> Pair:
    """A new pronounceable name that contains no earlier one and is contained in none."""
    while True:
        parts = [_DICE.pick(SYLLABLES) for _ in range(syllables)]
        en, zh = ("".join(column) for column in zip(*parts, strict=True))
        clash = any(
            en in taken_en or taken_en in en or zh in taken_zh or taken_zh in zh
            for taken_en, taken_zh in _TAKEN
        )
        if not clash and len(set(parts)) == syllables:
            _TAKEN.append((en, zh))
            return en.capitalize(), zh


PLACES = [_name(2) for _ in range(20)]
SEAS = [(f"the Sea of {en}", f"{zh}海") for en, zh in (_name(2) for _ in range(14))]

_POOLS = {
    "places": PLACES,
    "seas": SEAS,
    **{name: _pairs(cells) for name, cells in _TABLE["pools"].items()},
}


def _numbers(low: int, high: int, form: str, en: str, zh: str) -> list[Pair]:
    """Twenty numbers spread over a range, in `form`, with a unit in each language."""
    dice = Dice(0, "invented numbers", low, high)
    step = (high - low) // ENTITIES_PER_KIND
    values = [low + step * i + dice.below(step) for i in range(ENTITIES_PER_KIND)]
    return [(f"{value:{form}}{en}", f"{value}{zh}") for value in values]


class Kind(NamedTuple):
    """A kind of invented thing, with the values of its relations."""

    topic: str
    name: Pair | None
    """Patterns around the name, `{stem}` without its last vowel; None for a person."""
    relations: dict[str, list[Pair]]


def _kind(entry: dict[str, Any]) -> Kind:
    relations = {
        relation: _POOLS[values] if isinstance(values, str) else _numbers(*values)
        for relation, values in entry["relations"].items()
    }
    return Kind(entry["topic"], entry["name"] and tuple(entry["name"]), relations)


KINDS = [_kind(entry) for entry in _TABLE["kinds"]]


class Attribute(NamedTuple):
    """One statement about an invented thing."""

    topic: str
    relation: str
    subject: Pair
    object: Pair
    level: int


def _subject(pattern: Pair | None) -> Pair:
    if pattern is None:
        (given_en, given_zh), (family_en, family_zh) = _name(2), _name(3)
        return f"{given_en} {family_en}", f"{given_zh}·{family_zh}"
    en, zh = _name(3)
    lower = en.lower()
    stem = lower[:-1] if lower[-1] in "aeiouy" else lower
    return pattern[0].format(en, stem=stem, lower=lower), pattern[1].format(zh)


def _attributes() -> Iterator[Attribute]:
    for kind in KINDS:
        subjects = [_subject(kind.name) for _ in range(ENTITIES_PER_KIND)]
        for relation, pool in kind.relations.items():
            dealt = (pool * ENTITIES_PER_KIND)[:ENTITIES_PER_KIND]
            dealt = Dice(0, "invented objects", relation).shuffled(dealt)
            for i, (subject, object_) in enumerate(zip(subjects, dealt, strict=True)):
                yield Attribute(kind.topic, relation, subject, object_, LEVELS[i % len(LEVELS)])


ATTRIBUTES = list(_attributes())
"""Three statements about each invented thing."""
