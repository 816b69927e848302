"""Checks of a text before it is tokenized, and spans in a text."""

import re
from collections.abc import Iterator, Sequence

Span = tuple[int, int]
"""The first character and the one after the last."""


def check_text(text: object) -> None:
    """ValueError unless this is a string that UTF-8 can hold."""
    if not isinstance(text, str):
        raise ValueError(f"a text must be a str, this is {type(text).__name__}: {text!r:.80}")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(
            f"a text has the lone surrogate {text[error.start]!r} at character {error.start}, "
            'which no UTF-8 holds; repair it, say with text.encode("utf-8", "replace").decode()'
        ) from None


def matches_outside(
    pattern: re.Pattern[str], text: str, contents: Sequence[Span]
) -> Iterator[Span]:
    """The spans of matches that touch none of some spans."""
    at = 0
    while match := pattern.search(text, at):
        begin, stop = match.span()
        if any(begin < end and start < stop for start, end in contents):
            at = begin + 1
        else:
            yield begin, stop
            at = stop
