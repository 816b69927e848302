"""The grammar of each source and topic, the people in it, and the finish of a text."""

import re
from functools import cache
from typing import NamedTuple

from data.sample import (
    lexicon_en,
    lexicon_zh,
    narratives_general_en,
    narratives_general_zh,
    narratives_geo_en,
    narratives_geo_zh,
    references_general_en,
    references_general_zh,
    scenes_en,
    scenes_zh,
    topics_geo_en,
    topics_geo_zh,
)
from data.sample.dice import Dice
from data.sample.grammar import Expansion, Grammar

GIVEN = {"p", "he", "him", "his", "they", "q", "fact", "ask", "facts"}
"""Names that `cast` and corpus.py bind."""
FIRST_PERSON = ("diary", "letter")
"""Kinds in which {p} is the writer."""
PRONOUNS = {
    ("en", "writer"): {"p": "I", "he": "I", "him": "me", "his": "my", "they": "we"},
    ("en", "woman"): {"he": "she", "him": "her", "his": "her", "they": "they"},
    ("en", "man"): {"he": "he", "him": "him", "his": "his", "they": "they"},
    ("zh", "writer"): {"p": "我", "he": "我", "him": "我", "his": "我的", "they": "我们"},
    ("zh", "woman"): {"he": "她", "him": "她", "his": "她的", "they": "她们"},
    ("zh", "man"): {"he": "他", "him": "他", "his": "他的", "they": "他们"},
}


class Prose(NamedTuple):
    """A grammar with a rule for each kind of document; kind -> what separates its facts."""

    grammar: Grammar
    narrative: dict[str, str]
    reference: dict[str, str]


@cache
def prose(domain: str, language: str, topic: str) -> Prose:
    """The prose of a domain in a language, for documents about a topic."""
    match domain, language:
        case "general", "en":
            narratives, references = narratives_general_en, references_general_en
            text = lexicon_en.LEXICON_EN + scenes_en.SCENES_EN
            text += narratives.NARRATIVES_GENERAL_EN + references.REFERENCES_GENERAL_EN
        case "general", "zh":
            narratives, references = narratives_general_zh, references_general_zh
            text = lexicon_zh.LEXICON_ZH + scenes_zh.SCENES_ZH
            text += narratives.NARRATIVES_GENERAL_ZH + references.REFERENCES_GENERAL_ZH
        case "geo", "en":
            narratives = references = narratives_geo_en
            text = lexicon_en.LEXICON_EN + narratives.NARRATIVES_GEO_EN
            text += topics_geo_en.TOPICS_GEO_EN[topic]
        case _:
            narratives = references = narratives_geo_zh
            text = lexicon_zh.LEXICON_ZH + narratives.NARRATIVES_GEO_ZH
            text += topics_geo_zh.TOPICS_GEO_ZH[topic]
    joiner = " " if language == "en" else ""
    grammar = Grammar(text, GIVEN, joiner)
    return Prose(grammar, narratives.NARRATIVE_KINDS, references.REFERENCE_KINDS)


def cast(expansion: Expansion, kind: str, language: str, dice: Dice) -> None:
    """Bind {p}, the person a document is about, with pronouns, and {q}, a friend."""
    role = "writer" if kind in FIRST_PERSON else dice.pick(("woman", "man"))
    if role != "writer":
        expansion.bound["p"] = expansion.rule(role)
    expansion.bound.update(PRONOUNS[language, role])
    expansion.bound["q"] = expansion.rule("name")


BREAK = re.compile(r" */[/ ]*")
ARTICLE = re.compile(r"\b([Aa])(?= (?!uni|use|usu|eu|one|ura)[aeiou])", re.IGNORECASE)
START = re.compile(r'((?:^|[.!?] )(?:- )?(?:[A-Z]\w+ \d+: )?"?)([a-z])', re.MULTILINE)


def finish(text: str, language: str) -> str:
    """Break lines at ` / ` and ` // `; put English "an" and capitals, take out Chinese blanks."""
    text = BREAK.sub(lambda found: "\n\n" if "//" in found[0] else "\n", text).strip()
    if language == "zh":
        return text.replace(" ", "")
    text = ARTICLE.sub(r"\1n", re.sub(" +", " ", text))
    return START.sub(lambda found: found[1] + found[2].upper(), text)
