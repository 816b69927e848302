"""The grammar of each source and topic, the people in it, and the finish of a text.

A rule named after a kind of document (text/kinds.yaml) is a whole document: ` / ` breaks the
line, ` // ` the paragraph; {facts} are its facts, each written by `<kind>_fact` around {fact}
or {ask}. Sentences of the scenes are in the past tense about {p}, who is also {he}, {his}, {him}
and, with {q}, {they}. They state nothing about the subjects of the facts. `explain` sentences of
the topics are true of the Earth in general; `observe` sentences report invented observations.
"""

import re
from functools import cache
from typing import NamedTuple

from data.sample.dice import Dice
from data.sample.grammar import Expansion, Grammar
from data.sample.texts import read_table, read_texts, read_topic

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
    if domain == "general":
        names = ("lexicon", "scenes", "narratives_general", "references_general")
        text = read_texts(*(f"{name}_{language}" for name in names))
    else:
        text = read_texts(f"lexicon_{language}", f"narratives_geo_{language}")
        text += read_topic(f"topics_geo_{language}", topic)
    kinds = read_table("kinds")[f"{domain}_{language}"]
    grammar = Grammar(text, GIVEN, " " if language == "en" else "")
    return Prose(grammar, kinds["narrative"], kinds["reference"])


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
