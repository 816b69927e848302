"""JSON objects in files of other programs: complete and unambiguous, or refused with the path."""

import json
import math
from pathlib import Path
from typing import Any


def read_object(path: Path) -> dict[str, Any]:
    """Read a file with one JSON object.

    Raises:
        ValueError: the file is not UTF-8, not JSON, not an object, or has a key twice.
    """
    try:
        text = path.read_bytes().decode("utf-8")
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 ({error.reason}); save it as UTF-8") from None
    if text.startswith("\ufeff"):
        raise ValueError(
            f"{path} starts with a byte order mark, which transformers cannot read; save the file "
            "as UTF-8 without a byte order mark"
        )
    try:
        value = json.loads(text, object_pairs_hook=_without_repeats)
    except RecursionError:
        raise ValueError(f"{path} is nested too deeply; the file is damaged") from None
    except ValueError as error:
        raise ValueError(f"{path} is not JSON ({error}); the file is damaged") from None
    if not isinstance(value, dict):
        raise ValueError(f"{path} holds {str(value)[:40]}, not a JSON object; the file is damaged")
    return value


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Build an object; a repeated key is refused, because readers differ in the value they take."""
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"the key {twice!r} occurs twice")
    return found


def is_number(value: object) -> bool:
    """True for an int or float that is neither infinite nor NaN; false for true and false."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:  # an int that no float can hold
        return False


def shown(value: object) -> str:
    """A value for a message, shortened."""
    huge = isinstance(value, int) and abs(value) > 10**50
    text = "a huge number" if huge else repr(value)
    return text if len(text) <= 120 else text[:120] + "..."
