"""The embedded corpus: reproducible, of the promised size, and exact about what it states."""

import re
from collections import Counter

import pytest

from data.sample import SOURCES, Fact, documents, exposures, facts, questions
from data.sample.grammar import TOKEN
from data.sample.invented import LEVELS
from data.sample.wordings import wordings


def pattern(statement: str, subject: str, object_: str) -> str:
    """What a statement of the wordings may look like in a finished text."""
    parts = []
    for token in TOKEN.findall(statement):
        literal = token.replace("{s}", subject).replace("{o}", object_)
        if token in "[|]":
            parts.append({"[": "(?:", "|": "|", "]": ")"}[token])
        else:
            parts.append(re.sub(r"\b([Aa])\\ ", r"\1n?\\ ", re.escape(literal)))
    first = parts[0]
    if first[0].isascii() and first[0].isalpha():
        parts[0] = f"[{first[0].lower()}{first[0].upper()}]{first[1:]}"
    elif statement.startswith("["):
        parts[0] = "(?i:"
    return r"(?<![A-Za-z\d钾])" + "".join(parts) + r"(?![A-Za-z\d]|[.,]\d)"


def statements(fact: Fact, language: str) -> list[re.Pattern]:
    subject, object_ = fact.surface(language)
    known = wordings(language)[fact.relation].statements
    return [re.compile(pattern(statement, subject, object_)) for statement in known]


def stated(pieces: list[str], source: str) -> tuple[Counter, dict[str, set[int]]]:
    """Documents that state each fact, and the wordings used for it, read off the text itself."""
    domain, language, _ = SOURCES[source]
    folded = [(text.lower(), text) for text in pieces]
    counts, used = Counter(), {}
    for fact in facts():
        if fact.domain == domain:
            subject, object_ = (name.lower() for name in fact.surface(language))
            candidates = [text for lower, text in folded if subject in lower and object_ in lower]
            patterns = statements(fact, language) if candidates else []
            found = [{i for i, p in enumerate(patterns) if p.search(text)} for text in candidates]
            counts[fact.id] = sum(map(bool, found))
            used[fact.id] = set().union(*found)
    return counts, used


@pytest.mark.parametrize("source", ["geo_en", "geo_zh"])
def test_a_small_scale_keeps_controls_and_order(source):
    planned = exposures(source, scale=0.005)
    pieces = list(documents(source, scale=0.005))
    counts, _ = stated(pieces, source)
    assert {name: counts[name] for name in planned} == planned
    assert max(map(len, pieces)) <= 2500
    level = {fact.exposures: planned[fact.id] for fact in facts() if fact.domain == "geo"}
    assert level[0] == 0
    assert 1 <= level[1] <= level[4] <= level[16] <= level[64]


def test_invented_subjects_do_not_contain_each_other():
    for language in ("en", "zh"):
        names = {fact.surface(language)[0] for fact in facts() if fact.invented}
        assert not [(a, b) for a in names for b in names if a != b and a in b]


def test_facts_are_many_and_balanced():
    known = facts()
    assert len({fact.id for fact in known}) == len(known)
    for domain in ("general", "geo"):
        chosen = [fact for fact in known if fact.domain == domain]
        assert sum(not fact.invented for fact in chosen) >= 150
        levels = Counter(fact.exposures for fact in chosen if fact.invented)
        assert set(levels) == set(LEVELS)
        assert min(levels.values()) >= 24
        assert max(levels.values()) == min(levels.values())
    assert {fact.exposures for fact in known if not fact.invented} == {1, 4, 16, 64}


@pytest.mark.parametrize("seed", [0, 1])
def test_questions(seed):
    asked = questions(seed=seed)
    known = {fact.id: fact for fact in facts()}
    assert Counter(question.fact_id for question in asked) == dict.fromkeys(known, 2)
    for question in asked:
        fact = known[question.fact_id]
        subject, object_ = fact.surface(question.language)
        assert question.options[question.answer] == object_
        assert len(set(question.options)) == 4
        assert len(set(question.distractors)) == 9
        assert object_ not in question.distractors
        assert set(question.options) <= {object_, *question.distractors}
        assert subject.lower() in question.prompt.lower()
        assert subject.lower() in question.cloze.lower()
        assert question.cloze == question.cloze.strip()
        assert not re.search(r"\b[Aa] [aeio]|[{}]", question.prompt + question.cloze)
        assert (question.exposures, question.invented) == (fact.exposures, fact.invented)
    for language in ("en", "zh"):
        for domain in ("general", "geo"):
            places = Counter(
                q.answer for q in asked if (q.language, q.domain) == (language, domain)
            )
            assert max(places.values()) - min(places.values()) <= 1


def test_distractors_would_make_a_real_fact_false():
    true = {(f.relation, f.subject_en, f.object_en) for f in facts()}
    subject = {fact.id: fact.subject_en for fact in facts()}
    for question in questions():
        claims = {(question.relation, subject[question.fact_id], o) for o in question.distractors}
        assert not claims & true


@pytest.mark.parametrize(("source", "scale"), [("geo_fr", 1.0), ("geo_en", 0.0), ("geo_en", -1.0)])
def test_wrong_arguments_are_refused(source, scale):
    with pytest.raises(ValueError, match=r"geo_fr|scale"):
        documents(source, scale=scale)
    with pytest.raises(ValueError, match=r"geo_fr|scale"):
        exposures(source, scale=scale)
