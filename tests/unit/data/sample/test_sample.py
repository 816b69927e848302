"""The embedded corpus: reproducible, of the promised size, and exact about what it states."""

import contextlib
import io
import json
import os
import re
import subprocess
import sys
import zlib
from collections import Counter

import pytest

from data.sample import SOURCES, Fact, documents, exposures, facts, questions
from data.sample.arithmetic import words
from data.sample.grammar import TOKEN
from data.sample.invented import LEVELS
from data.sample.wordings import wordings

MEGABYTES = {
    "general_en": 6.0,
    "general_zh": 4.0,
    "arithmetic": 1.5,
    "geo_en": 2.5,
    "geo_zh": 1.5,
}
PROSE = [name for name, source in SOURCES.items() if source.domain != "arithmetic"]
OUTPUT = {"stdout": subprocess.PIPE, "text": True, "check": True}
CJK = re.compile(r"[\u3000-\u303f\u4e00-\u9fff\uff00-\uffef]")


@pytest.fixture(scope="module")
def corpus() -> dict[str, list[str]]:
    """All sources at scale 1, from a process without the type checks that slow pytest's down."""
    script = (
        "import json, sys; from data.sample import SOURCES, documents\n"
        "json.dump({source: list(documents(source)) for source in SOURCES}, sys.stdout)"
    )
    return json.loads(subprocess.run([sys.executable, "-c", script], **OUTPUT).stdout)


@pytest.fixture(scope="module")
def texts(corpus) -> dict[str, str]:
    """Everything written in a language."""
    joined = {"en": [], "zh": []}
    for source, pieces in corpus.items():
        joined[SOURCES[source].language] += pieces
    return {language: "\n\n".join(pieces) for language, pieces in joined.items()}


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


def fragments(template: str) -> list[str]:
    return sorted(re.split(r"\{[so]\}", template), key=len)


def test_the_same_bytes_in_every_process():
    script = (
        "import hashlib; from data.sample import *\n"
        "digest = hashlib.sha256(repr((facts(), questions(seed=3))).encode())\n"
        "for source in SOURCES:\n"
        "    for text in documents(source, seed=1, scale=0.02): digest.update(text.encode())\n"
        "print(digest.hexdigest())"
    )
    first, second = (
        subprocess.run(
            [sys.executable, "-c", script],
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            **OUTPUT,
        ).stdout
        for hash_seed in ("1", "2")
    )
    assert first == second
    assert len(first.strip()) == 64


@pytest.mark.parametrize("source", SOURCES)
def test_sizes_and_variety(corpus, source):
    pieces = corpus[source]
    raw = "\n\n".join(pieces).encode()
    assert 0.75 < len(raw) / (MEGABYTES[source] * 1e6) < 1.25
    assert len(set(pieces)) == len(pieces)
    assert min(map(len, pieces)) >= 200
    assert max(map(len, pieces)) <= 2500
    assert len(zlib.compress(raw, 9)) > 0.18 * len(raw)


@pytest.mark.parametrize("source", SOURCES)
def test_scripts_and_punctuation(corpus, source):
    for text in corpus[source]:
        if SOURCES[source].language == "en":
            assert sum(map(str.isascii, text)) > 0.95 * len(text), text
            assert not CJK.search(text)
        else:
            assert len(CJK.findall(text)) > 0.6 * len(text), text
            assert not re.search(r"[\u4e00-\u9fff][,;!?]", text), text
        if source in PROSE:
            assert not re.search(r"[{}\[\]|]|  | $|\n\n\n|。。|\.\.|[，：]。", text), text


@pytest.mark.parametrize("source", PROSE)
def test_exposures_are_exact(corpus, source):
    counts, used = stated(corpus[source], source)
    planned = exposures(source)
    assert {name: counts[name] for name in planned} == planned
    for fact in facts():
        if planned[fact.id] >= 16:
            assert len(used[fact.id]) >= 5, fact


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


def test_another_seed_tells_the_same_facts_in_other_documents(corpus):
    planned = exposures("geo_zh", scale=0.1)
    other = list(documents("geo_zh", seed=1, scale=0.1))
    counts, _ = stated(other, "geo_zh")
    assert {name: counts[name] for name in planned} == planned
    assert not set(other) & set(corpus["geo_zh"])


def test_controls_are_never_mentioned_and_domains_are_apart(corpus):
    invented = [fact for fact in facts() if fact.invented]
    for source in PROSE:
        domain, language, _ = SOURCES[source]
        text = "\n".join(corpus[source]).lower()
        levels = {fact.surface(language)[0]: (fact.domain, fact.exposures) for fact in invented}
        for subject, (home, level) in levels.items():
            assert (subject.lower() in text) == (home == domain and level > 0), (subject, source)


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


def test_reserved_wordings_never_appear(texts):
    for language, text in texts.items():
        folded = text.lower()
        for relation, wording in wordings(language).items():
            assert len(wording.statements) >= 5, relation
            assert len(set(wording.statements)) == len(wording.statements)
            for reserved in (wording.prompt, wording.cloze):
                longest = fragments(reserved)[-1].strip()
                assert len(longest) >= (10 if language == "en" else 4), reserved
                assert longest.lower() not in folded, reserved


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


def test_arithmetic_is_true(corpus):
    number = {words(n): n for n in range(100_000)}
    equations = sentences = 0
    for text in corpus["arithmetic"][::2]:
        for left, right in re.findall(r"((?:\d+ [-+*/] )+\d+) = (\d+)(?![\d,])", text):
            assert eval(left) == int(right), text
            equations += 1
        found = re.findall(r"([\w -]+?) (plus|minus|times) ([\w -]+?) is ([\w -]+)\.", text.lower())
        for a, operation, b, result in found:
            sign = {"plus": 1, "minus": -1, "times": 0}[operation]
            a, b, result = (number[text.strip()] for text in (a, b, result))
            assert result == (a + sign * b if sign else a * b)
            sentences += 1
    assert equations > 5_000
    assert sentences > 500


def test_programs_print_what_the_text_says(corpus):
    ran = 0
    for text in corpus["arithmetic"][::3]:
        for block in text.split("\n\n"):
            found = re.fullmatch(r"Program:\n(.*)\nTrace[^\n]*:\n.*\nOutput:\n(.*)", block, re.S)
            if found:
                printed = io.StringIO()
                with contextlib.redirect_stdout(printed):
                    exec(found[1], {})
                assert printed.getvalue().rstrip("\n") == found[2]
                ran += 1
    assert ran > 300


def test_conversions_and_traces(corpus):
    seconds = {"second": 1, "minute": 60, "hour": 3600, "day": 86_400, "week": 604_800}
    checked = 0
    for text in corpus["arithmetic"]:
        for line in re.findall(r"^[\d,]+ (?:second|minute|hour|day)s? = .*$", text, re.M):
            left, right = (
                sum(
                    int(number.replace(",", "")) * seconds[unit]
                    for number, unit in re.findall(r"([\d,]+) ([a-z]+?)s?\b", side)
                )
                for side in line.split(" = ")
            )
            assert left == right, line
            checked += 1
        for numbers, shown in re.findall(r"sort of (\[.*\])\n(?:.*\n)*?.*-> (\[.*\])\nsm", text):
            assert sorted(eval(numbers)) == eval(shown)
    assert checked > 500


@pytest.mark.parametrize(("source", "scale"), [("geo_fr", 1.0), ("geo_en", 0.0), ("geo_en", -1.0)])
def test_wrong_arguments_are_refused(source, scale):
    with pytest.raises(ValueError, match=r"geo_fr|scale"):
        documents(source, scale=scale)
    with pytest.raises(ValueError, match=r"geo_fr|scale"):
        exposures(source, scale=scale)
