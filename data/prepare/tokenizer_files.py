"""The tokenizer of a source, checked before any work: training must be able to save it.

Where a folder has both tokenizer.json and tokenizer.model and the ids come from the first, the
first texts of the inputs show on how many of them the two differ.
"""

from collections.abc import Iterable
from itertools import islice
from typing import Any

from tokenizer.tokenizer import Tokenizer

COMPARED = 1000
"""Number of texts at the beginning of the inputs that are compared."""
LONGEST = 10_000
"""Characters of each text that are compared."""


def open_exportable(path: str, key: str = "tokenizer") -> Tokenizer:
    """The tokenizer of a source.

    Args:
        key: field that names the tokenizer, for messages.

    Raises:
        ValueError: the tokenizer is missing, or training could not save its files with the model.
    """
    try:
        tokenizer = Tokenizer.open(path)
        tokenizer.check_exportable()
    except ValueError as error:
        raise ValueError(f"{key}={path}: {error}") from None
    return tokenizer


def tokenizer_entry(tokenizer: Tokenizer) -> dict[str, Any]:
    """Entry of a tokenizer in a manifest."""
    names = ("fingerprint", "vocab_size", "bos_id", "eos_id")
    return {name: getattr(tokenizer, name) for name in names}


def describe_difference(path: str, texts: Iterable[str]) -> str | None:
    """Count texts with other ids by tokenizer.model; a line, or None if the folder has one file."""
    tokenizer = Tokenizer.open(path)
    if tokenizer.second_opinion([]) is None:
        return None
    sample = [text[:LONGEST] for text in islice(texts, COMPARED)]
    differing = tokenizer.second_opinion(sample)
    return (
        f"tokenizer: the ids are those of {tokenizer.origin}/tokenizer.json, as in transformers; "
        f"tokenizer.model gives other ids for {differing} of the first {len(sample):,} texts "
        f"(compared: at most {COMPARED:,}). Training and export keep both files as they are"
    )
