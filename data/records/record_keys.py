"""Names of keys and roles in instruction data, and those that a user adds or passes over.

Keys are compared without regard to case, outer spaces and the difference between `-`, `_` and a
space. A key whose value is null (or NaN, which pandas writes for null) is absent.
"""

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from data.records.readers import BadRecord

ALIASES: dict[str, tuple[str, ...]] = {
    "messages": ("messages", "conversations", "conversation", "dialog", "dialogue"),
    "question": ("instruction", "prompt", "question", "query"),
    "input": ("input", "context", "inputs"),
    "answer": ("output", "completion", "response", "answer"),
    "system": ("system", "system_prompt", "system_message"),
    "history": ("history",),
    "role": ("role", "from", "speaker"),
    "content": ("content", "value", "text"),
    "train": ("train", "training", "trainable", "loss", "loss_mask", "loss_scale", "weight"),
}
"""Meaning of a key, and its names in published data sets."""

LAST_QUESTIONS = ("human", "user")
LAST_ANSWERS = ("target", "targets", "assistant")
"""Names of questions and answers where a record has no other; elsewhere they label something."""
CONTEXT = ("choices", "options", "passage", "background")
"""Keys that an answer depends on; their texts have to be in the messages."""
PAIR_QUESTIONS = ("human", "user", "instruction", "prompt", "question", "query", "input")
PAIR_ANSWERS = ("assistant", "gpt", "bot", "output", "completion", "response", "answer")
"""Keys of a turn that holds a question and its answer, as in MOSS, Firefly and xtuner."""

MASKED = ("mask", "masked")
"""Marks of a message with the opposite sense: true means that it is not to be predicted."""
PARTIAL = ("train_detail", "training_detail")
"""Marks of parts of a message (axolotl)."""
NEGATIVE = ("kto_tag", "label", "desirable")
"""Marks of a record that is an example of a bad answer where they are false."""
PREFERENCE = ("chosen", "rejected")

ROLES = {
    **dict.fromkeys(("system", "developer", "系统"), "system"),
    **dict.fromkeys(("user", "human", "prompter", "用户"), "user"),
    **dict.fromkeys(("assistant", "gpt", "chatgpt", "bot", "chatbot", "model", "ai"), "assistant"),
    **dict.fromkeys(("bing", "bard", "助手"), "assistant"),
}
TOOL_ROLES = frozenset((
    *("tool", "tools", "tool_call", "tool_calls", "tool_response", "tool_result"),
    *("function", "function_call", "function_response", "observation", "environment"),
    *("ipython", "code"),
))  # fmt: skip

_UNUSABLE = {
    "tools": (
        r"tools|functions|available_tools|tool_calls?|function_calls?|tool_responses?|"
        r"tool_results?"
    ),
    "reasoning": (
        r"reasoning(_content|_text|_details)?|thinking|thinks?|thoughts?|rationale|"
        r"(complex_)?cot|chain_of_thought"
    ),
    "media": (
        r"(image|img|picture|photo|video|audio|input_audio|input_image)s?"
        r"(_(path|url|uri|file|bytes|data|list)s?)?"
    ),
}
_FLAGS = ("on", "off", "true", "false", "yes", "no", "enabled", "disabled", "low", "medium", "high")
"""Texts that say of a record if it holds reasoning, and do not hold it themselves."""
UNUSABLE = {what: re.compile(pattern) for what, pattern in _UNUSABLE.items()}
"""Keys whose value, unless it is empty, the answer depends on or belongs to."""


@dataclass(frozen=True)
class Columns:
    """A user's own names for keys, and keys that are to be passed over whatever they mean."""

    names: Mapping[str, str] = field(default_factory=dict)
    """Column by what it means, which is a key of `ALIASES`."""
    ignored: frozenset[str] = frozenset()
    roles: Mapping[str, str] = field(default_factory=dict)
    """system, user or assistant by the user's own name for it, in small letters."""

    def role_of(self, said: str) -> str | None:
        """The role that a message names; None for one of tools.

        Raises:
            BadRecord: nobody knows the role.
        """
        name = said.strip().lower()
        role = self.roles.get(name) or ROLES.get(name)
        if role is None and plain(name) not in TOOL_ROLES:
            raise BadRecord(f"unknown role {said[:30]!r}; roles= can name it")
        return role

    def knows_role(self, said: str) -> bool:
        """Say if a text is the name of a role."""
        name = said.strip().lower()
        return name in self.roles or name in ROLES

    def is_role(self, value: Any) -> bool:
        """True if a value is the name of a role, be it one of tools."""
        return isinstance(value, str) and (self.knows_role(value) or plain(value) in TOOL_ROLES)

    def aliases(self, meaning: str) -> tuple[str, ...]:
        """The names of keys with a meaning: the user's own only, where there is one."""
        return (self.names[meaning],) if meaning in self.names else ALIASES[meaning]


def columns_of(
    fields: Mapping[str, Any], ignore: Sequence[Any], roles: Mapping[str, Any] | None = None
) -> Columns:
    """The columns and roles that a user names.

    Args:
        fields: column by what it means: a key of `ALIASES`, or one of the names in there.
        ignore: keys of records or messages to pass over.
        roles: further names that messages have for system, user and assistant, by these.

    Raises:
        ValueError: a meaning that does not exist or is given twice, an empty name, one column for
            two things, columns that do not make up conversations, or a role that does not exist.
    """
    meanings = {alias: meaning for meaning, names in ALIASES.items() for alias in names}
    meanings |= {meaning: meaning for meaning in ALIASES}
    names: dict[str, str] = {}
    for key, column in fields.items():
        meaning = meanings.get(plain(str(key)))
        if meaning is None:
            raise ValueError(f"fields: {key!r} is not a part of a record; use {', '.join(ALIASES)}")
        if not isinstance(column, str) or not column.strip():
            raise ValueError(f"fields: {key}={column!r}; give the name of a column")
        if meaning in names:
            raise ValueError(f"fields: {key!r} is the {meaning}, which is given twice; remove one")
        if plain(column) in names.values():
            raise ValueError(f"fields: {column!r} is named twice; each column means one thing")
        names[meaning] = plain(column)
    pair = {"question", "answer"} & names.keys()
    if "messages" in names and pair | ({"input", "history"} & names.keys()):
        raise ValueError(
            "fields: messages hold whole conversations; name them, or question and answer"
        )
    if any(not isinstance(key, str) or not key.strip() for key in ignore):
        raise ValueError(f"ignore: {list(ignore)}; give names of keys")
    ignored = frozenset(map(plain, ignore))
    if twice := sorted(ignored & set(names.values())):
        raise ValueError(f"ignore: {twice[0]!r} is named in fields; remove it from one of them")
    named: dict[str, str] = {}
    for role, said in (roles or {}).items():
        if role not in ("system", "user", "assistant"):
            raise ValueError(f"roles: {role!r} is not a role; choose from system, user, assistant")
        if not isinstance(said, str) or not said.strip() or said.strip().lower() in named:
            raise ValueError(f"roles: {role}={said!r}; give each role a different name")
        named[said.strip().lower()] = role
    return Columns(names, ignored, named)


def plain(key: str) -> str:
    """A key as keys are compared."""
    return re.sub(r"[\s-]+", "_", key.strip().lower())


def is_blank(value: Any) -> bool:
    """Say if a value is a text without characters but spaces, or an empty list or object."""
    return not value.strip() if isinstance(value, str) else value in ([], {})


def is_empty(value: Any) -> bool:
    """Say if a value holds nothing, also where a list or null was written as a text."""
    if isinstance(value, str):
        return value.strip().lower() in ("", "[]", "{}", "null", "none", "nan")
    if isinstance(value, list | dict):
        return all(
            is_empty(part) for part in (value.values() if isinstance(value, dict) else value)
        )
    return is_null(value) or value is False


def is_null(value: Any) -> bool:
    """Say if a value means that there is none."""
    return value is None or (isinstance(value, float) and math.isnan(value))


class Keys:
    """The keys of a record, or of one message, by their plain names; notes which were used.

    Raises:
        BadRecord: two keys differ in case or hyphens only, and their values differ.
    """

    def __init__(self, record: dict[str, Any], columns: Columns) -> None:
        self._values: dict[str, Any] = {}
        self._names: dict[str, str] = {}
        self._used: set[str] = set()
        self._ignored = columns.ignored
        for key, value in record.items():
            if is_null(value):
                continue
            name = plain(str(key))
            if name in self._values and self._values[name] != value:
                raise BadRecord(f"keys {self._names[name]!r} and {key!r} with different values")
            self._values[name], self._names[name] = value, str(key)

    def present(self, names: Sequence[str]) -> list[str]:
        """Keys of the given ones that the record has."""
        return [name for name in names if name in self._values and name not in self._ignored]

    def filled(self, names: Sequence[str]) -> list[str]:
        """Keys of the given ones that hold a value."""
        return [name for name in self.present(names) if not is_blank(self._values[name])]

    def use(self, name: str) -> Any:
        """The value of a key that there is."""
        self._used.add(name)
        return self._values[name]

    def peek(self, name: str) -> Any:
        """The value of a key that there is, which stays unused."""
        return self._values[name]

    def shown(self, name: str) -> str:
        """A key as the record writes it, in quotes."""
        return repr(self._names[name])

    def listed(self) -> str:
        """All keys, for a reason of refusal."""
        shown = [repr(name[:30]) for name in self._names.values()]
        return ", ".join(shown[:8]) + (", ..." if shown[8:] else "")

    def unused(self) -> Iterator[str]:
        """The keys that hold something and were not used."""
        for name, value in self._values.items():
            if name not in self._used and not is_empty(value):
                yield self._names[name]

    def unusable(self) -> Iterator[tuple[str, str]]:
        """Keys that hold what cannot be trained on, and what that is."""
        for name, value in self._values.items():
            if name in self._used or name in self._ignored or is_empty(value):
                continue
            for what, pattern in UNUSABLE.items():
                if pattern.fullmatch(name) and not (what == "reasoning" and _is_flag(value)):
                    yield name, what


def role_keys(keys: Keys, columns: Columns) -> list[str]:
    """Keys of a message that name its role: the first key, and others with a known role.

    A further key, such as `speaker` with a person's name, is not a role.

    Raises:
        BadRecord: two keys name different roles.
    """
    names = keys.present(columns.aliases("role"))
    names = names[:1] + [name for name in names[1:] if columns.is_role(keys.peek(name))]
    said = [str(keys.peek(name)) for name in names]
    if len(names) > 1 and len(set(map(columns.role_of, said))) > 1:
        raise BadRecord(
            f"a message with several roles: {', '.join(map(keys.shown, names))}; "
            f"fields='{{role: {names[0]}}}' says which"
        )
    return names


def _is_flag(value: Any) -> bool:
    text = value.strip().lower() if isinstance(value, str) else None
    return text in _FLAGS or isinstance(value, bool | int | float)
