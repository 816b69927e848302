"""Records of instruction data become conversations, or are rejected with a reason."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data.prepare.conversations import openai_record
from data.records.chat_formats import NO_ANSWER, NO_QUESTION, conversation_of, messages_of
from data.records.readers import BadRecord
from data.records.record_keys import (
    ALIASES,
    CONTEXT,
    LAST_ANSWERS,
    NEGATIVE,
    PARTIAL,
    PREFERENCE,
    columns_of,
)
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


def openai(*pairs, **fields):
    return {"messages": [{"role": role, "content": text} for role, text in pairs], **fields}


def messages(*pairs):
    return [Message(*pair) for pair in pairs]


def refusal(record, **names):
    """The reason why a record does not hold a conversation."""
    with pytest.raises(BadRecord) as error:
        conversation_of(record, columns_of(**{"fields": {}, "ignore": []} | names))
    return str(error.value)


ASKED = messages(("user", "q"), ("assistant", "a"))


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


@pytest.mark.parametrize("key", ["system", "system_prompt", "system_message"])
@pytest.mark.parametrize("form", ["messages", "conversations", "instruction", "pair"])
def test_a_system_prompt_in_a_key_of_its_own_counts(key, form):
    record = {
        "messages": openai(("user", "q"), ("assistant", "a")),
        "conversations": sharegpt(("human", "q"), ("gpt", "a")),
        "instruction": {"instruction": "q", "output": "a"},
        "pair": {"question": "q", "response": "a"},
    }[form]
    expected = [Message("system", "s"), *ASKED]
    assert messages_of(record | {key: "s"}) == expected
    for nothing in ("", None, " ", [], math.nan):
        assert messages_of(record | {key: nothing}) == ASKED
    assert messages_of(record | {"system": "s", "system_prompt": "s"}) == expected
    assert refusal(record | {"system": "s", "system_prompt": "t"}) == "two different system prompts"


def test_a_system_prompt_in_a_key_of_its_own_and_among_the_turns():
    turns = [("user", "q"), ("assistant", "a")]
    expected = [Message("system", "s"), *ASKED]
    for make in (openai, sharegpt):
        assert messages_of(make(("system", "s"), *turns)) == expected
        assert messages_of(make(("system", "s"), *turns, system="")) == expected
        assert messages_of(make(("system", "s"), *turns, system="s")) == expected
        assert messages_of(make(("system", None), *turns, system="s")) == expected
        assert messages_of(make(("system", ""), *turns)) == ASKED
        assert messages_of(make(("system", None), *turns)) == ASKED
        reason = refusal(make(("system", "s"), *turns, system="t"))
        assert reason == "two different system prompts"
    assert "'system' is a number" in refusal(openai(*turns, system=4))


def test_two_keys_that_name_one_role_are_one_and_a_name_is_no_role():
    turns = [{"role": "user", "from": "human", "content": "q"}]
    turns += [{"speaker": "gpt", "role": "assistant", "content": "a"}]
    assert conversation_of({"messages": turns}) == (ASKED, (), ())
    named = [
        turn | {"speaker": "Ada"} for turn in openai(("user", "q"), ("assistant", "a"))["messages"]
    ]
    assert messages_of({"messages": named}) == ASKED
    other = [turns[0] | {"from": "gpt"}, turns[1]]
    assert messages_of({"messages": other}, columns_of({"role": "role"}, [])) == ASKED


def test_texts_are_kept_as_they_are():
    record = openai(("user", " a\u2028 "), ("assistant", "\tb\r\n</s> "))
    assert [message.content for message in messages_of(record)] == [" a\u2028 ", "\tb\r\n</s> "]


# Marks


MARKS = ["train", "training", "trainable", "loss", "loss_mask", "loss_scale", "weight"]


def marked(**mark):
    return {
        "messages": [
            {"role": "user", "content": "q"},
            {"role": "assistant", "content": "bad", **mark},
            {"role": "user", "content": "r"},
            {"role": "assistant", "content": "good"},
        ]
    }


MASKED = messages(("user", "q"), ("assistant", "bad", False), ("user", "r"), ("assistant", "good"))


@pytest.mark.parametrize(
    "mark",
    [{name: value} for name in MARKS for value in (False, 0, 0.0)]
    + [{"mask": True}, {"mask": 1}, {"masked": True}, {"train": True, "weight": 0}],
)
def test_a_marked_message_is_context(mark):
    assert messages_of(marked(**mark)) == MASKED
    # What is held out is written as such a record and read again.
    assert messages_of(openai_record(MASKED)) == MASKED


@pytest.mark.parametrize(
    "mark",
    [{name: value} for name in MARKS for value in (True, 1, 1.0, None, math.nan)]
    + [{"mask": False}, {"mask": 0}, {"mask": None}, {"train": True, "loss": None}],
)
def test_marks_that_say_learn_or_nothing_change_nothing(mark):
    conversation = conversation_of(marked(**mark))
    assert all(message.train for message in conversation.messages)
    assert conversation.passed_over == ()


def test_marks_in_other_shapes():
    agent = sharegpt(("human", "q"), ("gpt", "bad"), ("human", "r"), ("gpt", "good"))
    for turn, loss in zip(agent["conversations"], (None, False, None, True), strict=True):
        turn["loss"] = loss
    assert messages_of(agent) == MASKED
    xtuner = {
        "conversation": [
            {"system": "", "input": "q", "output": "bad", "output_with_loss": False},
            {"input": "r", "output": "good", "output_with_loss": True},
        ]
    }
    assert messages_of(xtuner) == MASKED
    trl = {
        "prompt": [
            {"role": "user", "content": "q"},
            {"role": "assistant", "content": "bad"},
            {"role": "user", "content": "r"},
        ],
        "completion": [{"role": "assistant", "content": "good"}],
    }
    assert messages_of(trl) == MASKED
    user = marked()
    user["messages"][0]["weight"] = 0
    assert messages_of(user)[0] == Message("user", "q", train=False)


@pytest.mark.parametrize("name", [*MARKS, "mask"])
@pytest.mark.parametrize("value", [0.5, 2, -1, "no", [1, 0], {}])
def test_marks_that_are_neither_yes_nor_no_are_refused_by_name(name, value):
    assert f"'{name}' is neither 0 nor 1" in refusal(marked(**{name: value}))


def test_marks_of_parts_of_a_message_are_refused_by_name():
    parts = [{"begin_offset": 0, "end_offset": 3, "train": False}]
    assert "'train_detail'" in refusal(marked(train_detail=parts))
    assert "'loss_mask' is a list" in refusal(ALPACA | {"loss_mask": [0, 1]})


@pytest.mark.parametrize(
    "fields",
    [
        {"kto_tag": False},
        {"kto_tag": 0},
        {"kto_tag": "false"},
        {"label": False},
        {"desirable": False},
        {"rejected": True},
        {"train": False},
        {"weight": 0},
        {"loss": False},
        {"trainable": "False"},
        {"mask": True},
    ],
)
def test_a_record_that_is_not_to_be_learned_is_refused_by_name(fields):
    assert f"{next(iter(fields))!r} marks a" in refusal(ALPACA | fields)
    assert f"{next(iter(fields))!r} marks a" in refusal(OPENAI | fields)


@pytest.mark.parametrize(
    "fields",
    [
        {"kto_tag": True},
        {"label": True},
        {"label": None},
        {"train": True},
        {"weight": 1},
        {"label": 0},
    ],
)
def test_a_record_that_is_to_be_learned_is(fields):
    assert messages_of(ALPACA | fields) == TRANSLATED


def test_preferences():
    chosen = {"prompt": "q", "chosen": "a", "rejected": "b"}
    assert "'chosen', 'rejected'" in refusal(chosen)
    assert messages_of(chosen, columns_of({"answer": "chosen"}, [])) == ASKED
    assert "('rejected')" in refusal({"prompt": "q", "rejected": "b"})
    turns = openai(("user", "q"), ("assistant", "a"))
    assert "'chosen'" in refusal({"chosen": turns["messages"], "rejected": turns["messages"]})
    listed = {"chosen": turns["messages"], "rejected": turns["messages"]}
    assert messages_of(listed, columns_of({"messages": "chosen"}, [])) == ASKED
    # Of LLaMA-Factory: the answers are not among the turns.
    turns_of_user = sharegpt(("human", "q"), ("gpt", "a"), ("human", "r"))
    answers = {name: {"from": "gpt", "value": name} for name in ("chosen", "rejected")}
    assert "'chosen', 'rejected'" in refusal(turns_of_user | answers)
    # Of ms-swift and UltraFeedback: the turns end with the better answer.
    conversation = conversation_of(turns | {"rejected_response": "b"})
    assert conversation == (ASKED, (), ("rejected_response",))


# Nulls, contents and roles


@pytest.mark.parametrize("record", [ALPACA, SHAREGPT, OPENAI], ids=["alpaca", "sharegpt", "openai"])
@pytest.mark.parametrize("nothing", [None, math.nan])
def test_null_columns_are_absent(record, nothing):
    columns = "instruction input output history system system_prompt messages conversations tools"
    columns += " conversation prompt completion chosen rejected images kto_tag label weight"
    conversation = conversation_of(dict.fromkeys(columns.split(), nothing) | record)
    assert conversation == (TRANSLATED, (), ())


def test_empty_columns_of_another_format_are_absent():
    nothing = {"instruction": "", "input": "", "output": "", "conversations": []}
    assert messages_of(nothing | OPENAI) == TRANSLATED
    assert messages_of({"messages": [], "conversations": []} | ALPACA) == TRANSLATED


def test_null_keys_of_turns_are_absent():
    turns = [
        {"role": "user", "content": "q", "tool_calls": None, "weight": None, "name": None},
        {
            "role": "assistant",
            "content": "a",
            "tool_calls": [],
            "function_call": None,
            "loss": None,
        },
        {"role": None, "from": "human", "content": None, "value": "r"},
        {"from": "gpt", "value": "b", "reasoning_content": "", "images": []},
    ]
    expected = [*ASKED, *messages(("user", "r"), ("assistant", "b"))]
    assert conversation_of({"messages": turns}) == (expected, (), ())


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ([{"type": "text", "text": "one"}], "one"),
        ([{"type": "text", "text": "one "}, {"type": "text", "text": "two"}], "one two"),
        ([{"text": "one"}, "two"], "onetwo"),
        ([{"type": "input_text", "text": "one"}, {"type": "output_text", "text": "2"}], "one2"),
        ([{"type": "text", "text": "one", "image_url": None, "index": 0}], "one"),
    ],
)
def test_text_parts_are_joined(content, text):
    assert messages_of(openai(("user", content), ("assistant", "a")))[0] == Message("user", text)
    assert messages_of(openai(("user", "q"), ("assistant", content)))[1].content == text
    assert messages_of(openai(("system", content), ("user", "q"), ("assistant", "a")))[
        0
    ] == Message("system", text)


@pytest.mark.parametrize(
    ("part", "named"),
    [
        ({"type": "image"}, "image"),
        ({"type": "image", "text": None}, "image"),
        ({"type": "image_url", "image_url": {"url": "x.png"}}, "image_url"),
        ({"type": "input_audio", "input_audio": {"data": "x"}}, "input_audio"),
        ({"type": "video", "video": "x.mp4"}, "video"),
        ({"type": "thinking", "thinking": "so"}, "thinking"),
        ({"type": "tool_use", "name": "f"}, "tool_use"),
        ({"type": "text", "text": "see", "image": "x.png"}, "image"),
        ({"image_url": "x.png"}, "image_url"),
        (7, "a number"),
    ],
)
def test_other_parts_are_refused_by_their_type(part, named):
    content = [{"type": "text", "text": "See"}, part]
    assert named in refusal(openai(("user", content), ("assistant", "a")))


USERS = ["user", "User", "USER", "human", "Human", " human ", "prompter", "用户"]
ASSISTANTS = ["assistant", "Assistant", "gpt", "GPT", "chatgpt", "bot", "model", "bing", "助手"]


@pytest.mark.parametrize("keys", [("role", "content"), ("from", "value"), ("from", "content")])
@pytest.mark.parametrize(
    "under", ["messages", "conversations", "conversation", "dialog", "Dialogue"]
)
def test_names_of_roles_and_keys(keys, under):
    for system in ("system", "System", "developer"):
        for place in range(max(len(USERS), len(ASSISTANTS))):
            said = [
                (system, "s"),
                (USERS[place % len(USERS)], "q"),
                (ASSISTANTS[place % len(ASSISTANTS)], "a"),
            ]
            record = {under: [dict(zip(keys, turn, strict=True)) for turn in said]}
            assert messages_of(record) == [Message("system", "s"), *ASKED]


@pytest.mark.parametrize(
    ("record", "expected"),
    [
        ({"prompt": "q", "completion": "a"}, ASKED),
        ({"question": "q", "answer": "a"}, ASKED),
        ({"query": "q", "response": "a"}, ASKED),
        ({"Question": "q", "Answer": "a"}, ASKED),
        ({"input": "q", "output": "a"}, ASKED),
        ({"id": "1", "system_prompt": "", "question": "q", "response": "a"}, ASKED),  # OpenOrca
        ({"kind": "NLI", "input": "q", "target": "a"}, ASKED),  # Firefly
        ({"inputs": "q", "targets": "a", "task": "t"}, ASKED),  # FLAN
        (
            {"instruction": "q", "context": "c", "response": "a", "category": "qa"},  # Dolly
            messages(("user", "q\nc"), ("assistant", "a")),
        ),
        ({"conversations": ["q", "a"], "source": "x"}, ASKED),  # LIMA
        ({"id": "0", "data": ["q", "a", "q", "a"]}, ASKED * 2),  # UltraChat
        ({"prompt": "q", "prompt_id": "7", **openai(("user", "q"), ("assistant", "a"))}, ASKED),
        ({"conversation": [{"human": "q", "assistant": "a"}] * 2}, ASKED * 2),  # MOSS
        ({"conversation": [{"input": "q", "output": "a"}], "source": "x"}, ASKED),  # Capybara
        ({"conversation": [["q", "a"], ["q", "a"]]}, ASKED * 2),
        ({"query": "q", "response": "a", "history": [["q", "a"]]}, ASKED * 2),  # ms-swift
        ([{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}], ASKED),
        (
            {"input": [{"role": "user", "content": "q"}], "output": "a", "reasoning": "off"},
            ASKED,  # Nemotron
        ),
        ({"instruction": "q", "input": "", "output": "a", "prompt": "Below is ... q"}, ASKED),
        ({"human": "q", "assistant": "a"}, ASKED),
        ({"user": "ann", "prompt": "q", "response": "a", "target": 1}, ASKED),
        (
            {"instruction": "q", "response": "a", **sharegpt(("human", "q"), ("gpt", "a"))},
            ASKED,  # Magpie
        ),
        (SHAREGPT | OPENAI | ALPACA, TRANSLATED),
        (
            {"question": "x or y?", "choices": {"text": ["x", "y"]}, "answer": "x"},
            messages(("user", "x or y?"), ("assistant", "x")),
        ),
        ({"problem": "q", "solution": "a", **openai(("user", "q"), ("assistant", "a"))}, ASKED),
    ],
)
def test_shapes_of_real_data_sets(record, expected):
    assert messages_of(record) == expected


# What is left off, passed over or refused


def test_a_last_question_and_a_first_answer_are_left_off_and_counted():
    turns = [("human", "q"), ("gpt", "a")]
    greeting, thanks = ("gpt", "Welcome!"), ("human", "Thanks!")
    assert conversation_of(sharegpt(*turns)) == (ASKED, (), ())
    assert conversation_of(sharegpt(*turns, thanks)) == (ASKED, (NO_ANSWER,), ())
    assert conversation_of(sharegpt(greeting, *turns)) == (ASKED, (NO_QUESTION,), ())
    both = conversation_of(sharegpt(("system", "s"), greeting, *turns, thanks))
    assert both == ([Message("system", "s"), *ASKED], (NO_QUESTION, NO_ANSWER), ())
    for record in (sharegpt(thanks), sharegpt(greeting, thanks), sharegpt(greeting)):
        assert refusal(record) == "no question with an answer"


def test_what_is_passed_over_is_named():
    record = {"id": 7, "Source": "survey", "tags": [], "note": "", "none": None, **OPENAI}
    record["messages"] = [turn | {"name": "Ann"} for turn in record["messages"]]
    record["messages"][0]["lang"] = "en"
    found = conversation_of(record)
    assert found.messages == TRANSLATED
    assert sorted(set(found.passed_over)) == [
        *("Source", "id", "lang (of messages)", "name (of messages)"),
    ]


UNUSABLE = [
    ("images", ["map.png"]),
    ("image", "a.jpg"),
    ("image", {"bytes": "x", "path": None}),
    ("Image_Path", "a.jpg"),
    ("videos", ["a.mp4"]),
    ("video_url", "http://x"),
    ("audios", ["a.wav"]),
    ("audio", "a.wav"),
    ("tools", [{"name": "w"}]),
    ("tools", '[{"name": "w"}]'),
    ("functions", [{"name": "w"}]),
    ("reasoning_content", "17*20"),
    ("thinking", "17*20"),
    ("reasoning", "17*20"),
    ("Complex_CoT", "17*20"),
]
OF_TURNS = [("tool_calls", [{"id": 1}]), ("function_call", {"name": "w"}), ("thought", "so")]


@pytest.mark.parametrize(("key", "value"), UNUSABLE)
@pytest.mark.parametrize("record", [ALPACA, SHAREGPT, OPENAI], ids=["alpaca", "sharegpt", "openai"])
def test_media_tools_and_reasoning_are_refused_by_name_or_passed_over_if_asked(record, key, value):
    assert repr(key) in refusal(record | {key: value})
    found = conversation_of(record | {key: value}, columns_of({}, [key.lower()]))
    assert found == (TRANSLATED, (), (key,))


@pytest.mark.parametrize(("key", "value"), UNUSABLE + OF_TURNS)
def test_the_same_of_messages(key, value):
    turns = [dict(turn) for turn in OPENAI["messages"]]
    turns[1][key] = value
    assert repr(key) in refusal({"messages": turns})
    found = conversation_of({"messages": turns}, columns_of({}, [key]))
    assert found == (TRANSLATED, (), (f"{key} (of messages)",))


@pytest.mark.parametrize(
    "fields",
    [
        *({"images": nothing} for nothing in ([], None, "", "[]", [None], {"bytes": None})),
        *({"tools": nothing} for nothing in ("[]", "null", [], {}, "")),
        {"reasoning": "off", "thinking": True},
        {"image_id": 7, "lang": "en", "category": "image"},
    ],
)
def test_fields_that_hold_nothing_of_that_kind_are_no_reason(fields):
    assert messages_of(ALPACA | fields) == TRANSLATED


def test_names_of_media_and_reasoning_in_texts_are_texts():
    texts = [("user", "<image> <video> what?"), ("assistant", "<think>17*26</think>442")]
    assert messages_of(openai(*texts)) == messages(*texts)


def test_a_context_that_the_turns_do_not_contain_is_refused():
    turns = openai(("user", "Passage: c. Which?"), ("assistant", "a"))
    assert messages_of(turns | {"context": "c."})
    assert "'context' holds what the messages do not contain" in refusal(
        turns | {"context": "another passage"}
    )
    assert "'instruction' holds" in refusal(turns | {"instruction": "Be brief."})
    ignored = columns_of({}, ["instruction"])
    assert conversation_of(turns | {"instruction": "Be brief."}, ignored).passed_over == (
        "instruction",
    )


BAD = [
    ("text", "not a JSON object"),
    ([ALPACA], "not a JSON object"),
    ([], "not a JSON object"),
    ({}, "no conversation under the keys ; fields= names its columns"),
    ({"text": "x", "id": 1}, "no conversation under the keys 'text', 'id'; fields= names"),
    ({"data": [ALPACA]}, "no conversation under the keys 'data'"),
    ({"ask": "q", "reply": "a"}, "under the keys 'ask', 'reply'; fields= names its columns"),
    (ALPACA | openai(("user", "q"), ("assistant", "a")), "several formats: 'messages', 'instr"),
    (
        OPENAI | {"question": "q", "answer": "hello"},
        "several formats: 'messages', 'question'",
    ),
    (OPENAI | sharegpt(("human", "q"), ("gpt", "a")), "several conversations: 'messages', 'conver"),
    (
        {"question": "q", "choices": ["x", "y"], "answer": "A"},
        "'choices' holds what the messages do not",
    ),
    (
        {"question": "q", "passage": "p", "answer": "a"},
        "'passage' holds what the messages do not",
    ),
    ({"instruction": "q"}, "'instruction' without an answer under a known key"),
    ({"answer": "a"}, "'answer' without a question under a known key"),
    ({"instruction": 3, "output": "a"}, "'instruction' is a number, not a text"),
    (ALPACA | {"input": ["x"]}, "'input' is a list, not a text"),
    (ALPACA | {"output": None}, "'instruction' without an answer"),
    (ALPACA | {"output": 42}, "'output' is a number, not a text"),
    (ALPACA | {"output": True}, "'output' is a truth value, not a text"),
    ({"question": "q", "answer": {"text": ["a"]}}, "'answer' is an object, not a text"),
    (ALPACA | {"output": ""}, "empty assistant message"),
    (ALPACA | {"output": " \n"}, "empty assistant message"),
    (ALPACA | {"instruction": "", "input": ""}, "empty user message"),
    (ALPACA | {"context": "c"}, "several columns could be the input: 'input', 'context'"),
    (
        {"question": "q", "prompt": "p", "answer": "a"},
        "could be the question: 'prompt', 'question'",
    ),
    ({"question": "q", "answer": "a", "response": "b"}, "be the answer: 'response', 'answer'"),
    ({"output": "a", "Output": "b", "instruction": "q"}, "keys 'output' and 'Output' with"),
    (ALPACA | {"history": "q"}, "'history' is not a list of pairs"),
    (ALPACA | {"history": [["q"]]}, "'history' is not a list of pairs"),
    (ALPACA | {"history": [["q", ""]]}, "empty assistant message"),
    (ALPACA | {"output": "half \ud83d"}, "lone surrogate"),
    ({"conversations": "q"}, "'conversations' is a text, not a list of messages"),
    ({"conversations": []}, "no messages"),
    ({"conversations": ["q"]}, "no question with an answer"),
    ({"conversations": [["q"]]}, "a message that is a list"),
    ({"conversations": [None]}, "a message that is null"),
    ({"conversations": [{"value": "q"}]}, "a message without 'role' or 'from'"),
    ({"conversations": [{"from": "human"}]}, "a message of the user without a content"),
    (sharegpt(("human", "q"), ("gpt", None)), "a message of the assistant without a content"),
    (
        {"messages": [{"role": "user", "content": "q", "text": "r"}]},
        "a message with several contents: 'content', 'text'",
    ),
    (
        {"messages": [{"role": "user", "from": "gpt", "content": "q"}]},
        "a message with several roles: 'role', 'from'; fields='{role: role}' says which",
    ),
    (
        {"conversations": [{"from": "human", "Speaker": "Tool", "value": "q"}]},
        "a message with several roles: 'from', 'Speaker'",
    ),
    (ALPACA | {"system": ["s1", "s2"]}, "'system' is a list of texts, and no format says what sep"),
    (openai(("user", ["q", "r"]), ("assistant", "a")), "'content' is a list of texts"),
    (sharegpt(("human", "q"), ("human", "r"), ("gpt", "a")), "two messages of the user in a row"),
    (
        sharegpt(("human", "q"), ("gpt", "r"), ("gpt", "a")),
        "two messages of the assistant in a row",
    ),
    (sharegpt(("human", "q"), ("narrator", "a")), "unknown role 'narrator'"),
    (sharegpt(("human", "q"), ("gpt-9000", "a")), "unknown role 'gpt-9000'"),
    (
        sharegpt(("human", "q"), ("gpt", "a"), ("system", "s"), ("human", "r"), ("gpt", "b")),
        "a system message that is not the first",
    ),
    (sharegpt(system="s"), "no message but the system's"),
    (sharegpt(("human", "q"), ("function_call", "f()")), "messages of tools are not supported"),
    (sharegpt(("human", "q"), ("observation", "o")), "messages of tools are not supported"),
    (openai(("user", "q"), ("tool", "o")), "messages of tools are not supported"),
    (
        {"messages": [{"role": "assistant", "content": None, "refusal": "I cannot."}]},
        "a message of the assistant without a content but with 'refusal'",
    ),
    ({"messages": [{"content": "q"}]}, "a message without 'role' or 'from'"),
    ({"messages": [{"role": 3, "content": "q"}]}, "a role that is a number, not a text"),
    (
        {"prompt": [{"role": "user", "content": "q"}], "data_source": "verl", "ability": "math"},
        "'prompt' without an answer",
    ),
    (
        {"message_id": "1", "parent_id": None, "text": "q", "role": "prompter"},
        "no conversation under the keys 'message_id', 'text', 'role'",
    ),
]


@pytest.mark.parametrize(("record", "reason"), BAD)
def test_bad_records(record, reason):
    assert reason in refusal(record)


# Any record

NAMES = [name for names in ALIASES.values() for name in names]
NAMES += [*NEGATIVE, *PREFERENCE, *PARTIAL, *CONTEXT, *LAST_ANSWERS, "tools", "images"]
NAMES += ["thinking", "mask", "data", "type", "id", "Role", "output_with_loss", "refusal"]
SCALARS = st.sampled_from([None, True, False, 0, 1, 0.5, math.nan, "", " ", "q", "[]", "\ud800"])
SCALARS |= st.sampled_from(["user", "assistant", "system", "tool", "text", "bot", "2"])
TURNS = st.builds(
    lambda role, content, extra: {"role": role, "content": content} | extra,
    st.sampled_from(["user", "assistant", "system", "gpt"]),
    st.sampled_from(["q", "a", "", None, [{"type": "text", "text": "p"}]]),
    st.dictionaries(st.sampled_from(NAMES), SCALARS, max_size=1),
)
VALUES = st.recursive(
    SCALARS | st.lists(TURNS, max_size=4),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=4)
    ),
    max_leaves=8,
)


def found_or_refused(record):
    try:
        return conversation_of(record)
    except BadRecord as reason:
        return reason


MARKED = st.dictionaries(st.sampled_from(NAMES), SCALARS, max_size=2)
WHOLE = st.sampled_from([ALPACA, {"prompt": "q", "completion": "a"}, SHAREGPT, OPENAI, {}])
WHOLE |= st.builds(
    lambda key, turns, marks: {
        key: [turn | mark for turn, mark in zip(turns["messages"], marks, strict=True)]
    },
    st.sampled_from(ALIASES["messages"]),
    st.sampled_from([openai(("user", "q"), ("assistant", "a"), ("user", "r"), ("assistant", "b"))]),
    st.lists(MARKED, min_size=4, max_size=4),
)
RECORDS = st.builds(
    lambda whole, more: whole | more,
    WHOLE,
    st.dictionaries(st.sampled_from(NAMES), VALUES, max_size=2),
)


@given(RECORDS | VALUES)
def test_any_record_is_a_conversation_that_can_be_written_again_or_refused_in_a_line(record):
    found = found_or_refused(record)
    if isinstance(found, BadRecord):
        assert 0 < len(str(found)) < 400
        assert "\n" not in str(found)
        return
    said = [m for m in found.messages if m.role != "system"]
    assert [m.role for m in said] == ["user", "assistant"] * (len(said) // 2)
    assert len(said) >= 2
    assert found.messages[-len(said) :] == said
    assert all(m.content.strip() for m in found.messages)
    assert conversation_of(openai_record(found.messages)) == (found.messages, (), ())


# A user's own columns


def test_columns_of_a_user():
    record = {"frage": "q", "antwort": "a", "prompt": "p", "hinweis": "s", "id": 1}
    columns = columns_of({"prompt": "frage", "answer": "antwort", "system": "hinweis"}, [])
    expected = ([Message("system", "s"), *ASKED], (), ("prompt", "id"))
    assert conversation_of(record, columns) == expected
    assert messages_of({"问": "q", "答": "a"}, columns_of({"question": "问", "output": "答"}, []))
    turns = {"chat": [{"who": "user", "says": "q", "ok": 1}, {"who": "bot", "says": "a", "ok": 0}]}
    columns = columns_of({"messages": "chat", "role": "who", "content": "says", "train": "ok"}, [])
    assert messages_of(turns, columns) == messages(("user", "q"), ("assistant", "a", False))
    # A column that is named says which of several it is.
    assert (
        messages_of(
            openai(("user", "q"), ("assistant", "a")) | ALPACA,
            columns_of({"messages": "messages"}, []),
        )
        == ASKED
    )
    several = {"question": "q", "answer": "no", "response": "a"}
    assert messages_of(several, columns_of({"answer": "response"}, [])) == ASKED
    assert "no column 'antwort'" in refusal(
        {"frage": "q"}, fields={"prompt": "frage", "answer": "antwort"}
    )


def test_roles_of_a_user():
    record = sharegpt(("Doctor", "Hello."), ("patient", "q"), ("doctor", "a"), ("human", "r"))
    columns = columns_of({}, [], {"assistant": "doctor", "user": "Patient "})
    assert conversation_of(record, columns) == (ASKED, (NO_QUESTION, NO_ANSWER), ())
    assert "unknown role 'Doctor'; roles= can name it" in refusal(record)
    # A tool's part may be given to the user, if the user says so.
    tool = sharegpt(("human", "q"), ("gpt", "f()"), ("observation", "r"), ("gpt", "a"))
    assert len(messages_of(tool, columns_of({}, [], {"user": "observation"}))) == 4
    for roles in ({"doctor": "user"}, {"user": ""}, {"user": "x", "assistant": "X"}, {"user": 3}):
        with pytest.raises(ValueError, match=f"^roles: '?{list(roles)[-1]}"):
            columns_of({}, [], roles)


@pytest.mark.parametrize(
    ("fields", "ignore", "message"),
    [
        (
            {"frage": "prompt"},
            [],
            "fields: 'frage' is not a part of a record; use messages, question",
        ),
        ({"prompt": ""}, [], "fields: prompt=''"),
        ({"prompt": 3}, [], "fields: prompt=3"),
        ({"prompt": "a", "question": "b"}, [], "'question' is the question, which is given twice"),
        ({"question": "a", "answer": "A"}, [], "fields: 'A' is named twice"),
        ({"messages": "a", "answer": "b"}, [], "messages hold whole conversations"),
        ({}, [""], "ignore: "),
        ({"answer": "a"}, ["a"], "ignore: 'a' is named in fields"),
    ],
)
def test_bad_columns_are_refused(fields, ignore, message):
    with pytest.raises(ValueError, match=message.replace("(", r"\(")):
        columns_of(fields, ignore)


NOT_TO_BE_LEARNED = [
    {"mask": 1},
    {"masked": "true"},
    {"train": "0"},
    {"train": "no"},
    {"loss_mask": "0.0"},
    {"desirable": 0},
    {"desirable": "False"},
    {"label": "False"},
    {"kto_tag": "no"},
    {"rejected": 1},
]


@pytest.mark.parametrize("mark", NOT_TO_BE_LEARNED, ids=str)
def test_words_and_numbers_mark_a_record_as_well(mark):
    with pytest.raises(BadRecord, match=next(iter(mark))):
        conversation_of({"question": "q", "answer": "a", **mark})


@pytest.mark.parametrize("mark", [{"mask": 0}, {"train": "yes"}, {"label": 0}, {"desirable": 1}])
def test_a_mark_that_says_learn_or_a_class_changes_nothing(mark):
    found = conversation_of({"question": "q", "answer": "a", **mark})
    assert found.messages == messages(("user", "q"), ("assistant", "a"))


@pytest.mark.parametrize("mark", [{"train": False}, {"loss": 0}, {"mask": True}, {"weight": 0.5}])
def test_a_part_that_is_not_to_be_learned_is_refused(mark):
    parts = [{"type": "text", "text": "bad", **mark}, {"type": "text", "text": "good"}]
    with pytest.raises(BadRecord, match=next(iter(mark))):
        conversation_of(openai(("user", "q"), ("assistant", parts)))


def test_a_part_that_is_to_be_learned_is_text():
    parts = [{"type": "text", "text": "good", "train": True, "weight": 1.0, "mask": 0}]
    found = conversation_of(openai(("user", "q"), ("assistant", parts)))
    assert found.messages == messages(("user", "q"), ("assistant", "good"))


@pytest.mark.parametrize("roles", [("user", "assistant"), ("human", "gpt"), ("Human", "Bot")])
def test_pairs_of_a_role_and_its_text(roles):
    turns = [[roles[0], "q"], [roles[1], "a"], [roles[0], "q2"], [roles[1], "a2"]]
    found = conversation_of({"messages": turns})
    expected = (("user", "q"), ("assistant", "a"), ("user", "q2"), ("assistant", "a2"))
    assert found.messages == messages(*expected)
    asked = conversation_of({"messages": [["What is loess?", "Silt."]]})
    assert asked.messages == messages(("user", "What is loess?"), ("assistant", "Silt."))
    with pytest.raises(BadRecord, match="some of a role"):
        conversation_of({"messages": [[roles[0], "q"], ["What?", "a"]]})
