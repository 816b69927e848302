"""Files of instruction data -> conversations, or the reason why a record is none.

A record is one of these, told by its keys; keys that are not named here are passed over:

    {"instruction", "input", "output", "system", "history": [[question, answer], ...]}   Alpaca
    {"conversations": [{"from": "human" | "gpt" | ..., "value"}, ...], "system"}         ShareGPT
    {"messages": [{"role": "user" | "assistant" | "system", "content"}, ...]}            OpenAI

Files hold one array of records (.json) or a record per line (.jsonl, .jsonl.gz, .jsonl.zst). Texts
are taken exactly as they are; an Alpaca input follows its instruction after a line break. Answers
are what is learnt, so a conversation has to end with one. Tools are not supported.
"""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from data.readers import LONGEST_RECORD, BadRecord, Position, Record, read_records
from tokenizer.chat import Message, find_problem

FORMATS = (".json", ".jsonl", ".jsonl.gz", ".jsonl.zst")

_SAME_ROLE = {"human": "user", "gpt": "assistant"}
_TOOL_ROLES = ("tool", "function", "function_call", "observation", "tool_call", "tool_response")


class Entry(NamedTuple):
    """A record at its place."""

    file: str
    line: int
    """Line of a .jsonl file from 1, or index in a .json array from 0."""
    messages: list[Message] | BadRecord
    """The conversation, or why there is none."""


def read_conversations(paths: Sequence[str]) -> Iterator[Entry]:
    """The records of all files in order.

    Raises:
        ValueError: a file is damaged, or a .json file is not one array.
    """
    for path in paths:
        records = _of_array(path) if path.endswith(".json") else _of_lines(path)
        for line, record in records:
            try:
                yield Entry(path, line, messages_of(record))
            except BadRecord as reason:
                yield Entry(path, line, reason)


def messages_of(record: Any) -> list[Message]:
    """The conversation in a parsed record.

    Raises:
        BadRecord: says why there is none.
    """
    if isinstance(record, BadRecord):
        raise record
    if not isinstance(record, dict):
        raise BadRecord("not a JSON object")
    found = [key for key in ("messages", "conversations", "instruction") if key in record]
    if len(found) != 1:
        raise BadRecord(
            "keys of several formats" if found else "no instruction, conversations or messages"
        )
    messages = {
        "messages": _of_openai,
        "conversations": _of_sharegpt,
        "instruction": _of_alpaca,
    }[found[0]](record)
    _check(messages)
    return messages


def _check(messages: list[Message]) -> None:
    for role, content, _ in messages:
        if role in _TOOL_ROLES:
            raise BadRecord("messages of tools are not supported")
        if not isinstance(content, str):
            raise BadRecord("the content of a message is not a string")
        try:
            content.encode()
        except UnicodeEncodeError:  # half of an escaped pair
            raise BadRecord("lone surrogate") from None
    if problem := find_problem(messages):
        raise BadRecord(problem[1])
    if messages[-1].role != "assistant":
        raise BadRecord("the last message has no answer")


def _of_alpaca(record: dict) -> list[Message]:
    if "output" not in record:
        raise BadRecord("an instruction without output")
    parts = [record["instruction"], record.get("input") or ""]
    if not all(isinstance(part, str) for part in parts):
        raise BadRecord("the content of a message is not a string")
    turns = [*_history(record), ("\n".join(filter(None, parts)), record["output"])]
    messages = _system(record)
    for question, answer in turns:
        messages += [Message("user", question), Message("assistant", answer)]
    return messages


def _history(record: dict) -> list[tuple[Any, Any]]:
    turns = record.get("history") or []
    if not isinstance(turns, list) or any(not isinstance(t, list) or len(t) != 2 for t in turns):
        raise BadRecord("history is not a list of pairs")
    return [(question, answer) for question, answer in turns]


def _of_sharegpt(record: dict) -> list[Message]:
    messages = _listed(record["conversations"], "from", "value")
    system = _system(record)
    if system and messages and messages[0].role == "system":
        raise BadRecord("two system prompts")
    return system + messages


def _of_openai(record: dict) -> list[Message]:
    return _listed(record["messages"], "role", "content")


def _listed(turns: Any, role_key: str, content_key: str) -> list[Message]:
    """Messages from a list of objects."""
    if not isinstance(turns, list):
        raise BadRecord("the messages are not a list")
    messages = []
    for turn in turns:
        role = turn.get(role_key) if isinstance(turn, dict) else None
        if not isinstance(role, str):
            raise BadRecord(f"a message without {role_key!r}")
        if turn.get("tool_calls") or turn.get("function_call"):
            raise BadRecord("messages of tools are not supported")
        if turn.get("weight", 1) != 1:
            raise BadRecord("weights of messages are not supported")
        if content_key not in turn:
            raise BadRecord(f"a message without {content_key!r}")
        messages.append(Message(_SAME_ROLE.get(role, role), turn[content_key]))
    return messages


def _system(record: dict) -> list[Message]:
    """The system prompt beside the turns; empty means none."""
    return [Message("system", record["system"])] if record.get("system") else []


def _of_array(path: str) -> Iterator[tuple[int, Any]]:
    try:
        records = json.loads(Path(path).read_text(encoding="utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise ValueError(
            f"{path}: not JSON ({error}); mend it, or name it .jsonl if it holds a record per line"
        ) from None
    if not isinstance(records, list):
        raise ValueError(
            f"{path}: not an array of records; put its record into one, or name it .jsonl if it "
            "holds a record per line"
        )
    return enumerate(records)


def _of_lines(path: str) -> Iterator[tuple[int, Any]]:
    for record in read_records([path], "", "line", Position()):
        yield record.position.line, _parsed(record)


def _parsed(record: Record) -> Any:
    """The JSON value of a line, or why there is none."""
    payload = record.payload or b""
    if len(payload) >= LONGEST_RECORD:
        return BadRecord(f"longer than {LONGEST_RECORD >> 20} MiB")
    if not payload.strip():
        return BadRecord("empty line")
    try:
        return json.loads(payload.decode())
    except UnicodeDecodeError:
        return BadRecord("invalid UTF-8")
    except (ValueError, RecursionError):
        return BadRecord("invalid JSON")
