"""Conversations in the terminal."""

import json

import pytest

from inference.generation.chat import Conversation
from inference.generation.engine import Engine
from inference.generation.load import LoadedModel
from inference.generation.sampling import SamplingConfig
from scripts import chat
from tests.helpers.toy import toy_config, toy_model
from tokenizer.chat import Message
from tokenizer.tokenizer import Tokenizer

SHORT = SamplingConfig(max_new_tokens=6)


@pytest.fixture(scope="module")
def tokenizer(sample):
    return Tokenizer.open(sample / "tokenizer")


def network(tokenizer, **changes):
    return toy_model(toy_config(vocab_size=tokenizer.vocab_size, **changes))


def conversation(tokenizer, sampling=SHORT, **changes):
    return Conversation(LoadedModel(Engine(network(tokenizer, **changes)), tokenizer, []), sampling)


def typed(monkeypatch, *lines):
    """Let input() give these lines, then the end; an exception among them is raised."""
    waiting = iter(lines)

    def read(prompt=""):
        line = next(waiting, EOFError())
        if isinstance(line, str):
            return line
        raise line

    monkeypatch.setattr("builtins.input", read)


def test_turns_are_kept_and_decide_the_answer(tokenizer):
    talk = conversation(tokenizer)
    first = "".join(talk.answer("what is loess?"))
    assert talk.turns == [Message("user", "what is loess?"), Message("assistant", first.strip())]
    assert talk.finished == "length"
    "".join(talk.answer("and now?"))
    assert [turn.role for turn in talk.turns] == ["user", "assistant"] * 2
    talk.reset()
    assert talk.messages() == []


def test_an_answer_that_nobody_waits_for(tokenizer):
    talk = conversation(tokenizer, SamplingConfig(max_new_tokens=50))
    pieces = talk.answer("what is loess?")
    said = next(pieces) + next(pieces)
    pieces.close()
    assert talk.finished == "interrupted"
    assert talk.turns[-1] == Message("assistant", said.strip())


def test_a_full_context_is_said(tokenizer, capsys, monkeypatch):
    talk = conversation(
        tokenizer,
        SamplingConfig(max_new_tokens=500),
        sliding_window=None,
        max_position_embeddings=60,
    )
    typed(monkeypatch, "what is loess?", "and now?", "/reset", "again?")
    chat.talk(talk)
    printed = capsys.readouterr().out
    assert "(the context is full; /reset begins a new conversation)" in printed
    assert "the model takes 60; /reset begins a new one)" in printed
    assert talk.turns[0].content == "again?"


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["one"], "one"),
        (["one\\", "two\\", "three"], "one\ntwo\nthree"),
        (['"""', "one", "", "two\\", '"""'], "one\n\ntwo\\"),
    ],
)
def test_messages_of_several_lines(monkeypatch, lines, message):
    typed(monkeypatch, *lines)
    assert chat.read_message() == message
    with pytest.raises(EOFError):
        chat.read_message()


def test_an_interrupt_does_not_leave(tokenizer, monkeypatch, capsys):
    talk = conversation(tokenizer)
    answers = []

    def interrupted(question):
        answers.append(question)
        yield "half"
        raise KeyboardInterrupt

    monkeypatch.setattr(talk, "answer", interrupted)
    talk.finished = "interrupted"
    monkeypatch.setattr("sys.stdin.isatty", lambda: True)
    typed(monkeypatch, KeyboardInterrupt(), "one", KeyboardInterrupt(), "two", "/quit", "three")
    chat.talk(talk)
    assert answers == ["one", "two"]
    printed = capsys.readouterr().out
    assert printed.count("half\n(stopped)\n") == 2
    assert printed.count("(Ctrl-C again, Ctrl-D or /quit leaves)") == 2


@pytest.mark.parametrize("at_terminal", [True, False])
def test_an_interrupt_leaves_where_nothing_is_said(tokenizer, monkeypatch, at_terminal):
    monkeypatch.setattr("sys.stdin.isatty", lambda: at_terminal)
    times = 2 if at_terminal else 1
    typed(monkeypatch, *[KeyboardInterrupt()] * times, "never read")
    with pytest.raises(KeyboardInterrupt):
        chat.talk(conversation(tokenizer))
    assert input() == "never read"


def test_commands(tokenizer, tmp_path, monkeypatch, capsys):
    talk = conversation(tokenizer)
    file = tmp_path / "new" / "said.jsonl"
    save = f"/save {file}"
    typed(monkeypatch, save, "/system be brief", "what is loess?", save, "/nonsense", "/help", "")
    chat.talk(talk)
    printed = capsys.readouterr().out
    assert "(nothing has been said yet; there is nothing to save)" in printed
    assert "(no such command: /nonsense; /help shows them)" in printed
    assert "/system TEXT" in printed
    (line,) = file.read_text().splitlines()
    said = [Message(**message) for message in json.loads(line)["messages"]]
    assert said == talk.messages()
    assert said[0] == Message("system", "be brief")
