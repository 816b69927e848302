"""Prepared sources of either kind, documents or conversations, behind the same few operations."""

import json
from pathlib import Path

from data.rows.conversations import KIND, ConversationRows, Conversations
from data.rows.packing import StreamRows
from data.rows.shards import Source
from data.rows.stream import stream_of_run

AnySource = Source | Conversations
"""A prepared source of either kind."""
AnyRows = StreamRows | ConversationRows
"""The rows of a source: `row`, `pieces`, `place`, `epoch_tokens`."""


def open_source(folder: Path | str, fingerprint: str | None = None) -> AnySource:
    """Open a prepared folder, whichever kind it is.

    Args:
        fingerprint: of the state to open, if a source of documents has grown since.

    Raises:
        ValueError: the folder is not a finished source.
    """
    manifest = Path(folder) / "manifest.json"
    if manifest.is_file() and json.loads(manifest.read_text(encoding="utf-8")).get("kind") == KIND:
        return Conversations(folder)
    return Source(folder, fingerprint)


def rows_of_run(source: AnySource, name: str, seed: int, row_length: int) -> AnyRows:
    """The rows that a run of this seed reads from a source: those of `data.rows.loader.Loader`.

    Raises:
        ValueError: a conversation does not fit a row.
    """
    if isinstance(source, Conversations):
        return ConversationRows(source, name, seed, row_length)
    return StreamRows(stream_of_run(source, name, seed), row_length)
