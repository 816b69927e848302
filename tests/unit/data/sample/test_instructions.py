"""The questions and answers of the sample: about what is shown, in no reserved wording."""

import re
from functools import cache

import pytest

from data.records.chat_formats import messages_of
from data.sample.dice import Dice
from data.sample.instructions import FRAMES, INSTRUCTIONS, answer, conversations, requests
from data.sample.knowledge import facts
from data.sample.probes import questions


@cache
def made_of(source):
    """All conversations of a source, made once: they take a second."""
    return list(conversations(source))


@pytest.mark.parametrize("source", INSTRUCTIONS)
def test_every_shown_fact_is_asked_in_all_its_wordings_and_no_control_is(source):
    domain, language = INSTRUCTIONS[source]
    made = made_of(source)
    assert all(messages_of({"messages": messages}) for messages in made)
    first = [next(m for m in messages if m["role"] == "user")["content"] for messages in made]
    answers = {(m[-1]["content"]) for m in made}
    shown = [fact for fact in facts() if fact.domain == domain and fact.exposures]
    assert len(first) == sum(len(requests(f, language, Dice(0, "any"))) for f in shown)
    assert answers <= {answer(fact.surface(language)[1], language) for fact in shown}
    controls = [fact for fact in facts() if fact.domain == domain and not fact.exposures]
    assert controls
    subjects = {fact.surface(language)[0] for fact in shown}
    text = "\n".join(first)
    for fact in controls:
        subject = fact.surface(language)[0]
        if subject not in subjects:
            pattern = re.compile(rf"\b{re.escape(subject)}\b" if language == "en" else subject)
            assert not pattern.search(text), subject


@pytest.mark.parametrize("source", INSTRUCTIONS)
def test_reserved_wordings_do_not_occur(source):
    domain, language = INSTRUCTIONS[source]
    said = {m["content"] for messages in made_of(source) for m in messages}
    reserved = {q.prompt for q in questions() if (q.domain, q.language) == (domain, language)}
    assert not said & reserved
    clozes = [q.cloze for q in questions() if (q.domain, q.language) == (domain, language)]
    assert not [text for text in said for cloze in clozes[:50] if cloze in text]


def test_they_follow_from_the_seed():
    one, same, other = (list(conversations("qa_geo_en", seed=s)) for s in (0, 0, 1))
    assert one == same
    assert one != other
    assert {len(messages) for messages in one} == {2, 3, 4, 5}


def test_the_frames_ask_in_full_sentences():
    fact = next(f for f in facts() if f.id == "country_capital/France")
    english, chinese = (requests(fact, language, Dice(0, "x")) for language in ("en", "zh"))
    assert english[0] == "What is the capital of France?"
    assert "Complete: the capital of France is" in english
    assert chinese[1] == "问题：法国的首都是哪里？"
    assert len(english) > len(FRAMES["en"])
    assert all(
        "{" not in text and "[" not in text and "|" not in text for text in english + chinese
    )


def test_an_unknown_source_is_refused():
    with pytest.raises(ValueError, match="'qa' is not one of qa_general_en"):
        next(conversations("qa"))
