"""Values of a command line as people type them -> values as Hydra's grammar reads them.

The type of a field decides. In a field of text (`str`: paths, names, words) a value is what was
typed, whatever characters it has: it is put in quotes. In a list of texts each element is taken so,
and one value without brackets is a list of one; in a mapping to texts each value is. What is left
to Hydra: `null`, a value that is in quotes already, interpolations of what exists (`${seed}`), and,
in a sweep (`-m`), the commas between values and functions such as `choice(a,b)`. `~/` at the
beginning of a text is the home folder, except in fields with the metadata `text`: prompts and the
like, in which nothing has a meaning.
"""

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any, get_args, get_origin

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import QuotedString, Sweep
from hydra.errors import HydraException
from omegaconf import Container, DictConfig, Node, OmegaConf

_OVERRIDE = re.compile(r"(?P<sign>\+\+|\+|~)?(?P<key>[A-Za-z_$][\w./@$-]*)(?P<given>=)?", re.A)
_FUNCTION = re.compile(r"\s*\w+\s*\(.*\)\s*", re.S)
_ESCAPED = re.compile(r"\\[()\[\]{}:=, \t]")
_PAIR = r"\s*[\w$./-]+\s*:\s*[-+.\deE]+\s*"
_PAIRS = re.compile(f"{_PAIR}(?:,{_PAIR})*")
_OPENING, _CLOSING = "([{", ")]}"
_WORDS = {int: "a whole number", float: "a number", bool: "true or false"}


@dataclass(frozen=True)
class Argument:
    """One override, split where its key ends.

    Attributes:
        sign: "", "+", "++" or "~".
        value: text after the first `=`; None without a `=`.
    """

    sign: str
    key: str
    value: str | None

    def __str__(self) -> str:
        return f"{self.sign}{self.key}" + ("" if self.value is None else f"={self.value}")


def split_argument(text: str) -> Argument | None:
    """The parts of an override; None if the text has no key and `=` (or no `~` and key)."""
    found = _OVERRIDE.match(text)
    if not found:
        return None
    rest = text[found.end() :]
    if found["given"]:
        return Argument(found["sign"] or "", found["key"], rest)
    if found["sign"] == "~" and not rest:
        return Argument("~", found["key"], None)
    return None


@dataclass(frozen=True)
class Field:
    """Type of the values that a key of a composed configuration takes.

    Attributes:
        hint: type of its values.
        is_text: nothing in the value has a meaning.
        takes_nothing: an empty text is a value.
        exists: whether the configuration has it; otherwise it is a new key of a mapping.
        is_open: whether a mapping takes the new key without a `+`.
    """

    hint: Any
    is_text: bool = False
    takes_nothing: bool = False
    exists: bool = True
    is_open: bool = True


def field_of(tree: DictConfig, key: str) -> Field | None:
    """The field that a dotted key names, also one that a mapping does not hold yet."""
    node: Node | None = tree
    parent: Container = tree
    parts = key.split(".")
    for number, part in enumerate(parts):
        if isinstance(node, DictConfig) and node._is_interpolation():
            node = node._maybe_dereference_node()
        if not isinstance(node, Container) or node._is_none() or node._is_missing():
            return None
        if not isinstance(node, DictConfig):  # an element of a list, by its number
            return Field(_element(node)) if part.isdigit() else None
        if (child := node._get_node(part, validate_access=False)) is None:
            is_mapping = get_origin(node._metadata.ref_type) is dict
            if not is_mapping or (number + 1 < len(parts) and _element(node) is not Any):
                return None
            return Field(_element(node), exists=False, is_open=not node._get_flag("struct"))
        assert isinstance(child, Node)
        parent, node = node, child
    owner = parent._metadata.object_type  # pyright: ignore[reportAttributeAccessIssue] it has one
    described = {field.name: field for field in fields(owner)} if is_dataclass(owner) else {}
    found = described.get(parts[-1])
    is_text = found is not None and bool(found.metadata.get("text"))
    takes_nothing = is_text or (found is not None and found.default == "")
    return Field(node._metadata.ref_type, is_text=is_text, takes_nothing=takes_nothing)


def _element(node: Container) -> Any:
    return node._metadata.element_type  # pyright: ignore[reportAttributeAccessIssue] of containers


def rendered(argument: Argument, field: Field, tree: DictConfig, *, sweeps: bool) -> str:
    """An override as Hydra reads it.

    Args:
        field: what its key takes in `tree`, the configuration without the override.
        sweeps: a comma between values separates the points of a sweep (`-m`).

    Raises:
        ValueError: the value is none of this type, or can be read in two ways; says what to type.
    """
    assert argument.value is not None
    if field.hint is str and not (argument.value.strip(" '\"") or field.takes_nothing):
        raise ValueError(
            f"{argument.key}=: empty; type {argument.key}=<value>, or leave {argument.key} out"
        )
    writer = _Writer(argument.key, tree, is_text=field.is_text)
    value = argument.value
    if sweeps and not field.is_text:
        if _FUNCTION.fullmatch(value) and isinstance(_parsed(value), Sweep):
            return str(argument)
        points = list(_split(value))
        if len(points) > 1:
            value = ",".join(writer.write(point, field.hint) for point in points)
            return str(Argument(argument.sign, argument.key, value))
    value = writer.write(value, field.hint)
    return str(Argument(argument.sign, argument.key, value))


@dataclass(frozen=True)
class _Writer:
    key: str
    tree: DictConfig
    is_text: bool

    def write(self, value: str, hint: Any) -> str:
        """A value of a type, in Hydra's grammar."""
        stripped = value.strip()
        if stripped.lower() == "null" or (not self.is_text and self._is_reference(stripped)):
            return stripped
        if hint is str:
            return self._quoted(value)
        origin = get_origin(hint)
        if origin is list:
            bracketed = _is_enclosed(stripped, "[]") or not self.is_text
            return self._list(stripped if bracketed else value, get_args(hint)[0])
        if origin is dict and _is_enclosed(stripped, "{}"):
            return self._mapping(stripped, get_args(hint)[1])
        if (origin is dict or hint is Any) and _PAIRS.fullmatch(value):
            mapping = ", ".join(": ".join(map(str.strip, x.split(":"))) for x in value.split(","))
            raise ValueError(f"{self.key}={value}: type {self.key}='{{{mapping}}}'")
        if hint is Any:
            return self._anything(value)
        return self._plain(value, hint)

    def _quoted(self, value: str) -> str:
        parsed = _parsed(value)
        if isinstance(parsed, QuotedString):
            if self.is_text or not parsed.text.startswith("~"):
                return value.strip()
            value = parsed.text
        elif not self.is_text and isinstance(parsed, str) and _ESCAPED.search(value):
            value = parsed
        if not self.is_text and value.startswith("~"):
            value = _at_home(value)
        # In quotes, a backslash means something only before a quote, and `${` an interpolation.
        value = re.sub(r"(\\*)'", lambda found: found[1] * 2 + "\\'", value)
        value += "\\" * (len(value) - len(value.rstrip("\\")))
        if self.is_text or not self._has_references(value):
            value = re.sub(r"(\\*)\$\{", lambda found: found[1] * 2 + "\\${", value)
        return f"'{value}'"

    def _list(self, value: str, element: Any) -> str:
        if _is_enclosed(value, "[]"):
            inner = value[1:-1].strip()
            elements = list(_split(inner)) if inner else []
            if not inner and self.is_text and value[1:-1]:
                return f"[{self._quoted(value[1:-1])}]"  # blanks and line ends are a text, too
            if not all(part.strip() for part in elements):
                raise ValueError(
                    f"{self.key}={value}: an element is empty; type "
                    f"{self._form([part.strip() for part in elements if part.strip()])}"
                )
            return f"[{','.join(self.write(part.strip(), element) for part in elements)}]"
        if value.startswith("["):
            raise ValueError(
                f"{self.key}={value}: a list without its closing bracket; put quotes around the "
                f"whole list, as in {self._form(['a', 'b'])}"
            )
        parts = [part.strip() for part in _split(value)]
        if len(parts) > 1:
            one = f"; or {self._form([repr(value)])} for one that has a comma in it"
            raise ValueError(
                f"{self.key}={value}: type {self._form(parts)} for {len(parts)} values"
                + (one if element in (str, Any) else "")
            )
        return f"[{self.write(value, element)}]" if value else "[]"

    def _form(self, elements: list[str]) -> str:
        whole = f"[{','.join(elements)}]"
        plain = "'" in whole and not re.search(r'["$`\\!]', whole)
        return f"{self.key}=" + (f'"{whole}"' if plain else shlex.quote(whole))

    def _mapping(self, value: str, element: Any) -> str:
        pairs = []
        for part in _split(value[1:-1]) if value[1:-1].strip() else ():
            key, colon, rest = (piece.strip() for piece in part.partition(":"))
            if not colon or not key or not rest:
                raise ValueError(
                    f"{self.key}={value}: {part.strip()!r} is not `name: value`; type "
                    f"{self.key}='{{name: value, other: value}}', and quotes around a value that "
                    "has a comma in it"
                )
            if not re.fullmatch(r"[\w$./-]+", key, re.ASCII):
                raise ValueError(
                    f"{self.key}={value}: the name {key!r}; on a command line the names in a "
                    "mapping consist of ASCII letters, digits, `_`, `-`, `.` and `/`"
                )
            pairs.append(f"{key}: {self.write(rest, element)}")
        return "{" + ", ".join(pairs) + "}"

    def _anything(self, value: str) -> str:
        """A value of a field of any type: Hydra's reading, or else the text itself."""
        parsed, stripped = _parsed(value), value.strip()
        if isinstance(parsed, (str, QuotedString)):
            return self._quoted(value)
        if _is_enclosed(stripped, "[]"):
            return self._list(stripped, Any)
        if _is_enclosed(stripped, "{}"):
            return self._mapping(stripped, Any)
        if isinstance(parsed, Sweep) and not _FUNCTION.fullmatch(value):
            return self._list(stripped, Any)  # which says what to type
        is_read = parsed is not None and not isinstance(parsed, Sweep)
        return value if is_read else self._quoted(value)

    def _plain(self, value: str, hint: Any) -> str:
        """A number, a switch or a group of fields."""
        parsed = _parsed(value)
        if isinstance(parsed, Sweep):
            raise ValueError(
                f"{self.key}={value}: several values make a sweep, which -m starts: "
                f"python ... -m {self.key}={value}"
            )
        word = _WORDS.get(hint)
        if word is None:
            if isinstance(parsed, dict):
                return value
            raise ValueError(f"{self.key}={value}: {self.key} holds {self._names()}")
        if isinstance(parsed, QuotedString):
            parsed = parsed.text
        if not _fits(parsed, hint):
            hint_null = "; null for none" if value.strip().lower() in ("none", "nil") else ""
            written = f"; write {parsed:.0f}" if hint is int and _is_whole(parsed) else ""
            raise ValueError(f"{self.key}={value}: must be {word}{written}{hint_null}")
        return value

    def _names(self) -> str:
        node = OmegaConf.select(self.tree, self.key)
        names = [f"{self.key}.{name}" for name in node] if isinstance(node, DictConfig) else []
        if names:
            return f"several fields; set one of them: {', '.join(names)}"
        return f"a mapping; type {self.key}='{{name: value}}'"

    def _is_reference(self, value: str) -> bool:
        whole = re.fullmatch(r"\$\{([^{}]+)\}", value)
        return whole is not None and self._exists(whole[1])

    def _has_references(self, value: str) -> bool:
        """Check that every `${...}` of a text names an existing key."""
        names = re.findall(r"\$\{([^{}]+)\}", value)
        return bool(names) and value.count("${") == len(names) and all(map(self._exists, names))

    def _exists(self, name: str) -> bool:
        resolver, colon, _ = name.partition(":")
        if colon:
            return OmegaConf.has_resolver(resolver)
        return name.startswith(".") or field_of(self.tree, name) is not None


def _parsed(value: str) -> Any:
    """Value that Hydra's grammar parses; None if the text does not parse, or is null."""
    try:
        (override,) = OverridesParser.create().parse_overrides([f"x={value}"])
    except HydraException:
        return None
    return override._value


def _fits(parsed: Any, hint: type) -> bool:
    """Check that OmegaConf accepts a parsed value for a field of a scalar type."""
    if hint is bool:
        words = ("true", "false", "on", "off", "yes", "no", "y", "n", "1", "0")
        return str(parsed).lower() in words
    if isinstance(parsed, bool) or (hint is int and isinstance(parsed, float)):
        return False
    try:
        hint(parsed)
    except (TypeError, ValueError):
        return False
    return True


def _is_whole(parsed: Any) -> bool:
    return isinstance(parsed, float) and parsed.is_integer()


def _at_home(value: str) -> str:
    try:
        return str(Path(value).expanduser())
    except RuntimeError:  # no such user, no home: the value is what was typed
        return value


def _is_enclosed(value: str, brackets: str) -> bool:
    return len(value) > 1 and value[0] == brackets[0] and value[-1] == brackets[1]


def _split(value: str) -> Iterator[str]:
    """Parts between commas, except commas in quotes or in balanced brackets."""
    depths = _depths(value)
    begin = number = 0
    while number < len(value):
        before = value[begin:number].strip()
        if value[number] in "'\"" and (not before or before.endswith(":")):
            number = _end_of_quote(value, number)
        elif value[number] == "," and not depths[number]:
            yield value[begin:number]
            begin = number + 1
        number += 1
    yield value[begin:]


def _end_of_quote(value: str, begin: int) -> int:
    """Place of the closing quotation mark; the opening one itself if it is but a character."""
    for number in range(begin + 1, len(value)):
        rest = value[number + 1 :].lstrip()
        if value[number] == value[begin] and value[number - 1] != "\\" and rest[:1] in ("", ","):
            return number
    return begin


def _depths(value: str) -> list[int]:
    """In how many brackets each place of a text is; in none if the brackets do not match."""
    depth, depths = 0, list[int]()
    for character in value:
        depth += (character in _OPENING) - (character in _CLOSING)
        depths.append(depth)
    if depth or min(depths, default=0) < 0:
        return [0] * len(value)
    return depths
