"""Replies of a judge -> verdicts; what is not exactly a verdict is none."""

import json
import re
from typing import Any

from evaluation.judge.prompts import CHOICES, CRITERIA, OVERALL

FENCED = re.compile(r"```(?:json)?\s*\n(.*)\n\s*```", re.DOTALL)
"""A code block and nothing around it: what many models put around JSON, and no guess."""


class Malformed(Exception):
    """A reply that is no verdict; the message says why, and quotes nothing of the reply."""


def parse_scores(reply: str, scale: int) -> dict[str, Any]:
    """`reasons`, and a score of 1 to `scale` for every criterion.

    Raises:
        Malformed: the reply is anything else.
    """
    verdict = _read(reply, list(CRITERIA))
    for name in CRITERIA:
        # Neither true nor 2.0: what the judge meant by them would be a guess.
        if type(verdict[name]) is not int or not 1 <= verdict[name] <= scale:
            raise Malformed(f"{name} is not a whole number from 1 to {scale}")
    return verdict


def parse_choices(reply: str) -> dict[str, Any]:
    """`reasons`, and `first`, `second` or `tie` for every criterion and overall.

    Raises:
        Malformed: the reply is anything else.
    """
    names = [*CRITERIA, OVERALL]
    verdict = _read(reply, names)
    for name in names:
        if verdict[name] not in CHOICES:
            raise Malformed(f"{name} is none of {', '.join(CHOICES)}")
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
        raise Malformed("it is not one JSON object") from None
    if not isinstance(verdict, dict):
        raise Malformed("it is not one JSON object")
    if missing := [name for name in ("reasons", *names) if name not in verdict]:
        raise Malformed(f"{', '.join(missing)} missing")
    if len(verdict) > len(names) + 1:
        raise Malformed("it has keys that were not asked for")
    if not isinstance(verdict["reasons"], str):
        raise Malformed("reasons is not a text")
    return verdict


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise Malformed("it has a key twice")
    return found
