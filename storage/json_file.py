"""JSON objects in files that others have written: whole and unambiguous, or refused by path."""

import json
import math
from pathlib import Path
from typing import Any


def read_object(path: Path) -> dict[str, Any]:
    """Read a file that holds one JSON object.

    Raises:
        ValueError: the file is not UTF-8, not JSON, no object, or names a key twice.
    """
    try:
        text = path.read_bytes().decode("utf-8")
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 ({error.reason}); save it as UTF-8") from None
    if text.startswith("\ufeff"):
        raise ValueError(
            f"{path} begins with a byte order mark, with which transformers does not open it; save "
            "it as UTF-8 without one"
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
    """An object; which of two values a reader takes for one key differs between readers."""
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"the key {twice!r} stands there twice")
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
    """A value as a message shows it."""
    huge = isinstance(value, int) and abs(value) > 10**50
    text = "a huge number" if huge else repr(value)
    return text if len(text) <= 120 else text[:120] + "..."
