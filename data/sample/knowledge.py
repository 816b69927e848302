"""The facts of the sample: real ones from tables, invented ones from syllables, with exposures.

A fact is stated in exactly `exposures` documents of each source of its domain (general_en and
general_zh, or geo_en and geo_zh) and in no other source. Real facts take 64, 16, 4, 1 row by row;
invented ones also 0, the controls. All facts about one subject of a table share their exposures.

In text/facts_*.txt, a table starts with `# topic: relation relation ...`. Its rows are
`subject|object|object ...`. A cell is `English=Chinese`, or one form for both languages, or `-`
where no single value is settled; Chinese forms in translations.yaml are not repeated.
`+ relation: a|b` adds plausible wrong answers to a relation with few values. Hardness is the
conventional handbook value; ages are rounded.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

from data.sample.invented import ATTRIBUTES, LEVELS, Pair
from data.sample.texts import read_table, read_texts

GEO_TOPICS = ("minerals", "strata", "plates", "water", "weather")


@dataclass(frozen=True)
class Fact:
    """One statement: subject, relation, object.

    `id` is `relation/English subject`; `exposures` counts documents per source at scale 1.
    """

    id: str
    domain: str
    topic: str
    relation: str
    subject_en: str
    subject_zh: str
    object_en: str
    object_zh: str
    invented: bool
    exposures: int

    def surface(self, language: str) -> tuple[str, str]:
        """Subject and object as they are written in a language."""
        if language == "en":
            return self.subject_en, self.object_en
        return self.subject_zh, self.object_zh


def facts() -> list[Fact]:
    """Every fact of the sample, real ones first; it depends on neither seed nor scale."""
    return list(_facts())


@cache
def object_pool(relation: str, invented: bool) -> list[Pair]:
    """The distinct objects a relation takes, and its decoys: where wrong answers come from."""
    known = [
        (fact.object_en, fact.object_zh)
        for fact in _facts()
        if fact.relation == relation and fact.invented == invented
    ]
    decoys = [] if invented else _decoys().get(relation, [])
    return list(dict.fromkeys(known + decoys))


@cache
def _facts() -> tuple[Fact, ...]:
    made = [*_real("general"), *_real("geo")]
    for attribute in ATTRIBUTES:
        domain = "geo" if attribute.topic in GEO_TOPICS else "general"
        names = (*attribute.subject, *attribute.object)
        name = f"{attribute.relation}/{attribute.subject[0]}"
        made.append(
            Fact(name, domain, attribute.topic, attribute.relation, *names, True, attribute.level)
        )
    return tuple(made)


def _real(domain: str) -> Iterator[Fact]:
    topic, relations, row = "", [], 0
    for line in read_texts(f"facts_{domain}").splitlines():
        if line.startswith("# "):
            topic, _, names = line[2:].partition(": ")
            relations, row = names.split(), 0
        elif line and not line.startswith("+ "):
            subject, *objects = line.split("|")
            exposures = LEVELS[row % (len(LEVELS) - 1)]
            row += 1
            for relation, cell in zip(relations, objects, strict=True):
                if cell != "-":
                    names = (*_pair(subject), *_pair(cell))
                    name = f"{relation}/{names[0]}"
                    yield Fact(name, domain, topic, relation, *names, False, exposures)


@cache
def _decoys() -> dict[str, list[Pair]]:
    lines = read_texts("facts_general", "facts_geo").splitlines()
    parts = [line[2:].partition(": ") for line in lines if line.startswith("+ ")]
    return {relation: [_pair(cell) for cell in cells.split("|")] for relation, _, cells in parts}


def _pair(cell: str) -> Pair:
    en, _, zh = cell.partition("=")
    return en, zh or _translations().get(en, en)


@cache
def _translations() -> dict[str, str]:
    return read_table("translations")
