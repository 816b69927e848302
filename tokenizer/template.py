"""Chat templates of model folders: messages -> text, as `transformers` renders them.

A template is a Jinja program that came with a model, so it runs in Jinja's sandbox, with limits on
steps, time and size. Settings and helpers are those of `transformers`
(`utils/chat_template_utils.py`): `trim_blocks`, `lstrip_blocks`, `raise_exception`, `tojson`
without HTML escapes, `break` and `continue`, `{% generation %}` blocks. One thing differs:
`strftime_now` gives the date `TODAY` and not the date of the day, so that training data and prompts
do not depend on when they were made.
"""

import hashlib
import json
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import datetime
from functools import lru_cache
from typing import Any

from jinja2 import nodes, pass_context
from jinja2.exceptions import SecurityError, TemplateError
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.runtime import Context, Macro
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace
from jinja2.visitor import NodeTransformer

from tokenizer.text import Span

TODAY = datetime(2024, 7, 26)
"""The date that `strftime_now` gives: the fixed date of Llama-3.1's own template."""
MOST_CHARACTERS = 1_000_000
"""Of a template's source."""
MOST_STEPS = 1_000_000
"""Rounds of loops and calls of macros in one rendering."""
MOST_SECONDS = 20.0
LONGEST_TEXT = 100_000_000
"""Characters or items of anything that a template builds."""

_FAILURES = (
    *(TemplateError, TypeError, ValueError, LookupError, ArithmeticError, AttributeError),
    *(RecursionError, MemoryError),
)
"""Errors that a template can cause."""


class RefusedByTemplate(ValueError):
    """A conversation that a chat template does not take, or cannot be trained on.

    Attributes:
        reason: the kind of the fault, the same for all conversations that have it.
    """

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


@dataclass(frozen=True)
class Rendered:
    """A conversation as text, and where in the text its parts are.

    Attributes:
        contents: for each message the spans of its content, outer white space left out; None if
            they cannot be told, because the template changes the content or decides by it.
        generated: the spans of `{% generation %}` blocks.
    """

    text: str
    contents: list[list[Span]] | None
    generated: list[Span]


@dataclass(frozen=True)
class ChatTemplate:
    """A chat template and the special tokens that it may write.

    Attributes:
        source: Jinja.
        tokens: `bos_token` and so on, by name.
        origin: file or folder, for messages.
    """

    source: str
    tokens: Mapping[str, str]
    origin: str

    @property
    def digest(self) -> str:
        """sha256 over the source and the special tokens that it names."""
        named = {name: token for name, token in self.tokens.items() if name in self.source}
        return hashlib.sha256(json.dumps([self.source, named], sort_keys=True).encode()).hexdigest()

    def render(self, messages: Sequence[Mapping[str, str]], *, answer: bool = False) -> str:
        """The text of messages; with `answer`, up to where the model answers.

        Raises:
            RefusedByTemplate: the template does not parse, refuses the messages, or does not come
                to an end; names the message at which it fails.
        """
        try:
            return self._run(messages, answer, None)
        except _FAILURES as error:
            raise self._refusal(messages, answer, error) from None

    def locate(self, messages: Sequence[Mapping[str, str]], *, answer: bool = False) -> Rendered:
        """`render`, and where contents and generation blocks are.

        The messages are rendered a second time with marks around each content: private characters
        that occur nowhere else. Without the marks the second text must be the first one.
        """
        text = self.render(messages, answer=answer)
        marks = _unused_characters(text + self.source, 2 * len(messages) + 2)
        marked = [
            {**message, "content": _mark(message["content"], *pair)}
            for message, pair in zip(
                messages, zip(marks[2::2], marks[3::2], strict=True), strict=True
            )
        ]
        try:
            with_marks = self._run(marked, answer, (marks[0], marks[1]))
        except _FAILURES:  # the template decides by the content
            return Rendered(text, None, [])
        plain, spans = _take_marks(with_marks, marks)
        if plain != text or spans is None:
            return Rendered(text, None, self._generated(messages, answer, marks, text))
        return Rendered(text, spans[1:], spans[0])

    def _generated(
        self, messages: Sequence[Mapping[str, str]], answer: bool, marks: str, text: str
    ) -> list[Span]:
        """The generation blocks alone, where contents could not be marked."""
        with_marks = self._run(messages, answer, (marks[0], marks[1]))
        plain, spans = _take_marks(with_marks, marks)
        return spans[0] if spans is not None and plain == text else []

    def _run(
        self, messages: Sequence[Mapping[str, str]], answer: bool, marks: tuple[str, str] | None
    ) -> str:
        pieces, size = [], 0
        with _limits():
            for piece in _compiled(self.source).generate(
                messages=[dict(message) for message in messages],
                tools=None,
                documents=None,
                add_generation_prompt=answer,
                **self.tokens,
                **({_MARKS: marks} if marks else {}),
            ):
                size += len(piece)
                _check_size(size)
                pieces.append(piece)
        return "".join(pieces)

    def _refusal(
        self, messages: Sequence[Mapping[str, str]], answer: bool, error: BaseException
    ) -> RefusedByTemplate:
        """Name the first message with which the template fails in the same way."""
        reason = f"{error}" or type(error).__name__
        at = next(
            (k for k in range(len(messages)) if self._failure(messages[: k + 1], answer) == reason),
            len(messages) - 1,
        )
        place = f"messages[{at}] ({messages[at]['role']})" if messages else "no messages"
        line = getattr(error, "lineno", None)
        where = f", line {line}" if line else ""
        return RefusedByTemplate(
            "the chat template refuses the messages",
            f"{place}: the chat template of {self.origin}{where} refuses: {reason}",
        )

    def _failure(self, messages: Sequence[Mapping[str, str]], answer: bool) -> str | None:
        try:
            self._run(messages, answer, None)
        except _FAILURES as error:
            return f"{error}" or type(error).__name__
        return None


_MARKS = "marks of generation blocks"  # no Jinja name, so that no template can read it


def _unused_characters(text: str, count: int) -> str:
    """So many characters of a private plane that do not occur in a text."""
    present = set(text)
    free = (chr(point) for point in range(0xF0000, 0x10FFFE) if chr(point) not in present)
    return "".join(character for character, _ in zip(free, range(count), strict=False))


def _mark(content: str, opening: str, closing: str) -> str:
    """A content with marks inside its outer white space, which templates may strip."""
    core = content.strip()
    if not core:
        return content
    start = content.index(core)
    return f"{content[:start]}{opening}{core}{closing}{content[start + len(core) :]}"


def _take_marks(text: str, marks: str) -> tuple[str, list[list[Span]] | None]:
    """A text without marks, and the spans between the marks of each pair; None if unpaired."""
    spans: list[list[Span]] = [[] for _ in range(len(marks) // 2)]
    opened: dict[int, int] = {}
    kept, length, start, paired = [], 0, 0, True
    for mark in re.finditer(f"[{marks}]", text):
        kept.append(text[start : mark.start()])
        length += mark.start() - start
        start = mark.end()
        pair, closes = divmod(marks.index(mark[0]), 2)
        if closes and pair in opened:
            spans[pair].append((opened.pop(pair), length))
        elif not closes and pair not in opened:
            opened[pair] = length
        else:
            paired = False
    kept.append(text[start:])
    return "".join(kept), spans if paired and not opened else None


# The environment


@dataclass
class _Budget:
    """Remaining budget of a rendering."""

    steps: int = MOST_STEPS
    until: float = field(default_factory=lambda: time.monotonic() + MOST_SECONDS)


_budget: ContextVar[_Budget | None] = ContextVar("budget", default=None)


@contextmanager
def _limits() -> Iterator[None]:
    token = _budget.set(_Budget())
    try:
        yield
    finally:
        _budget.reset(token)


def _check_size(size: int) -> None:
    if size > LONGEST_TEXT:
        raise TemplateError(f"it writes more than {LONGEST_TEXT:,} characters")


class _Guard(Extension):
    """`{% generation %}`, and a count of the steps that a template takes."""

    tags = {"generation"}  # noqa: RUF012 as Jinja has it

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.CallBlock(self.call_method("_block"), [], [], body).set_lineno(line)

    @pass_context
    def _block(self, context: Context, caller: Macro) -> str:
        text = caller()
        marks = context.get(_MARKS)
        return f"{marks[0]}{text}{marks[1]}" if marks else text

    def _step(self) -> str:
        budget = _budget.get()
        if budget is not None:
            budget.steps -= 1
            if budget.steps < 0:
                raise TemplateError(f"it takes more than {MOST_STEPS:,} steps")
            if time.monotonic() > budget.until:
                raise TemplateError(f"it takes more than {MOST_SECONDS:.0f} seconds")
        return ""

    def _join(self, *parts: object) -> str:
        texts = [str(part) for part in parts]
        _check_size(sum(map(len, texts)))
        return "".join(texts)


class _Counted(NodeTransformer):
    """Puts a counted step into each loop and macro, and checks the size of what `~` joins."""

    def __init__(self, guard: _Guard) -> None:
        self._guard = guard

    def visit_For(self, node: nodes.For) -> nodes.Node:
        return self._counted(node)

    def visit_Macro(self, node: nodes.Macro) -> nodes.Node:
        return self._counted(node)

    def _counted(self, node: Any) -> nodes.Node:
        self.generic_visit(node)
        step = nodes.ExprStmt(self._guard.call_method("_step")).set_lineno(node.lineno)
        node.body.insert(0, step)
        return node

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:
        self.generic_visit(node)
        return self._guard.call_method("_join", node.nodes, lineno=node.lineno)


class _Namespace(Namespace):
    """Jinja's namespace without names that begin with an underscore, as in `transformers`."""

    def __init__(*args: Any, **kwargs: Any) -> None:
        self, values = args[0], dict(*args[1:], **kwargs)
        for name in values:
            _Namespace._check(name)
        Namespace.__init__(self, values)

    def __setitem__(self, name: str, value: Any) -> None:
        _Namespace._check(name)
        Namespace.__setitem__(self, name, value)

    @staticmethod
    def _check(name: object) -> None:
        if isinstance(name, str) and name.startswith("_"):
            raise SecurityError(f"a namespace cannot have the attribute {name!r}")


class _Environment(ImmutableSandboxedEnvironment):
    """The sandbox, with limits on what operators build."""

    intercepted_binops = frozenset(("+", "*", "**", "%"))

    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        guard = self.extensions[_Guard.identifier]
        assert isinstance(guard, _Guard)
        return _Counted(guard).visit(super()._parse(source, name, filename))

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        wide = isinstance(left, str) and re.search(r"\d{7}|\*", left)
        if (operator == "%" and wide) or (operator == "**" and right > 1000):
            raise TemplateError(f"{left!r:.40} {operator} {right!r:.40}: too large")
        sizes = [len(x) if hasattr(x, "__len__") else None for x in (left, right)]
        if operator == "*" and sizes != [None, None]:
            times = right if sizes[1] is None else left
            size = sizes[0] if sizes[1] is None else sizes[1]
            _check_size(size * times if isinstance(times, int) and size else 0)
        elif operator == "+":
            _check_size(sum(size or 0 for size in sizes))
        return super().call_binop(context, operator, left, right)


def _raise_exception(message: str) -> None:
    raise TemplateError(message)


def _tojson(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    options = {"indent": indent, "separators": separators, "sort_keys": sort_keys}
    return json.dumps(value, ensure_ascii=ensure_ascii, **options)


@lru_cache(maxsize=1)
def _environment() -> _Environment:
    environment = _Environment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_Guard, loopcontrols]
    )
    environment.filters["tojson"] = _tojson
    environment.globals["raise_exception"] = _raise_exception
    environment.globals["strftime_now"] = TODAY.strftime
    environment.globals["namespace"] = _Namespace
    return environment


@lru_cache(maxsize=16)
def _compiled(source: str) -> Any:
    if len(source) > MOST_CHARACTERS:
        raise TemplateError(f"it has {len(source):,} characters; {MOST_CHARACTERS:,} are read")
    return _environment().from_string(source)
