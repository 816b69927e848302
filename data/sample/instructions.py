"""Questions and answers about the facts of the sample, as conversations for instruction tuning.

Every fact that some document states (exposures > 0) has a conversation for each of its wordings:
its question in several frames, and the start of every statement that ends with the object. The
answer is the object. Facts that no document states have no conversation: they stay controls.
The wordings reserved for `questions()` do not occur.
"""

import re
from collections.abc import Iterator
from typing import NamedTuple

from data.sample.dice import Dice
from data.sample.knowledge import Fact, facts
from data.sample.prose import finish
from data.sample.wordings import wordings


class Topic(NamedTuple):
    """Domain and language of a source of conversations."""

    domain: str
    language: str


INSTRUCTIONS = {
    "qa_general_en": Topic("general", "en"),
    "qa_general_zh": Topic("general", "zh"),
    "qa_geo_en": Topic("geo", "en"),
    "qa_geo_zh": Topic("geo", "zh"),
}
"""The sources of conversations that the sample has."""

FRAMES = {
    "en": (
        "{ask}?",
        "Question: {ask}?",
        "I have forgotten something: {ask}?",
        "A pupil wants to know: {ask}?",
        "Tell me briefly: {ask}?",
        "Answer in a few words. {ask}?",
    ),
    "zh": (
        "{ask}？",
        "问题：{ask}？",
        "我忘了一件事：{ask}？",
        "有个学生想知道：{ask}？",
        "请简短地告诉我：{ask}？",
        "请用几个字回答。{ask}？",
    ),
}
"""Frames of a question; {ask} is `wordings(language)[relation].ask`."""

COMPLETE = {"en": "Complete: {begun}", "zh": "请补全：{begun}"}
"""Request to complete a statement."""

SYSTEM = {
    "en": ("You are a helpful teacher.", "You answer questions shortly.", "You know many facts."),
    "zh": ("你是一位乐于助人的老师。", "你简短地回答问题。", "你知道许多事实。"),
}
_STOP = {"en": ".", "zh": "。"}
_VARIANTS = re.compile(r"\[([^\]]*)\]")


def conversations(source: str, *, seed: int = 0) -> Iterator[list[dict[str, str]]]:
    """The conversations of a source, in mixed order, as OpenAI messages.

    Every fourth begins with a system message, every fourth asks about a second fact.

    Raises:
        ValueError: unknown source.
    """
    if source not in INSTRUCTIONS:
        raise ValueError(f"source {source!r} is not one of {', '.join(INSTRUCTIONS)}")
    domain, language = INSTRUCTIONS[source]
    dice = Dice(seed, "instructions", source)
    known = [fact for fact in facts() if fact.domain == domain and fact.exposures]
    asked = [(fact, text) for fact in known for text in requests(fact, language, dice)]
    for fact, text in dice.shuffled(asked):
        messages = []
        if not dice.below(4):
            messages.append({"role": "system", "content": dice.pick(SYSTEM[language])})
        messages += exchange(fact, text, language)
        if not dice.below(4):
            other = dice.pick(known)
            messages += exchange(other, dice.pick(requests(other, language, dice)), language)
        yield messages


def requests(fact: Fact, language: str, dice: Dice) -> list[str]:
    """All wordings of the question for a fact; `dice` picks among the variants of a statement."""
    subject, _ = fact.surface(language)
    wording = wordings(language)[fact.relation]
    texts = [frame.replace("{ask}", wording.ask) for frame in FRAMES[language]]
    for statement in wording.statements:
        begun, found, rest = statement.partition("{o}")
        if found and not rest:
            begun = _VARIANTS.sub(lambda match: dice.pick(match[1].split("|")), begun)
            texts.append(COMPLETE[language].replace("{begun}", begun.strip()))
    return [finish(text.replace("{s}", subject), language) for text in texts]


def exchange(fact: Fact, request: str, language: str) -> list[dict[str, str]]:
    """A request for a fact and the answer."""
    _, object_ = fact.surface(language)
    return [
        {"role": "user", "content": request},
        {"role": "assistant", "content": answer(object_, language)},
    ]


def answer(object_: str, language: str) -> str:
    """The object of a fact as an answer."""
    return finish(object_ + _STOP[language], language)
