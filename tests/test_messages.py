"""Records of instruction data become conversations, or are rejected with a reason."""

import gzip
import json

import pytest
import zstandard

from data.messages import messages_of, read_conversations
from data.readers import BadRecord
from tokenizer.chat import Message

ALPACA = {"instruction": "Translate.", "input": "hola", "output": "hello"}
SHAREGPT = {
    "conversations": [
        {"from": "human", "value": "Translate.\nhola"},
        {"from": "gpt", "value": "hello"},
    ]
}
OPENAI = {
    "messages": [
        {"role": "user", "content": "Translate.\nhola"},
        {"role": "assistant", "content": "hello"},
    ]
}
TRANSLATED = [Message("user", "Translate.\nhola"), Message("assistant", "hello")]


def sharegpt(*pairs, **fields):
    return {"conversations": [{"from": role, "value": text} for role, text in pairs], **fields}


def openai(*pairs):
    return {"messages": [{"role": role, "content": text} for role, text in pairs]}


@pytest.mark.parametrize("record", [ALPACA, SHAREGPT, OPENAI], ids=["alpaca", "sharegpt", "openai"])
def test_three_formats_say_the_same(record):
    assert messages_of(record) == TRANSLATED
    assert messages_of(record | {"source": "somewhere", "id": 7}) == TRANSLATED


def test_alpaca_with_system_and_history():
    record = {
        "instruction": "And this?",
        "input": None,
        "output": "c",
        "system": "Be brief.",
        "history": [["one", "a"], ["two", "b"]],
    }
    assert messages_of(record) == [
        Message("system", "Be brief."),
        Message("user", "one"),
        Message("assistant", "a"),
        Message("user", "two"),
        Message("assistant", "b"),
        Message("user", "And this?"),
        Message("assistant", "c"),
    ]


@pytest.mark.parametrize(
    ("fields", "question"),
    [
        ({"input": ""}, "Why?"),
        ({"input": None}, "Why?"),
        ({"input": "x"}, "Why?\nx"),
        ({"input": "\nx"}, "Why?\n\nx"),
        ({"instruction": "", "input": "x"}, "x"),
    ],
)
def test_an_input_follows_its_instruction(fields, question):
    record = {"instruction": "Why?", "output": "So."} | fields
    assert messages_of(record)[0] == Message("user", question)


def test_a_system_prompt_stands_beside_or_among_the_turns():
    turns = [("user", "q"), ("assistant", "a")]
    expected = [Message("system", "s"), Message("user", "q"), Message("assistant", "a")]
    assert messages_of(sharegpt(*turns, system="s")) == expected
    assert messages_of(sharegpt(("system", "s"), *turns)) == expected
    assert messages_of(sharegpt(("system", "s"), *turns, system="")) == expected
    assert messages_of(openai(("system", "s"), *turns)) == expected


def test_texts_are_kept_as_they_are():
    record = openai(("user", " a\u2028 "), ("assistant", "\tb\r\n</s> "))
    assert [message.content for message in messages_of(record)] == [" a\u2028 ", "\tb\r\n</s> "]


BAD = [
    ("text", "not a JSON object"),
    ([ALPACA], "not a JSON object"),
    ({}, "no instruction, conversations or messages"),
    ({"text": "a document"}, "no instruction, conversations or messages"),
    ({"prompt": "q", "completion": "a"}, "no instruction, conversations or messages"),
    (ALPACA | OPENAI, "keys of several formats"),
    ({"instruction": "q"}, "an instruction without output"),
    ({"instruction": 3, "output": "a"}, "the content of a message is not a string"),
    (ALPACA | {"input": ["x"]}, "the content of a message is not a string"),
    (ALPACA | {"output": None}, "the content of a message is not a string"),
    (ALPACA | {"system": 4}, "the content of a message is not a string"),
    (ALPACA | {"output": ""}, "empty assistant message"),
    (ALPACA | {"output": " \n"}, "empty assistant message"),
    (ALPACA | {"instruction": "", "input": ""}, "empty user message"),
    (ALPACA | {"history": "q"}, "history is not a list of pairs"),
    (ALPACA | {"history": [["q"]]}, "history is not a list of pairs"),
    (ALPACA | {"history": [["q", ""]]}, "empty assistant message"),
    (ALPACA | {"output": "half \ud83d"}, "lone surrogate"),
    ({"conversations": "q"}, "the messages are not a list"),
    ({"conversations": []}, "no messages"),
    ({"conversations": ["q"]}, "a message without 'from'"),
    ({"conversations": [{"role": "user", "content": "q"}]}, "a message without 'from'"),
    ({"conversations": [{"from": "human"}]}, "a message without 'value'"),
    (sharegpt(("human", "q")), "the last message has no answer"),
    (sharegpt(("human", "q"), ("gpt", "a"), ("human", "r")), "the last message has no answer"),
    (sharegpt(("gpt", "a")), "user and assistant do not take turns, user first"),
    (
        sharegpt(("human", "q"), ("human", "r"), ("gpt", "a")),
        "user and assistant do not take turns, user first",
    ),
    (sharegpt(("human", "q"), ("bing", "a")), "unknown role"),
    (
        sharegpt(("human", "q"), ("system", "s"), ("gpt", "a")),
        "a system message that is not the first",
    ),
    (sharegpt(("system", "s"), system="t"), "two system prompts"),
    (sharegpt(system="s"), "no message but the system's"),
    (sharegpt(("human", "q"), ("function_call", "f()")), "messages of tools are not supported"),
    (sharegpt(("human", "q"), ("observation", "o")), "messages of tools are not supported"),
    (openai(("user", "q"), ("tool", "o")), "messages of tools are not supported"),
    (
        {"messages": [{"role": "assistant", "content": None, "tool_calls": [{"id": 1}]}]},
        "messages of tools are not supported",
    ),
    (openai(("user", [{"type": "text"}])), "the content of a message is not a string"),
    (openai(("user", "q"), ("assistant", None)), "the content of a message is not a string"),
    ({"messages": [{"content": "q"}]}, "a message without 'role'"),
    ({"messages": [{"role": 3, "content": "q"}]}, "a message without 'role'"),
    (
        {"messages": [{"role": "assistant", "content": "q", "weight": 0}]},
        "weights of messages are not supported",
    ),
]


@pytest.mark.parametrize(("record", "reason"), BAD)
def test_bad_records(record, reason):
    with pytest.raises(BadRecord) as error:
        messages_of(record)
    assert str(error.value) == reason


def lines_of(*records):
    return b"".join(json.dumps(record).encode() + b"\n" for record in records)


FORMS = {
    "a.json": lambda records: json.dumps(records).encode(),
    "bom.json": lambda records: b"\xef\xbb\xbf" + json.dumps(records).encode(),
    "a.jsonl": lambda records: lines_of(*records),
    "windows.jsonl": lambda records: lines_of(*records).replace(b"\n", b"\r\n"),
    "a.jsonl.gz": lambda records: gzip.compress(lines_of(*records)),
    "a.jsonl.zst": lambda records: zstandard.compress(lines_of(*records)),
}


@pytest.mark.parametrize("name", FORMS)
def test_files_give_the_same_records(tmp_path, name):
    path = tmp_path / name
    path.write_bytes(FORMS[name]([ALPACA, {"x": 1}, SHAREGPT, OPENAI]))
    entries = list(read_conversations([str(path)]))
    first = 0 if name.endswith(".json") else 1
    assert [entry.line for entry in entries] == list(range(first, first + 4))
    assert {entry.file for entry in entries} == {str(path)}
    assert isinstance(entries[1].messages, BadRecord)
    assert [entries[i].messages for i in (0, 2, 3)] == [TRANSLATED] * 3


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"{", "invalid JSON"),
        (b"[" * 100_000, "invalid JSON"),
        (b'{"instruction": "\xff"}', "invalid UTF-8"),
        (b"  ", "empty line"),
        (b"", "empty line"),
        (b"null", "not a JSON object"),
        (b'{"instruction": "a", "output": "\\ud800"}', "lone surrogate"),
    ],
)
def test_bad_lines_are_reported_and_the_others_read(tmp_path, line, reason):
    path = tmp_path / "a.jsonl"
    path.write_bytes(lines_of(ALPACA) + line + b"\n" + lines_of(OPENAI))
    before, bad, after = read_conversations([str(path)])
    assert before.messages == after.messages == TRANSLATED
    assert (bad.line, str(bad.messages)) == (2, reason)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "not JSON"),
        (b"[1, 2", "not JSON"),
        (b'["\xff"]', "not JSON"),
        (lines_of(ALPACA, ALPACA), "name it .jsonl"),
        (b'{"instruction": "a"}', "not an array"),
    ],
)
def test_a_file_that_is_no_array_is_fatal(tmp_path, content, reason):
    path = tmp_path / "a.json"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=reason) as error:
        list(read_conversations([str(path)]))
    assert str(path) in str(error.value)


def test_files_without_records_give_none(tmp_path):
    (tmp_path / "a.json").write_text("[]")
    (tmp_path / "b.jsonl").touch()
    paths = [str(tmp_path / name) for name in ("a.json", "b.jsonl")]
    assert list(read_conversations(paths)) == []
