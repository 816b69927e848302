r"""Conversations <-> ids in the `[INST]` format of Mistral-7B-Instruct-v0.1.

    BOS  [INST] question [/INST]  answer  EOS  [INST] question [/INST]  answer  EOS

Every question with its brackets, and every answer, is encoded as a text of its own, so that both
begin with the space that sentencepiece puts before a text. A system prompt and a blank line go
before the first question, inside its brackets. Contents are kept as they are, outer spaces
included, and a literal `</s>` in one stays text. `[INST]` is no control symbol: it is five letters
and brackets to the tokenizer, in a question as around it.

These are the ids of mistral-common's v1 instruct tokenizer. The template that was first published
with the HF folder of Mistral-7B-Instruct-v0.1 differs from it in two spaces: it has none between
`[/INST]` and the answer, and one between EOS and `[INST]`; and it has no place for a system prompt.
Here mistral-common is followed, and `CHAT_TEMPLATE` gives its ids in transformers, with the files
that `Tokenizer.save` writes from a sentencepiece model (where only a literal `<s>` or `</s>` in a
message, which transformers takes for the control symbol, makes a difference).
"""

from collections.abc import Sequence
from itertools import groupby
from typing import NamedTuple

from tokenizer.tokenizer import Tokenizer

ROLES = ("system", "user", "assistant")
TRAIN_ON = ("assistant", "all")

CHAT_TEMPLATE = r"""{#- Mistral-7B-Instruct-v0.1, as mistral-common v1 encodes it. -#}
{%- if messages[0]['role'] == 'system' -%}
    {%- set preface = messages[0]['content'] + '\n\n' -%}
    {%- set turns = messages[1:] -%}
{%- else -%}
    {%- set preface = '' -%}
    {%- set turns = messages -%}
{%- endif -%}
{{- bos_token -}}
{%- for turn in turns -%}
    {%- if turn['role'] != ('assistant' if loop.index0 % 2 else 'user') -%}
        {{- raise_exception('after an optional system message, user and assistant take turns') -}}
    {%- elif turn['role'] == 'user' -%}
        {{- '[INST] ' + (preface if loop.first else '') + turn['content'] + ' [/INST]' -}}
    {%- else -%}
        {{- ' ' + turn['content'] + eos_token -}}
    {%- endif -%}
{%- endfor -%}
"""
"""What `apply_chat_template` needs to give the same ids: the content of chat_template.jinja."""


class Message(NamedTuple):
    """One message of a conversation."""

    role: str
    """One of `ROLES`."""
    content: str
    train: bool = True
    """False: the message is context, and none of its tokens is to be predicted."""

    def as_dict(self) -> dict[str, str]:
        """Role and content, which is what chat templates and files of messages hold."""
        return {"role": self.role, "content": self.content}


class Encoded(NamedTuple):
    """A conversation as ids."""

    ids: list[int]
    supervised: list[bool]
    """Whether each id is to be predicted."""


def find_problem(messages: Sequence[Message]) -> tuple[int, str] | None:
    """What keeps messages from being a conversation: the place in the list, and why."""
    if not messages:
        return 0, "no messages"
    turns = messages[1:] if messages[0].role == "system" else messages
    first = len(messages) - len(turns)
    for place, message in enumerate(messages):
        if message.role not in ROLES:
            return place, "unknown role"
        if not message.content.strip():
            return place, f"empty {message.role} message"
        if place and message.role == "system":
            return place, "a system message that is not the first"
        if place >= first and message.role != ROLES[1 + (place - first) % 2]:
            return place, "user and assistant do not take turns, user first"
    return None if turns else (0, "no message but the system's")


def check_conversation(messages: Sequence[Message]) -> None:
    """Accept an optional system message, then user and assistant in turns, none of them empty.

    Raises:
        ValueError: names the message that does not fit, from 0.
    """
    if problem := find_problem(messages):
        place, reason = problem
        shown = repr(messages[place])[:120] if messages else "[]"
        raise ValueError(
            f"messages[{place}]={shown}: {reason}; give an optional system message, then user and "
            "assistant in turns"
        )


def encode_conversation(
    tokenizer: Tokenizer, messages: Sequence[Message], *, train_on: str = "assistant"
) -> Encoded:
    """The ids of a conversation, and which are to be predicted.

    Messages with `train=False` are never supervised; a system message is part of the first
    question, so that its mark counts for that question.

    Args:
        train_on: `assistant` supervises each answer and the EOS that ends it, `all` everything but
            BOS.

    Raises:
        ValueError: this is no conversation, or a content has no UTF-8 form.
    """
    if train_on not in TRAIN_ON:
        raise ValueError(f"train_on={train_on!r}: must be one of {', '.join(TRAIN_ON)}")
    check_conversation(messages)
    ids, supervised = [tokenizer.bos_id], [False]
    preface, preface_train = "", True
    space = "" if _begins_with_space(tokenizer) else " "
    for role, content, train in messages:
        if role == "system":
            preface, preface_train = f"{content}\n\n", train
            continue
        if role == "user":
            piece = tokenizer.encode(f"[INST] {preface}{content} [/INST]")
        else:
            piece = [*tokenizer.encode(f"{space}{content}"), tokenizer.eos_id]
        ids += piece
        is_target = train and preface_train and (train_on == "all" or role == "assistant")
        supervised += [is_target] * len(piece)
        preface, preface_train = "", True
    return Encoded(ids, supervised)


def encode_prompt(tokenizer: Tokenizer, messages: Sequence[Message]) -> list[int]:
    """The ids after which a model answers: those before the answer in `encode_conversation`.

    Raises:
        ValueError: this is no conversation, or the last word is not the user's.
    """
    check_conversation(messages)
    if messages[-1].role != "user":
        raise ValueError(
            f"messages[{len(messages) - 1}].role={messages[-1].role!r}: there is nothing to "
            "answer; end with a user message"
        )
    return encode_conversation(tokenizer, messages).ids


def truncate(encoded: Encoded, max_tokens: int) -> Encoded:
    """The first ids of a conversation; what is cut off ends without EOS."""
    return Encoded(encoded.ids[:max_tokens], encoded.supervised[:max_tokens])


def transcript(tokenizer: Tokenizer, encoded: Encoded, opening: str, closing: str) -> str:
    """The text of an encoded conversation for people, what is supervised between two marks."""
    control = {tokenizer.bos_id: "[BOS]", tokenizer.eos_id: "[EOS]"}
    parts = []
    for supervised, run in groupby(zip(*encoded, strict=True), key=lambda pair: pair[1]):
        text = ""
        for symbol, ids in groupby((id for id, _ in run), key=control.get):
            text += symbol or tokenizer.decode(list(ids))
        parts.append(f"{opening}{text}{closing}" if supervised else text)
    return " ".join(parts)


def _begins_with_space(tokenizer: Tokenizer) -> bool:
    """Whether a text is encoded as if a space stood before it, so that words look alike."""
    return tokenizer.encode("a a") == 2 * tokenizer.encode("a")
