"""The documents of the sample: drafts from plan.py written out by the grammars of prose.py.

`documents` is a pure function of (source, seed, scale). Another seed gives other documents that
state the same facts as often: held-out text that costs the training text no exposure.
"""

from collections.abc import Iterator
from functools import cache
from typing import NamedTuple

from data.sample.arithmetic import exercise_documents
from data.sample.dice import Dice
from data.sample.grammar import Expansion, Template, parse
from data.sample.knowledge import facts
from data.sample.plan import Draft, plan, planned_exposures
from data.sample.prose import cast, finish, prose
from data.sample.wordings import wordings

MIN_CHARACTERS = 200
"""Shorter documents get a further paragraph."""


class Source(NamedTuple):
    """Domain and language of a source, and its number of documents at scale 1."""

    domain: str
    language: str
    documents: int


SOURCES = {
    "general_en": Source("general", "en", 8100),
    "general_zh": Source("general", "zh", 5100),
    "arithmetic": Source("arithmetic", "en", 2040),
    "geo_en": Source("geo", "en", 3800),
    "geo_zh": Source("geo", "zh", 1660),
}


def documents(source: str, *, seed: int = 0, scale: float = 1.0) -> Iterator[str]:
    """The documents of a source, in mixed order, none twice.

    Args:
        source: one of SOURCES.
        seed: another seed states the same facts in other documents.
        scale: multiplies the number of documents; for exposures see `planned_exposures`.

    Raises:
        ValueError: unknown source, or a scale that is not positive.
    """
    domain, language, count = _source(source, scale)
    count = max(1, round(count * scale))
    if domain == "arithmetic":
        return exercise_documents(count, seed)
    drafts = plan(domain, language, count, scale, Dice(seed, source, "plan"))
    return (
        _write(draft, domain, language, Dice(seed, source, number))
        for number, draft in enumerate(drafts)
    )


def exposures(source: str, *, scale: float = 1.0) -> dict[str, int]:
    """Fact id -> number of documents of a source that state it, every fact of the sample included.

    Raises:
        ValueError: unknown source, or a scale that is not positive.
    """
    domain = _source(source, scale).domain
    return {
        fact.id: planned_exposures(fact, scale) if fact.domain == domain else 0 for fact in facts()
    }


def _source(name: str, scale: float) -> Source:
    if name not in SOURCES:
        raise ValueError(f"source {name!r} is not one of {', '.join(SOURCES)}")
    if not scale > 0:
        raise ValueError(f"scale={scale} must be positive")
    return SOURCES[name]


def _write(draft: Draft, domain: str, language: str, dice: Dice) -> str:
    grammar, narrative, reference = prose(domain, language, draft.topic)
    kinds = narrative if len(draft.statements) < 3 else reference
    kind = dice.pick(list(kinds))
    expansion = Expansion(grammar, dice)
    cast(expansion, kind, language, dice)
    told = []
    for fact, number in draft.statements:
        subject, object_ = fact.surface(language)
        clause, ask = _statement(fact.relation, number, language)
        expansion.bound.update(s=subject, o=object_)
        expansion.bound["fact"] = expansion.template(clause)
        expansion.bound["ask"] = expansion.template(ask)
        told.append(expansion.rule(f"{kind}_fact"))
    expansion.bound["facts"] = kinds[kind].join(told)
    text = finish(expansion.rule(kind), language)
    while len(text) < MIN_CHARACTERS:
        text += "\n\n" + finish(expansion.rule("more"), language)
    return text


@cache
def _statement(relation: str, number: int, language: str) -> tuple[Template, Template]:
    wording = wordings(language)[relation]
    return parse(wording.statements[number])[0], parse(wording.ask)[0]
