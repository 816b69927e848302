"""Records of instruction data -> conversations, or the reason why a record holds none.

A record is one of these, told by its keys, of which `data.records.record_keys` has more names:

    {"instruction", "input", "output", "system", "history": [[question, answer], ...]}   Alpaca
    {"prompt", "completion"}, {"question", "answer"}, {"query", "response"}, ...         pairs
    {"conversations": [{"from": "human" | "gpt" | ..., "value"}, ...], "system"}         ShareGPT
    {"messages": [{"role": "user" | "assistant" | "system", "content"}, ...], "system"}  OpenAI
    {"conversation": [{"human", "assistant"}, ...]}, or a list of texts in turns         others

Texts are taken exactly as they are; an input follows its instruction after a line break, and the
text parts of a content (`{"type": "text", "text": ...}`) follow each other without anything between
them; a list of plain texts is refused. A message that is marked
as not to be predicted (`train`, `loss`, `weight`, ...) becomes context. A first message of the
assistant and a last one of the user have no question and no answer: they are left off and counted.
Media, tools and reasoning are refused by the name of their key, unless the user passes over that
key; whatever else a record holds is passed over and counted.
"""

import itertools
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from data.records.readers import BadRecord
from data.records.record_files import read_parsed
from data.records.record_keys import (
    ALIASES,
    CONTEXT,
    LAST_ANSWERS,
    LAST_QUESTIONS,
    MASKED,
    NEGATIVE,
    PAIR_ANSWERS,
    PAIR_QUESTIONS,
    PARTIAL,
    PREFERENCE,
    Columns,
    Keys,
    is_blank,
    is_empty,
    is_null,
    plain,
    role_keys,
)
from tokenizer.chat import Message, find_problem

NO_QUESTION = "first messages of the assistant left off, without a question"
NO_ANSWER = "last messages left off, without an answer"
PLAIN = Columns()
_YES, _NO = ("true", "yes", "1", "1.0"), ("false", "no", "0", "0.0")


class Conversation(NamedTuple):
    """Conversation of a record, with the parts that were not used."""

    messages: list[Message]
    left_off: tuple[str, ...] = ()
    """`NO_QUESTION` and `NO_ANSWER`, where a message was left off."""
    passed_over: tuple[str, ...] = ()
    """Keys of the record and of its messages that were not used although they hold something."""


class Entry(NamedTuple):
    """A record at its place."""

    file: str
    line: int
    """Line of a .jsonl file or row of a .parquet file from 1, or index in a .json array from 0."""
    conversation: Conversation | BadRecord
    """The conversation, or why there is none."""


def read_conversations(paths: Sequence[str], columns: Columns = PLAIN) -> Iterator[Entry]:
    """The records of all files in order.

    Raises:
        ValueError: a file is damaged, or does not hold what its name says.
    """
    for path in paths:
        for line, record in read_parsed(path):
            try:
                yield Entry(path, line, conversation_of(record, columns))
            except BadRecord as reason:
                yield Entry(path, line, reason)


def conversation_of(record: Any, columns: Columns = PLAIN) -> Conversation:
    """The conversation in a parsed record.

    Raises:
        BadRecord: says why there is none.
    """
    if isinstance(record, BadRecord):
        raise record
    if isinstance(record, list) and record and all(_has_role(turn, columns) for turn in record):
        record = {"messages": record}
    if not isinstance(record, dict):
        raise BadRecord("not a JSON object")
    return _Reader(Keys(record, columns), columns).read()


def messages_of(record: Any, columns: Columns = PLAIN) -> list[Message]:
    """The messages in a parsed record; errors as of `conversation_of`."""
    return conversation_of(record, columns).messages


def _has_role(turn: Any, columns: Columns) -> bool:
    return isinstance(turn, dict) and bool(Keys(turn, columns).present(columns.aliases("role")))


class _Reader:
    """Reads one record."""

    def __init__(self, keys: Keys, columns: Columns) -> None:
        self._keys = keys
        self._columns = columns
        self._passed_over: list[str] = []

    def read(self) -> Conversation:
        self._refuse_bad_example()
        messages = self._messages()
        messages = [
            *self._system(messages),
            *(m for m in messages if m.role != "system" or m.content),
        ]
        self._refuse_unusable(self._keys)
        messages, left_off = _complete(messages)
        if NO_ANSWER in left_off and (names := self._keys.filled(PREFERENCE)):
            raise BadRecord(_preference(self._keys, names))
        _check(messages)
        passed_over = (*self._keys.unused(), *self._passed_over)
        return Conversation(messages, left_off, passed_over)

    def _refuse_bad_example(self) -> None:
        """Refuse a record that is marked, as a whole, as nothing to learn."""
        for name in self._keys.present((*NEGATIVE, *PREFERENCE)):
            value = self._keys.peek(name)
            # A number under `label` may be a class.
            is_class = name == "label" and not isinstance(value, bool | str)
            holds = None if is_class else _truth(value)
            if holds is (name == "rejected"):
                raise BadRecord(f"{self._keys.shown(name)} marks an example of a bad answer")
            if holds is not None:
                self._keys.use(name)
        for name in self._keys.present((*self._columns.aliases("train"), *MASKED)):
            value = self._keys.peek(name)
            if isinstance(value, list) and not is_empty(value):
                raise BadRecord(f"{self._keys.shown(name)} is a list; mark each message instead")
            holds = _truth(value)
            if holds is (name in MASKED):
                raise BadRecord(f"{self._keys.shown(name)} marks a record not to be learned")
            if holds is not None:
                self._keys.use(name)

    def _refuse_unusable(self, keys: Keys) -> None:
        for name, what in keys.unusable():
            shown = keys.shown(name)
            raise BadRecord(f"{shown} holds {what}; {_NOT_SUPPORTED[what]}, or ignore='[{name}]'")

    def _messages(self) -> list[Message]:
        """The turns of a record as they are found."""
        named = self._columns.names.keys()
        lists = [] if named & {"question", "answer"} else self._lists()
        pair = None if "messages" in named else self._pair()
        if lists and pair:
            if not self._keys.filled(pair):
                pair = None
            elif not self._keys.filled(lists):
                lists = []
        if not lists:
            if not pair:
                raise BadRecord(self._nothing())
            messages = self._of_pair(*pair)
            self._refuse_context(messages, CONTEXT)
            return messages
        messages = self._listed(self._keys.use(lists[0]))
        if any(self._listed(self._keys.use(name)) != messages for name in lists[1:]):
            raise BadRecord(f"several conversations: {self._shown(lists)}; fields= says which")
        if pair and not all(_contain(messages, self._keys.use(name)) for name in pair):
            shown = self._shown([lists[0], *pair])
            raise BadRecord(f"keys of several formats: {shown}; fields= says which")
        if "messages" not in named:
            self._refuse_context(messages, (*ALIASES["question"], *ALIASES["input"], *CONTEXT))
        return messages

    def _refuse_context(self, messages: list[Message], names: Sequence[str]) -> None:
        """Refuse texts of other keys that the messages do not contain, but may answer."""
        for name in self._keys.filled(names):
            if not _contain(messages, self._keys.peek(name)):
                raise BadRecord(
                    f"{self._keys.shown(name)} holds what the messages do not contain; "
                    f"ignore='[{name}]' passes over it"
                )

    def _shown(self, names: Sequence[str]) -> str:
        return ", ".join(map(self._keys.shown, names))

    def _lists(self) -> list[str]:
        """Keys that hold lists of turns, only filled ones if there are any."""
        names = [
            name
            for name in self._keys.present(self._columns.aliases("messages"))
            if isinstance(self._keys.peek(name), list)
        ]
        filled = self._keys.filled(names) or names[:1]
        if filled or "messages" in self._columns.names:
            return filled
        # UltraChat; a list of objects under this key is a file of records, written as one.
        return [n for n in self._keys.present(("data",)) if _is_texts(self._keys.peek(n))]

    def _pair(self) -> tuple[str, str] | None:
        """The keys of a question and its answer, if there are both."""
        answers = self._texts("answer")
        if not answers and "answer" not in self._columns.names:
            answers = self._keys.filled(LAST_ANSWERS)
        questions = self._texts("question")
        if not questions and "question" not in self._columns.names:
            questions = [name for name in self._texts("input") if name != "context"][:1]
            questions = questions or self._keys.filled(LAST_QUESTIONS)
        if not questions or not answers:
            return None
        if "instruction" in questions and "output" in answers:  # Alpaca, and columns made of it
            return "instruction", "output"
        for what, names in (("question", questions), ("answer", answers)):
            if len(names) > 1:
                shown = self._shown(names)
                raise BadRecord(f"several columns could be the {what}: {shown}; fields= says which")
        return questions[0], answers[0]

    def _texts(self, meaning: str) -> list[str]:
        """Keys with a meaning: those that hold something if any do, and texts before others."""
        names = self._keys.present(self._columns.aliases(meaning))
        filled = self._keys.filled(names) or names[:1]
        return [n for n in filled if isinstance(self._keys.peek(n), str | list)] or filled[:1]

    def _of_pair(self, question: str, answer: str) -> list[Message]:
        inputs = self._keys.filled(self._columns.aliases("input"))
        inputs = [name for name in inputs if name != question]
        if len(inputs) > 1:
            shown = self._shown(inputs)
            raise BadRecord(f"several columns could be the input: {shown}; fields= says which")
        asked, said = self._keys.use(question), self._keys.use(answer)
        messages = self._history()
        if isinstance(asked, list) and asked and _has_role(asked[0], self._columns):
            # Of a prompt that is a conversation (TRL), only the completion is to be learned.
            messages += [m._replace(train=m.role != "assistant") for m in self._listed(asked)]
        else:
            parts = [self._text(question, asked)]
            parts += [self._text(name, self._keys.use(name)) for name in inputs]
            messages.append(Message("user", "\n".join(filter(None, parts))))
        if isinstance(said, list) and said and _has_role(said[0], self._columns):
            return messages + self._listed(said)
        return [*messages, Message("assistant", self._text(answer, said))]

    def _text(self, name: str, value: Any) -> str:
        if not isinstance(value, str):
            raise BadRecord(f"{self._keys.shown(name)} is {_kind(value)}, not a text")
        return value

    def _history(self) -> list[Message]:
        messages = []
        for name in self._keys.filled(self._columns.aliases("history")):
            pairs = self._keys.use(name)
            if not isinstance(pairs, list) or any(not _is_pair(pair) for pair in pairs):
                raise BadRecord(f"{self._keys.shown(name)} is not a list of pairs of texts")
            for question, answer in pairs:
                messages += [Message("user", question), Message("assistant", answer)]
        return messages

    def _system(self, messages: list[Message]) -> list[Message]:
        """The system prompt of a separate key; empty if the turns contain it or it is empty."""
        found = [m.content for m in messages[:1] if m.role == "system" and m.content]
        among = len(found)
        for name in self._keys.filled(self._columns.aliases("system")):
            text = _joined(self._keys.use(name), self._keys.shown(name))
            if not is_blank(text) and text not in found:
                found.append(text)
        if len(found) > 1:
            raise BadRecord("two different system prompts")
        return [Message("system", text) for text in found[among:]]

    def _nothing(self) -> str:
        """Reason for which a record holds no conversation."""
        keys, columns = self._keys, self._columns
        if names := keys.present(PREFERENCE):
            return _preference(keys, names)
        for meaning in ("messages", "question", "answer"):
            if meaning in columns.names and not keys.present(columns.aliases(meaning)):
                return f"no column {columns.names[meaning]!r}, which fields= names"
        if names := keys.filled(columns.aliases("messages")):
            return f"{keys.shown(names[0])} is {_kind(keys.peek(names[0]))}, not a list of messages"
        for one, other in (("question", "answer"), ("answer", "question")):
            if names := keys.present(columns.aliases(one)):
                shown = keys.shown(names[0])
                return f"{shown} without {_AN[other]} under a known key; fields= names it"
        return f"no conversation under the keys {keys.listed()}; fields= names its columns"

    def _listed(self, turns: list) -> list[Message]:
        """Messages from a list of turns."""
        if _is_texts(turns):
            roles = ("user", "assistant")
            return [Message(roles[place % 2], text) for place, text in enumerate(turns)]
        messages = []
        named = {bool(self._columns.knows_role(turn[0])) for turn in turns if _is_pair(turn)}
        if len(named) > 1:
            raise BadRecord("messages that are pairs of texts, some of a role and its text")
        for turn in turns:
            if isinstance(turn, dict):
                messages += self._of_turn(Keys(turn, self._columns))
            elif _is_pair(turn) and True in named:
                messages.append(Message(self._columns.role_of(turn[0]) or "", turn[1]))
            elif _is_pair(turn):
                messages += [Message("user", turn[0]), Message("assistant", turn[1])]
            else:
                raise BadRecord(f"a message that is {_kind(turn)}, not an object")
        return messages

    def _of_turn(self, keys: Keys) -> list[Message]:
        """One message; or two, if the turn holds a question and its answer."""
        roles = [keys.use(name) for name in role_keys(keys, self._columns)][:1]
        one = [self._message(keys, said) for said in roles]
        messages = one or self._of_pair_turn(keys)
        self._refuse_unusable(keys)
        if not _is_trained(keys, self._columns):
            messages = [message._replace(train=False) for message in messages]
        self._passed_over += [f"{name} (of messages)" for name in keys.unused()]
        return messages

    def _of_pair_turn(self, keys: Keys) -> list[Message]:
        questions = keys.filled(PAIR_QUESTIONS) or keys.present(PAIR_QUESTIONS)[:1]
        answers = keys.filled(PAIR_ANSWERS) or keys.present(PAIR_ANSWERS)[:1]
        if len(questions) != 1 or len(answers) != 1:
            wanted = " or ".join(map(repr, self._columns.aliases("role")[:2]))
            raise BadRecord(f"a message without {wanted}")
        system = [keys.use(name) for name in keys.filled(self._columns.aliases("system"))]
        said = [*system, keys.use(questions[0]), keys.use(answers[0])]
        if any(not isinstance(text, str) for text in said):
            raise BadRecord(f"{keys.shown(answers[0])} or the question before it is not a text")
        roles = [*("system" for _ in system), "user", "assistant"]
        messages = [Message(role, text) for role, text in zip(roles, said, strict=True)]
        for name in keys.present(("output_with_loss",)):  # xtuner
            messages[-1] = messages[-1]._replace(train=_flag(keys, name))
        return messages

    def _message(self, keys: Keys, said_role: Any) -> Message:
        if not isinstance(said_role, str):
            raise BadRecord(f"a role that is {_kind(said_role)}, not a text")
        role = self._columns.role_of(said_role)
        if role is None:
            raise BadRecord("messages of tools are not supported")
        self._refuse_unusable(keys)
        contents = keys.filled(self._columns.aliases("content"))
        contents = contents or keys.present(self._columns.aliases("content"))[:1]
        texts = [_joined(keys.use(name), keys.shown(name)) for name in contents]
        if len(set(texts)) > 1:
            raise BadRecord(
                f"a message with several contents: {', '.join(map(keys.shown, contents))}"
            )
        if role == "system" and (not texts or is_blank(texts[0])):
            return Message("system", "")  # none
        if not texts:
            other = " but with 'refusal'" if keys.filled(("refusal",)) else ""
            raise BadRecord(f"a message of the {role} without a content{other}")
        return Message(role, texts[0])


_AN = {"question": "a question", "answer": "an answer"}
_NOT_SUPPORTED = {
    "tools": "calls of tools are not supported",
    "media": "only texts are supported",
    "reasoning": "write it into the content",
}


def _preference(keys: Keys, names: Sequence[str]) -> str:
    shown = ", ".join(map(keys.shown, names))
    return f"a preference ({shown}) instead of an answer; fields='{{answer: chosen}}' learns that"


def _complete(messages: list[Message]) -> tuple[list[Message], tuple[str, ...]]:
    """Messages from the first question to the last answer, and what was left off."""
    counts = Counter[str]()
    first = 1 if messages and messages[0].role == "system" else 0
    turns = messages[first:]
    for one, other in itertools.pairwise(turns):
        if one.role == other.role and one.role != "system":
            raise BadRecord(f"two messages of the {one.role} in a row; they have to take turns")
    if turns and turns[0].role == "assistant":
        turns = turns[1:]
        counts[NO_QUESTION] += 1
    if turns and turns[-1].role == "user":
        turns = turns[:-1]
        counts[NO_ANSWER] += 1
    if counts and not turns:
        raise BadRecord("no question with an answer")
    return messages[:first] + turns, tuple(counts)


def _check(messages: list[Message]) -> None:
    for message in messages:
        try:
            message.content.encode()
        except UnicodeEncodeError:  # half of an escaped pair
            raise BadRecord("lone surrogate") from None
    if problem := find_problem(messages):
        raise BadRecord(problem[1])


def _is_trained(keys: Keys, columns: Columns) -> bool:
    """Say if a message is to be predicted, by all the marks that it carries."""
    for name in keys.filled(PARTIAL):
        raise BadRecord(f"{keys.shown(name)}: marks of parts of a message are not supported")
    marks = [_flag(keys, name) for name in keys.present(columns.aliases("train"))]
    marks += [not _flag(keys, name) for name in keys.present(MASKED)]
    return all(marks)


def _flag(keys: Keys, name: str) -> bool:
    value = keys.use(name)
    if isinstance(value, bool | int | float) and value in (0, 1):
        return bool(value)
    raise BadRecord(
        f"{keys.shown(name)} is neither 0 nor 1, true nor false; marks of parts of a message and "
        "fractional weights are not supported"
    )


def _truth(value: Any) -> bool | None:
    """True or false as a number, a truth value or a word; None for anything else."""
    if isinstance(value, bool | int | float):
        return bool(value) if value in (0, 1) else None
    word = value.strip().lower() if isinstance(value, str) else ""
    return {**dict.fromkeys(_YES, True), **dict.fromkeys(_NO, False)}.get(word)


def _marks_learned(key: str, value: Any) -> bool | None:
    """Meaning of a mark of a part of a message: to be learned or not; None for another key."""
    if plain(key) not in (*ALIASES["train"], *MASKED):
        return None
    return _truth(value) is (plain(key) not in MASKED)


def _joined(content: Any, name: str) -> str:
    """A content as one text."""
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        raise BadRecord(f"{name} is {_kind(content)}, not a text")
    if len(content) > 1 and _is_texts(content):
        raise BadRecord(
            f"{name} is a list of texts, and no format says what separates them; write one text"
        )
    return "".join(_part(part, name) for part in content)


def _part(part: Any, name: str) -> str:
    if isinstance(part, str):
        return part
    if not isinstance(part, dict):
        raise BadRecord(f"a part of {name} that is {_kind(part)}, not a text")
    held = {key: value for key, value in part.items() if not is_null(value)}
    kind = held.get("type", "text")
    if kind in ("text", "input_text", "output_text"):
        marks = {key: _marks_learned(key, value) for key, value in held.items()}
        others = [key for key, learned in marks.items() if learned is False]
        others += [key for key in held if marks[key] is None and not is_empty(held[key])]
        others = [key for key in others if key not in ("type", "text")]
        others = [key for key in others if key not in ("cache_control", "annotations", "index")]
        if not others and isinstance(held.get("text"), str):
            return held["text"]
        kind = others[0] if others else kind
    raise BadRecord(f"a part of {name} with {str(kind)[:30]!r}; only texts are supported")


def _contain(messages: Sequence[Message], value: Any) -> bool:
    """Say if the messages contain the texts of a value; numbers and truth values do not count."""
    if isinstance(value, list | dict):
        parts = value.values() if isinstance(value, dict) else value
        return all(_contain(messages, part) for part in parts)
    text = value.strip() if isinstance(value, str) else ""
    return any(text in message.content for message in messages)


def _is_texts(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(x, str) for x in value)


def _is_pair(value: Any) -> bool:
    return isinstance(value, list | tuple) and len(value) == 2 and _is_texts(list(value))


def _kind(value: Any) -> str:
    names = {bool: "a truth value", int: "a number", float: "a number", str: "a text"}
    names |= {list: "a list", dict: "an object", type(None): "null"}
    return names.get(type(value), "something else")
