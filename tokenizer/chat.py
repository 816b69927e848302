"""Conversations <-> ids, in the chat template that the tokenizer's folder has.

A conversation is rendered to one text by the template (`tokenizer.template`), and the text is
encoded once, as `apply_chat_template` of `transformers` does it. A literal control symbol in a
message stays text, which is the one difference from `transformers`.

Training predicts each answer. Where the answer k begins and ends follows from two shorter texts:
P, of the messages before the answer, up to where the model answers, and Q, of the messages up to
the answer. P must begin Q, Q must begin the whole text, and the ids of P must begin the ids of the
whole; then the model is trained on exactly the prompt that it is asked with later. Predicted is
what follows P, up to and with the first control symbol behind the content (the EOS, or what ends a
turn). What the template writes after that, such as a line feed, is not predicted.

A tokenizer without a template gets Mistral's `[INST]` format, in one of two forms:

- `CHAT_TEMPLATE`, where `[INST]` is text: the ids of mistral-common's v1 tokenizer. The template
  that was first published with Mistral-7B-Instruct-v0.1 differs from it in two spaces.
- `CONTROL_TEMPLATE`, where the tokenizer has control ids for `[INST]` and `[/INST]` (Mistral v0.3,
  Nemo and later): the ids of mistral-common's v3 and v3-tekken tokenizers. They put a system prompt
  before the last question of several, which training on several turns cannot reproduce; here the
  system prompt is before the first question.
"""

from collections.abc import Sequence
from itertools import groupby
from typing import NamedTuple

from tokenizer.template import ChatTemplate, RefusedByTemplate
from tokenizer.text import Span, check_text
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
"""Mistral's format with `[INST]` as text: the content of chat_template.jinja."""

CONTROL_TEMPLATE = (
    CHAT_TEMPLATE.replace("Mistral-7B-Instruct-v0.1, as mistral-common v1", "As mistral-common v3")
    .replace("'[INST] '", "'[INST]'")
    .replace("' [/INST]'", "'[/INST]'")
    .replace("' ' + turn['content'] + eos_token", "turn['content'].rstrip(' ') + eos_token")
)
"""Mistral's format with `[INST]` and `[/INST]` as control ids."""


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


PROBE = (Message("user", "a"), Message("assistant", "b"))
"""A conversation that every chat template should take."""


class Encoded(NamedTuple):
    """A conversation as ids."""

    ids: list[int]
    supervised: list[bool]
    """True for each id that the model is trained to predict."""


def find_problem(messages: Sequence[Message]) -> tuple[int, str] | None:
    """(index of the message, reason) of the first fault of a conversation; None if it is valid."""
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


def template_of(tokenizer: Tokenizer) -> ChatTemplate:
    """The chat template that a tokenizer's conversations are written in.

    Raises:
        ValueError: the folder has several templates and none is the default.
    """
    templates = dict(tokenizer.templates)
    if not templates:
        control = {"[INST]", "[/INST]"} <= set(tokenizer.control_symbols())
        templates["default"] = CONTROL_TEMPLATE if control else CHAT_TEMPLATE
    if "default" not in templates:
        raise ValueError(
            f"{tokenizer.origin}: has chat templates named {', '.join(sorted(templates))}, but "
            "none named default; name one of them default"
        )
    return ChatTemplate(templates["default"], tokenizer.special_tokens, str(tokenizer.origin))


def encode_conversation(
    tokenizer: Tokenizer, messages: Sequence[Message], *, train_on: str = "assistant"
) -> Encoded:
    """The ids of a conversation, and which are to be predicted.

    Messages with `train=False` are never supervised; a system message is part of the first
    question, so that its mark counts for that question.

    Args:
        train_on: `assistant` supervises each answer and the symbol that ends it, `all` everything
            but BOS and the first id.

    Raises:
        ValueError: the messages are not a conversation, the template refuses them or does not keep
            an answer apart from its prompt, or a content has no UTF-8 form.
    """
    if train_on not in TRAIN_ON:
        raise ValueError(f"train_on={train_on!r}: must be one of {', '.join(TRAIN_ON)}")
    check_conversation(messages)
    text = _Text(tokenizer, messages)
    ids, answers = text.ids, text.answers()
    if train_on == "all":
        supervised = [False, *(id != tokenizer.bos_id for id in ids[1:])]
    else:
        supervised = [False] * len(ids)
        for start, stop in (span for spans in answers.values() for span in spans):
            supervised[start:stop] = [True] * (stop - start)
    start = first = 0
    for place, spans in [*answers.items(), (len(messages), [(len(ids), len(ids))])]:
        begin, end = spans[0][0], spans[-1][1]
        if not all(message.train for message in messages[first:place]):
            supervised[start:begin] = [False] * (begin - start)
        if not all(message.train for message in messages[place : place + 1]):
            supervised[begin:end] = [False] * (end - begin)
        start, first = end, place + 1
    return Encoded(ids, supervised)


def encode_prompt(tokenizer: Tokenizer, messages: Sequence[Message]) -> list[int]:
    """The ids after which a model answers: those before the answer in `encode_conversation`.

    Raises:
        ValueError: the messages are not a conversation, the last word is not the user's, or the
            template refuses them.
    """
    check_conversation(messages)
    if messages[-1].role != "user":
        raise ValueError(
            f"messages[{len(messages) - 1}].role={messages[-1].role!r}: there is nothing to "
            "answer; end with a user message"
        )
    return _Text(tokenizer, messages, answer=True).ids


class _Text:
    """A conversation as its template writes it.

    Attributes:
        ids: of the whole text.
    """

    def __init__(
        self, tokenizer: Tokenizer, messages: Sequence[Message], *, answer: bool = False
    ) -> None:
        for message in messages:
            check_text(message.content)
        self._tokenizer, self._messages = tokenizer, messages
        self._template = template_of(tokenizer)
        self._dicts = [message.as_dict() for message in messages]
        self._rendered = self._template.locate(self._dicts, answer=answer)
        self._spans = [span for spans in self._contents() for span in spans]
        self.ids = self._encode(len(self._rendered.text))

    def answers(self) -> dict[int, list[Span]]:
        """For the place of each answer, the spans of ids that training predicts.

        Raises:
            ValueError: the template does not keep an answer apart from its prompt.
        """
        places = [n for n, message in enumerate(self._messages) if message.role == "assistant"]
        blocks = {place: self._blocks(place) for place in places}
        if unused := set(self._rendered.generated) - {b for some in blocks.values() for b in some}:
            raise self._refusal(len(self._dicts) - 1, f"generation block {unused} in no answer")
        return {
            place: [(self._count(place, start), self._count(place, stop)) for start, stop in some]
            for place, some in blocks.items()
        }

    def _blocks(self, place: int) -> list[Span]:
        """The spans of characters that an answer's training predicts."""
        text, contents = self._rendered.text, self._rendered.contents
        prompt = self._template.render(self._dicts[:place], answer=True)
        last = place == len(self._dicts) - 1
        said = text if last else self._template.render(self._dicts[: place + 1])
        if not (said.startswith(prompt) and text.startswith(said)):
            raise self._refusal(place, "the text before an answer depends on what follows it")
        if self._rendered.generated:
            inside = range(len(prompt), len(said) + 1)
            blocks = [b for b in self._rendered.generated if b[0] in inside and b[1] in inside]
            if blocks:
                return blocks
            raise self._refusal(place, "no generation block for an answer")
        spans = contents[place] if contents is not None else []
        if len(spans) != 1 or spans[0][0] < len(prompt) or spans[0][1] > len(said):
            raise self._refusal(place, "the content of an answer is not written once, as it is")
        return [(len(prompt), self._end(spans[0][1], len(said)))]

    def _end(self, start: int, stop: int) -> int:
        """The end of the first symbol in a part of the text that follows a content."""
        text = self._rendered.text[start:stop]
        found = [(at, -len(s)) for s in self._tokenizer.symbols() if (at := text.find(s)) >= 0]
        if not found:
            return stop
        at, negative_length = min(found)
        return start + at - negative_length

    def _count(self, place: int, stop: int) -> int:
        """Number of ids for the first characters of the text."""
        if stop == len(self._rendered.text):
            return len(self.ids)
        ids = self._encode(stop)
        if self.ids[: len(ids)] != ids:
            near = self._rendered.text[max(0, stop - 12) : stop], self._rendered.text[stop:][:12]
            detail = f" (between {near[0]!r} and {near[1]!r})"
            raise self._refusal(place, "a token lies across the border of an answer", detail)
        return len(ids)

    def _encode(self, stop: int) -> list[int]:
        """The ids of the first characters of the text."""
        spans = [(begin, min(end, stop)) for begin, end in self._spans if begin < stop]
        return self._tokenizer.encode_rendered(self._rendered.text[:stop], spans)

    def _contents(self) -> list[list[Span]]:
        """Spans of the contents; ValueError if they are needed and unknown."""
        if self._rendered.contents is not None:
            return self._rendered.contents
        for place, message in enumerate(self._messages):
            for symbol in self._tokenizer.control_symbols():
                if symbol in message.content:
                    raise RefusedByTemplate(
                        "a control symbol in a message that the chat template changes",
                        f"messages[{place}] ({message.role}): holds {symbol!r}, and the chat "
                        f"template of {self._template.origin} changes contents, so that the "
                        "letters cannot be told from the control symbol; remove them",
                    )
        return []

    def ending(self, place: int) -> int | None:
        """The id of the symbol that ends an answer; None where there is none or it is not clear."""
        contents = self._rendered.contents
        if contents is None or len(contents[place]) != 1:
            return None
        start = contents[place][0][1]
        stop = self._end(start, len(self._rendered.text))
        symbols = self._tokenizer.symbols()
        ends = [s for s in symbols if self._rendered.text[start:stop].endswith(s)]
        return symbols[max(ends, key=len)] if ends else None

    def _refusal(self, place: int, reason: str, detail: str = "") -> RefusedByTemplate:
        return RefusedByTemplate(
            f"the chat template cannot be trained on: {reason}",
            f"messages[{place}] ({self._messages[place].role}): the chat template of "
            f"{self._template.origin} cannot be trained on: {reason}{detail}. It works for chat; "
            "for training give the folder another template",
        )


def check_trainable(tokenizer: Tokenizer) -> None:
    """ValueError unless one question and one answer can be trained on in the chat template."""
    encode_conversation(tokenizer, PROBE)


def end_of_turn(tokenizer: Tokenizer) -> int | None:
    """The id that ends an answer in the chat template; None where a text ends it."""
    try:
        return _Text(tokenizer, PROBE).ending(1)
    except RefusedByTemplate:
        return None


def truncate(encoded: Encoded, max_tokens: int) -> Encoded:
    """The first ids of a conversation; what is cut off ends without EOS."""
    return Encoded(encoded.ids[:max_tokens], encoded.supervised[:max_tokens])


def transcript(tokenizer: Tokenizer, encoded: Encoded, opening: str, closing: str) -> str:
    """The text of an encoded conversation for people, what is supervised between two marks."""
    control = {id: symbol for symbol, id in tokenizer.control_symbols().items()}
    control |= {tokenizer.bos_id: "[BOS]", tokenizer.eos_id: "[EOS]"}
    parts = []
    for supervised, run in groupby(zip(*encoded, strict=True), key=lambda pair: pair[1]):
        text = ""
        for symbol, ids in groupby((id for id, _ in run), key=control.get):
            text += symbol or tokenizer.decode(list(ids))
        parts.append(f"{opening}{text}{closing}" if supervised else text)
    return " ".join(parts)
