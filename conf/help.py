"""`--help`: the usage of a command, its fields with their meaning, and the groups it has."""

import ast
import inspect
import textwrap
from collections.abc import Iterator
from dataclasses import is_dataclass
from typing import Any, NamedTuple

from omegaconf import DictConfig, OmegaConf

from conf.suggest import APPENDED, choices, compose_with_groups, is_group

WIDTH = 100


def help_text(config_name: str, usage: str) -> str:
    """Help text of a command.

    Args:
        usage: docstring of its module.
    """
    tree, chosen = compose_with_groups(config_name)
    lines = [usage.strip(), ""]
    groups = {group: choice for group, choice in chosen.items() if is_group(group)}
    if groups or config_name in APPENDED:
        lines.append("Switches:")
        for group in APPENDED.get(config_name, ()):
            lines += _entry(f"+{group}=...", f"one of {', '.join(choices(group))}")
        for group, choice in groups.items():
            lines += _entry(f"{group}={choice}", f"one of {', '.join(choices(group))}")
        lines.append("")
    lines.append("Options with their defaults (... must be given):")
    for field in documented_fields(tree):
        lines += _entry(f"{field.name}={field.default}", field.meaning)
    lines += ["", "-m sweeps over values (seed=0,1,2), --cfg job prints the configuration."]
    return "\n".join(lines)


class Field(NamedTuple):
    """A field of a configuration, as a command line names it."""

    name: str
    default: str
    meaning: str


def documented_fields(
    tree: DictConfig, prefix: str = "", seen: frozenset[type] = frozenset()
) -> Iterator[Field]:
    """Fields of a composed configuration, with the docstrings of their dataclasses.

    Args:
        seen: dataclasses that enclose `tree`; their fields are not explained again.
    """
    owner: Any = OmegaConf.get_type(tree)
    part = isinstance(owner, type) and is_dataclass(owner)
    documented = _docstrings(owner) if part and owner not in seen else {}
    seen = seen | {owner} if part else seen
    for key in tree:
        name = f"{prefix}{key}"
        missing = OmegaConf.is_missing(tree, key)
        node = None if missing else tree._get_node(key)
        if isinstance(node, DictConfig) and _is_part(node):
            yield from documented_fields(node, f"{name}.", seen)
            continue
        yield Field(name, _shown(node, missing), documented.get(str(key), ""))


def _is_part(node: DictConfig) -> bool:
    return not (node._is_none() or node._is_interpolation()) and len(node) > 0


def _shown(node: Any, missing: bool) -> str:
    if missing:
        return "..."
    value = OmegaConf.to_container(OmegaConf.create({"x": node}), resolve=False)
    assert isinstance(value, dict)
    text = "null" if value["x"] is None else str(value["x"])
    return text.replace("'", "") if isinstance(value["x"], list) else text


def _entry(name: str, meaning: str) -> list[str]:
    if not meaning:
        return [f"  {name}"]
    head = f"  {name:<28}  "
    return textwrap.wrap(
        meaning,
        WIDTH,
        initial_indent=head,
        subsequent_indent=" " * 32,
        break_long_words=False,
        break_on_hyphens=False,
    )


def _docstrings(owner: type) -> dict[str, str]:
    """The docstring below each field of a dataclass and of those it derives from."""
    found: dict[str, str] = {}
    for one in reversed(owner.__mro__):
        if not is_dataclass(one):
            continue
        (body,) = ast.parse(textwrap.dedent(inspect.getsource(one))).body
        assert isinstance(body, ast.ClassDef)
        for field, doc in zip(body.body, body.body[1:], strict=False):
            if not (isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)):
                continue
            if isinstance(doc, ast.Expr) and isinstance(doc.value, ast.Constant):
                found[field.target.id] = " ".join(str(doc.value.value).split())
    return found
