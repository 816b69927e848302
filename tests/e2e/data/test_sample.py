"""The embedded corpus: the same bytes in every process, the promised sizes, exact statements."""

import contextlib
import io
import json
import os
import re
import subprocess
import sys
import zlib

import pytest

from data.sample import SOURCES, documents, exposures, facts
from data.sample.arithmetic import words
from data.sample.wordings import wordings
from tests.unit.data.sample.test_sample import stated

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
