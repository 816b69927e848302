"""Assignment of facts, with their wordings, to documents.

A fact of exposure e is stated once in each of e documents; its wordings take turns. Facts about one
subject are often in one document, a document has one topic, and half of the documents get most
facts.
"""

import math
from collections import defaultdict
from collections.abc import Iterator
from typing import NamedTuple

from data.sample.dice import Dice
from data.sample.knowledge import Fact, facts
from data.sample.wordings import wordings

MAX_STATEMENTS = {"en": 14, "zh": 22}
"""Statements a document may hold, by language: Chinese ones are shorter."""


class Statement(NamedTuple):
    """A fact put into the words of `wordings(language)[fact.relation].statements[wording]`."""

    fact: Fact
    wording: int


class Draft(NamedTuple):
    """Topic of a document, and the statements that it must contain."""

    topic: str
    statements: list[Statement]


def planned_exposures(fact: Fact, scale: float) -> int:
    """Documents of each source of its domain that state the fact.

    Below scale 1 there are fewer documents, and a fact is stated in ceil(exposures * scale) of
    them: controls stay controls and the order of the levels is kept, but low levels merge. Above
    scale 1 the levels stay what they are.
    """
    return math.ceil(fact.exposures * min(scale, 1.0))


def plan(domain: str, language: str, documents: int, scale: float, dice: Dice) -> list[Draft]:
    """About `documents` drafts in mixed order, more where so few could not hold the facts."""
    by_topic: dict[str, list[list[Statement]]] = defaultdict(list)
    for mention in _mentions(domain, language, scale, dice):
        by_topic[mention[0].fact.topic].append(mention)
    total = sum(map(len, by_topic.values()))
    drafts = []
    for topic, mentions in by_topic.items():
        share = round(documents * len(mentions) / total)
        drafts += _deal(topic, mentions, share, MAX_STATEMENTS[language], dice)
    return dice.shuffled(drafts)


def _mentions(domain: str, language: str, scale: float, dice: Dice) -> Iterator[list[Statement]]:
    """Facts about one subject that go into one document together."""
    by_subject: dict[tuple[str, str, int], list[Fact]] = defaultdict(list)
    for fact in facts():
        if fact.domain == domain:
            by_subject[fact.topic, fact.subject_en, fact.exposures].append(fact)
    for known in by_subject.values():
        counts = [len(wordings(language)[fact.relation].statements) for fact in known]
        starts = [dice.below(count) for count in counts]
        for turn in range(planned_exposures(known[0], scale)):
            mention: list[Statement] = []
            for i in dice.shuffled(range(len(known))):
                if mention and dice.below(2):
                    yield mention
                    mention = []
                mention.append(Statement(known[i], (starts[i] + turn) % counts[i]))
            yield mention


def _deal(
    topic: str, mentions: list[list[Statement]], documents: int, room: int, dice: Dice
) -> list[Draft]:
    statements = sum(map(len, mentions))
    documents = max(documents, math.ceil(statements / (0.6 * room)), 2)
    drafts = [Draft(topic, []) for _ in range(documents)]
    half = documents // 2
    for mention in dice.shuffled(mentions):
        place = dice.below(half) if dice.below(5) else half + dice.below(documents - half)
        while not _fits(mention, drafts[place].statements, room):
            place = (place + 1) % documents
        drafts[place].statements.extend(mention)
    return drafts


def _fits(mention: list[Statement], statements: list[Statement], room: int) -> bool:
    if len(statements) + len(mention) > room:
        return False
    subject = mention[0].fact.subject_en
    return all(statement.fact.subject_en != subject for statement in statements)
