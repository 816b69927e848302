"""A small generative grammar: rules written as text, expanded by seeded draws.

    name:                        a rule; its alternatives follow
    - one | two | three          alternatives, on one line or on several
    - {other} [a|b] {x=other}    {rule} expands a rule or a bound name, [a|b] chooses in place,
      and {10-99} {1000-9999,}   {x=rule} also binds x; whole numbers, the second with commas

An indented line continues the one above. Within one document no alternative of a rule is drawn
again before all of them have been drawn.
"""

import re
from collections.abc import Iterator
from typing import NamedTuple, TypeAlias

from data.sample.dice import Dice


class Slot(NamedTuple):
    """`{name}` or `{bind=name}`."""

    name: str
    bind: str


class Range(NamedTuple):
    """`{low-high}`; `{low-high,}` groups thousands."""

    low: int
    high: int
    format: str


Template: TypeAlias = tuple
"""A sequence of str, Slot, Range and list[Template], the last is a choice."""

TOKEN = re.compile(r"\{[^}]*\}|[\[\]|]|[^{}\[\]|]+")
RANGE = re.compile(r"(\d+)-(\d+)(,?)")


def parse(text: str) -> list[Template]:
    """The alternatives of one line; blanks around bars are ignored."""
    return _alternatives(iter(TOKEN.findall(text.replace(" | ", "|"))))


def _alternatives(tokens: Iterator[str]) -> list[Template]:
    alternatives, current = [], []
    for token in tokens:
        if token == "]":
            break
        if token == "|":
            alternatives.append(tuple(current))
            current = []
        elif token == "[":
            current.append(_alternatives(tokens))
        elif token[0] == "{":
            current.append(_slot(token[1:-1]))
        else:
            current.append(token)
    return [*alternatives, tuple(current)]


def _slot(text: str) -> Slot | Range:
    if numbers := RANGE.fullmatch(text):
        return Range(int(numbers[1]), int(numbers[2]), numbers[3])
    bind, _, name = text.rpartition("=")
    return Slot(name, bind)


class Grammar:
    """Rules parsed once.

    Args:
        text: the rules in the notation of this module.
        given: names the caller binds, everything else must be a rule.
        joiner: text between a line and its continuation (empty for Chinese).
    """

    def __init__(self, text: str, given: set[str], joiner: str = " ") -> None:
        bodies: dict[str, list[str]] = {}
        body: list[str] = []
        for line in text.splitlines():
            if line.startswith("- "):
                body.append(line[2:])
            elif line.startswith("  "):
                body[-1] += joiner + line.strip()
            elif line:
                assert line.endswith(":"), line
                assert line[:-1] not in bodies, line
                body = bodies[line[:-1]] = []
        self.rules = {
            name: [template for line in lines for template in parse(line)]
            for name, lines in bodies.items()
        }
        slots = [slot for templates in self.rules.values() for slot in _slots(templates)]
        known = self.rules.keys() | given | {slot.bind for slot in slots}
        unknown = {slot.name for slot in slots} - known
        assert not unknown, f"slots without a rule: {sorted(unknown)}"


def _slots(node: object) -> Iterator[Slot]:
    if isinstance(node, Slot):
        yield node
    elif isinstance(node, (list, tuple)):
        for part in node:
            yield from _slots(part)


class Expansion:
    """One document's draws from a grammar: what is bound and what has been used."""

    def __init__(self, grammar: Grammar, dice: Dice) -> None:
        self.bound: dict[str, str] = {}
        self._dice = dice
        self._rules = grammar.rules
        self._left: dict[str, list[Template]] = {}

    def rule(self, name: str) -> str:
        """Expand a rule."""
        parts: list[str] = []
        self._write_rule(name, parts)
        return "".join(parts)

    def template(self, template: Template) -> str:
        """Expand a parsed template."""
        parts: list[str] = []
        self._write(template, parts)
        return "".join(parts)

    def _write_rule(self, name: str, parts: list[str]) -> None:
        left = self._left.get(name)
        if not left:
            left = self._left[name] = self._rules[name].copy()
        chosen = self._dice.below(len(left))
        left[chosen], left[-1] = left[-1], left[chosen]
        self._write(left.pop(), parts)

    def _write(self, template: Template, parts: list[str]) -> None:
        for node in template:
            kind = type(node)
            if kind is str:
                parts.append(node)
            elif kind is Slot:
                self._write_slot(node, parts)
            elif kind is Range:
                parts.append(format(self._dice.between(node.low, node.high), node.format))
            else:
                self._write(self._dice.pick(node), parts)

    def _write_slot(self, slot: Slot, parts: list[str]) -> None:
        if slot.bind:
            self.bound[slot.bind] = self.rule(slot.name)
            parts.append(self.bound[slot.bind])
        elif slot.name in self.bound:
            parts.append(self.bound[slot.name])
        else:
            self._write_rule(slot.name, parts)
