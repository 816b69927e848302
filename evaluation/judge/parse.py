"""Parsing of a judge's replies; a reply that deviates from the requested form is rejected."""

import json
import re
from typing import Any

from evaluation.judge.prompts import CHOICES, CRITERIA, OVERALL

FENCED = re.compile(r"```(?:json)?\s*\n(.*)\n\s*```", re.DOTALL)
"""A code block with nothing around it, which many models put around JSON."""


class InvalidVerdict(Exception):
    """A reply without a valid verdict; the message gives the reason and quotes nothing of it."""


def parse_scores(reply: str, scale: int) -> dict[str, Any]:
    """`reasons`, and a score of 1 to `scale` for every criterion.

    Raises:
        InvalidVerdict: the reply has another form.
    """
    verdict = _read(reply, list(CRITERIA))
    for name in CRITERIA:
        # true and 2.0 are rejected: their meaning would be a guess.
        if type(verdict[name]) is not int or not 1 <= verdict[name] <= scale:
            raise InvalidVerdict(f"{name} is not a whole number from 1 to {scale}")
    return verdict


def parse_choices(reply: str) -> dict[str, Any]:
    """`reasons`, and `first`, `second` or `tie` for every criterion and overall.

    Raises:
        InvalidVerdict: the reply has another form.
    """
    names = [*CRITERIA, OVERALL]
    verdict = _read(reply, names)
    for name in names:
        if verdict[name] not in CHOICES:
            raise InvalidVerdict(f"{name} is none of {', '.join(CHOICES)}")
    return verdict


def _read(reply: str, names: list[str]) -> dict[str, Any]:
    text = reply.strip()
    if fenced := FENCED.fullmatch(text):
        text = fenced[1]
    try:
        verdict = json.loads(text, object_pairs_hook=_unique)
        reply.encode()
        json.dumps(verdict, ensure_ascii=False).encode()
    # RecursionError: nested too deep; UnicodeEncodeError, a ValueError: half a character.
    except (ValueError, RecursionError):
        raise InvalidVerdict("it is not one JSON object") from None
    if not isinstance(verdict, dict):
        raise InvalidVerdict("it is not one JSON object")
    if missing := [name for name in ("reasons", *names) if name not in verdict]:
        raise InvalidVerdict(f"{', '.join(missing)} missing")
    if len(verdict) > len(names) + 1:
        raise InvalidVerdict("it has keys other than the requested ones")
    if not isinstance(verdict["reasons"], str):
        raise InvalidVerdict("reasons is not a text")
    return verdict


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise InvalidVerdict("it has a key twice")
    return found
