# ruff: noqa: E501 templates stand on one line each
"""Templates are rendered as transformers renders them, and none can hold up a command."""

import re

import pytest

from tokenizer.template import MOST_STEPS, ChatTemplate, RefusedByTemplate

TOKENS = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"}
SAID = [
    {"role": "system", "content": "s < & > \" ' é"},
    {"role": "user", "content": " one\n"},
    {"role": "assistant", "content": "two"},
    {"role": "user", "content": "three"},
]


def template(source: str) -> ChatTemplate:
    return ChatTemplate(source, TOKENS, "folder")


def theirs(source: str, **options: object) -> str:
    from transformers.utils.chat_template_utils import render_jinja_template

    return render_jinja_template([SAID], chat_template=source, **options, **TOKENS)[0][0]


SOURCES = [
    "{% for m in messages %}\n  {% if m.role == 'user' %}\n{{ m['content'] }}\n  {% endif %}\n{% endfor %}",
    "{{ bos_token }}{{ eos_token }}{{ pad_token }}{{ unk_token }}{{ cls_token }}|{{ nothing }}|",
    "{{ messages | tojson }}{{ messages[0] | tojson(indent=2) }}{{ {'b': 1, 'a': 'é'} | tojson(sort_keys=True) }}",
    "{% for m in messages %}{% if loop.index == 2 %}{% continue %}{% endif %}{{ m.role }}{% if loop.index == 3 %}{% break %}{% endif %}{% endfor %}",
    "{% set ns = namespace(n=0) %}{% for m in messages %}{% set ns.n = ns.n + 1 %}{% endfor %}{{ ns.n }}",
    "{% macro show(m) %}{{ m.role ~ ':' ~ m.content | trim }}{% endmacro %}{% for m in messages %}{{ show(m) }}\n{% endfor %}",
    "{% if tools is none and documents is none %}plain{% endif %}{% if add_generation_prompt %}ask{% endif %}",
    "{% if tools is not none %}x{% endif %}{{ tools }}{{ messages[1:] | length }}{{ messages[-1].content }}",
    "{% generation %}\n{{ messages[2].content }}{% endgeneration %}\n!",
    "{{ '%s-%03d' % (messages[1].role, 7) }}{{ 'ab' * 3 }}{{ 2 ** 5 }}{{ 7 // 2 }}{{ [1] + [2] }}",
    "{{- messages[0].content }}   {#- a comment -#}   {{ dict(a=1).a }}{{ messages[1].content.strip() }}",
    "{%- set x = messages | selectattr('role', 'equalto', 'user') | list -%}{{ x | map(attribute='content') | join('|') }}",
    "{{ messages[0].content.split(' ') }}{{ messages[0].content | upper | replace('S', 'z') }}",
]  # fmt: skip


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("answer", [False, True])
def test_texts_are_those_of_transformers(source, answer):
    ours = template(source).render(SAID, answer=answer)
    assert ours == theirs(source, add_generation_prompt=answer)


def test_the_date_is_a_fixed_one():
    assert template("{{ strftime_now('%d %b %Y') }}").render(SAID) == "26 Jul 2024"


@pytest.mark.parametrize(
    ("source", "place", "reason"),
    [
        ("{% for m in messages %}{% if m.role == 'assistant' %}{{ raise_exception('no answers') }}"
         "{% endif %}{% endfor %}", r"messages\[2\] \(assistant\)", "no answers"),
        ("{{ raise_exception('never') }}", r"messages\[0\] \(system\)", "never"),
        ("{% for m in messages %}", r"messages\[0\]", "endfor"),
        ("{{ messages[9].content.upper() }}", r"messages\[0\]", "no element 9"),
        ("{{ messages[2].content }}{{ 1 / (messages | length - 4) }}", r"messages\[3\]", "zero"),
        ("{{ ''.__class__.__mro__ }}", r"messages\[0\]", "__class__|__mro__|unsafe"),
        ("{{ messages.append(1) }}", r"messages\[0\]", "append|unsafe|not safely"),
        ("{% include 'other' %}", r"messages\[0\]", "loader"),
        ("{{ namespace(_x=1) }}", r"messages\[0\]", "_x"),
    ],
)  # fmt: skip
def test_refusals_name_the_message(source, place, reason):
    with pytest.raises(RefusedByTemplate, match=f"{place}.*template of folder.*refuses") as refusal:
        template(source).render(SAID)
    assert re.search(reason, str(refusal.value))


@pytest.mark.parametrize(
    "source",
    [
        "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
        "{% set r = range(99999) | list %}{% for a in r %}{% for b in r %}x{% endfor %}{% endfor %}",
        "{% macro f() %}{{ f() }}{{ f() }}{% endmacro %}{{ f() }}",
        "{% set ns = namespace(x='ab') %}{% for i in range(60) %}{% set ns.x = ns.x + ns.x %}{% endfor %}",
        "{% set ns = namespace(x='ab') %}{% for i in range(60) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}",
        "{{ 'a' * 10000000000 }}",
        "{{ [0] * 10000000000 }}",
        "{{ 10 ** 1000000000 }}",
        "{{ '%10000000000d' % 1 }}",
        "{{ range(10000000000) | list }}",
        "x" * 1_000_001,
    ],
)  # fmt: skip
def test_a_template_without_end_is_refused(source, monkeypatch):
    monkeypatch.setattr("tokenizer.template.LONGEST_TEXT", 100_000)
    monkeypatch.setattr(
        "tokenizer.template._Budget.__init__.__defaults__", (20_000,), raising=False
    )
    with pytest.raises(RefusedByTemplate, match=r"messages\[0\]"):
        template(source).render(SAID[:1])


def test_limits_hold_for_one_rendering():
    source = "{% for a in range(1000) %}{% for m in messages %}{{ m.role }}{% endfor %}{% endfor %}"
    one = template(source)
    assert MOST_STEPS > 5 * 1000
    for _ in range(3):
        assert len(one.render(SAID)) == 1000 * len("systemuserassistantuser")


def test_contents_are_found_where_they_are_written():
    source = (
        "{% for m in messages %}[{{ m.role }}]{{ m.content | trim }}{% generation %}!"
        "{% endgeneration %}{% endfor %}{{ messages[1].content }}"
    )
    found = template(source).locate(SAID)
    assert found.text == template(source).render(SAID)
    assert found.contents is not None
    for spans, message in zip(found.contents, SAID, strict=True):
        assert {found.text[a:b] for a, b in spans} == {message["content"].strip()}
    assert [len(spans) for spans in found.contents] == [1, 2, 1, 1]
    assert [found.text[a:b] for a, b in found.generated] == ["!"] * 4


@pytest.mark.parametrize(
    "source",
    [
        "{% for m in messages %}{{ m.content[:2] }}{% endfor %}",
        "{% for m in messages %}{{ m.content | reverse }}{% endfor %}",
        "{% for m in messages %}{{ m.content | length }}{{ m.content }}{% endfor %}",
        "{% for m in messages %}{% if m.content.startswith('two') %}{{ m.content }}{% endif %}{% endfor %}",
        "{% for m in messages %}{{ m.content.split('r')[-1] }}{% endfor %}",
    ],
)
def test_contents_that_cannot_be_told_are_not_guessed(source):
    found = template(source).locate(SAID)
    assert found.text == template(source).render(SAID)
    assert found.contents is None


def test_the_digest_follows_what_decides_the_text():
    one = template("{{ eos_token }}")
    assert one.digest == ChatTemplate("{{ eos_token }}", {"eos_token": "</s>"}, "other").digest
    assert one.digest != ChatTemplate("{{ eos_token }}", {"eos_token": "<e>"}, "folder").digest
    assert one.digest != template("{{ eos_token }} ").digest
