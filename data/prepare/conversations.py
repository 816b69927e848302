"""Files of instruction data (`data.records.chat_formats`) -> a source of conversations
(`data.rows.conversations`).

One process reads, encodes and appends. The result is written to `<out>.tmp/` and renamed to `<out>`
once it is on disk; an interrupted preparation starts again. A conversation is held out if the side
hash (`data.prepare.held_out`) of its first question and answer is small, so retyped copies of a
pair never start conversations on both sides. Of several conversations with equal messages, letter
for letter, the first is kept. skipped.jsonl has {"file", "line", "reason"} for each skipped record;
lines count from 1, elements of an array (.json) from 0.
"""

import hashlib
import json
import shutil
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import numpy as np
from tqdm import tqdm

from data.prepare.config import PrepareBaseConfig
from data.prepare.held_out import normalize, side_hash
from data.prepare.tokenizer_files import describe_difference, open_exportable, tokenizer_entry
from data.prepare.writer import json_line, lock_unfinished, refuse_existing, unfinished_folder
from data.records.chat_formats import Conversation, Entry, read_conversations
from data.records.readers import BadRecord, find_inputs
from data.records.record_files import EMPTY_LINE, FORMATS
from data.records.record_keys import Columns, columns_of
from data.rows.conversations import KIND, STORED
from data.rows.shards import FORMAT_VERSION, token_dtype
from storage.atomic import fsync, fsync_file, write_json
from storage.checksum import sha256_of
from tokenizer.chat import (
    TRAIN_ON,
    Encoded,
    Message,
    check_trainable,
    encode_conversation,
    template_of,
    truncate,
)
from tokenizer.template import RefusedByTemplate
from tokenizer.tokenizer import Tokenizer

SAME_TEXT = "same text as an earlier conversation"
TOO_LONG = "longer than max_tokens"
NO_ANSWER_LEFT = "longer than max_tokens before its first answer"
NOTHING_TO_LEARN = "all that could be predicted is marked as not to be learned"
LEFT_OUT = frozenset((SAME_TEXT, TOO_LONG, NO_ANSWER_LEFT, NOTHING_TO_LEARN))
"""Reasons for which a conversation is left out although its record is good."""


@dataclass(kw_only=True)
class PrepareConversationsConfig(PrepareBaseConfig):
    """Settings of a source of conversations."""

    inputs: list[str]
    """Files or globs, read in sorted order. Formats: .json, .jsonl, both also .gz or .zst,
    and .parquet."""
    max_tokens: int
    """Tokens of the longest conversation: at most the length of the rows it will be packed into."""
    overlong: str = "reject"
    """Conversations above max_tokens: `reject` skips them, `truncate` keeps their first tokens."""
    train_on: str = "assistant"
    """Supervised messages: those of the `assistant`, or `all`."""
    held_out_fraction: float = 0.02
    fields: dict[str, str] = field(default_factory=dict, metadata={"free_keys": True})
    """Columns of records under other names than usual, by what they mean: messages, question,
    input, answer, system, history; or role, content, train of each message. For example
    `fields='{question: ask, answer: reply}'`; the usual names are in
    data/records/record_keys.py."""
    ignore: list[str] = field(default_factory=list)
    """Keys of records or messages to pass over although they mean something: tools,
    reasoning_content, images, ..."""
    roles: dict[str, str] = field(default_factory=dict, metadata={"free_keys": True})
    """Further names of the roles of messages, for example
    `roles='{user: patient, assistant: doctor}'`."""
    max_rejected: float = 1.0
    """Largest share of records that may be rejected, for any reason; above it the command fails and
    writes nothing."""
    show: int = 3
    """Number of conversations to print as training reads them."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_choices({"overlong": ("reject", "truncate"), "train_on": TRAIN_ON})
        if not 0 <= self.max_rejected <= 1:
            raise ValueError(f"max_rejected: {self.max_rejected}; it must be >= 0 and <= 1")
        columns_of(self.fields, self.ignore, self.roles)
        self._check_least(max_tokens=2, show=0)

    @property
    def columns(self) -> Columns:
        """Names of columns, messages and roles in the records."""
        return columns_of(self.fields, self.ignore, self.roles)


def prepare_conversations(config: PrepareConversationsConfig, *, progress: bool = True) -> dict:
    """Prepare a source of conversations and return its manifest.

    Raises:
        ValueError: a bad input, a bad record under `on_error=fail`, more rejected records than
            `max_rejected`, inputs that change during the reading, no conversation left for
            training, a folder that exists or that another process is filling.
    """
    out = Path(config.out)
    refuse_existing(out)
    paths = find_inputs(config.inputs, None, FORMATS)
    tokenizer = open_exportable(config.tokenizer)
    check_trainable(tokenizer)
    folder = unfinished_folder(out)
    with lock_unfinished(out):
        refuse_existing(out)
        _clear(folder)
        try:
            manifest = _fill(folder, config, tokenizer, paths, progress)
        except BaseException:
            shutil.rmtree(folder)  # conversations are not continued
            raise
        folder.rename(out)
        fsync(out.parent)
    return manifest


def compare_on_messages(config: PrepareConversationsConfig) -> str | None:
    """Compare tokenizer.json with tokenizer.model on the first messages; a line, or None if equal.

    Raises:
        ValueError: an input or the tokenizer is missing.
    """
    paths = find_inputs(config.inputs, None, FORMATS)
    entries = read_conversations(paths, config.columns)
    texts = (
        message.content
        for entry in entries
        if not isinstance(entry.conversation, BadRecord)
        for message in entry.conversation.messages
    )
    return describe_difference(config.tokenizer, texts)


def side_of(messages: list[Message]) -> int:
    """The hash that decides whether a conversation is held out: of its first question and answer,
    so that they fall on one side whatever the system message is and whatever follows."""
    said = [message for message in messages if message.role != "system"]
    return side_hash(normalize(text_of(said[:2])))


def text_of(messages: Iterable[Message]) -> str:
    """The contents of messages, a line break between them."""
    return "\n".join(message.content for message in messages)


def digest_of(messages: Iterable[Message], train_on: str) -> bytes:
    """Digest of roles, contents after NFC and supervision; equal only for equal conversations."""
    parts = [
        (
            role,
            unicodedata.normalize("NFC", content),
            train and (train_on == "all" or role == "assistant"),
        )
        for role, content, train in messages
    ]
    return hashlib.sha256(json.dumps(parts).encode()).digest()[:16]


def main_reasons(rejected: Mapping[str, int], most: int = 5) -> str:
    """The most frequent reasons for which records were rejected, with their counts."""
    reasons = Counter(rejected).most_common()
    shown = [f"{count:,} x {reason}" for reason, count in reasons[:most]]
    rest = (
        f"{sum(count for _, count in reasons[most:]):,} x other reasons" if reasons[most:] else ""
    )
    return ", ".join(filter(None, [*shown, rest]))


def openai_record(messages: Iterable[Message]) -> dict[str, list[dict[str, str | bool]]]:
    """A conversation in the format of held_out.jsonl, which `data.records.chat_formats` reads."""
    marks = {True: {}, False: {"train": False}}
    return {"messages": [message.as_dict() | marks[message.train] for message in messages]}


def _fill(
    folder: Path,
    config: PrepareConversationsConfig,
    tokenizer: Tokenizer,
    paths: list[str],
    progress: bool,
) -> dict:
    """Write a whole source into a folder, and return its manifest."""
    digests = {path: sha256_of(Path(path)) for path in paths}
    with ExitStack() as stack:
        files = {
            name: stack.enter_context((folder / name).open("wb"))
            for name in (*STORED, "held_out.jsonl", "skipped.jsonl")
        }
        writer = _Writer(folder, config, tokenizer, digests, files)
        entries = read_conversations(paths, config.columns)
        for entry in tqdm(entries, config.name, unit="", disable=not progress):
            writer.add(entry)
        for file in files.values():
            fsync_file(file)
    manifest = writer.finish()
    for path, digest in digests.items():
        if sha256_of(Path(path)) != digest:
            raise ValueError(f"{path} changed during the reading; run again")
    write_json(folder / "manifest.json", manifest)
    return manifest


def _clear(folder: Path) -> None:
    """Remove the files of an interrupted call; ValueError for unfinished work of another kind."""
    if (folder / "journal.json").exists():
        raise ValueError(
            f"out: {folder} holds unfinished work of kind=documents; finish or remove that work, "
            "or choose another out="
        )
    for path in folder.iterdir():
        if path.name != "held_out.jsonl":  # carries the lock
            path.unlink()


class _Writer:
    """Writes conversations to the files of a source, and counts for the manifest.

    Args:
        digests: sha256 of each input.
        files: open files of the source, by name.
    """

    def __init__(
        self,
        folder: Path,
        config: PrepareConversationsConfig,
        tokenizer: Tokenizer,
        digests: dict[str, str],
        files: Mapping[str, BinaryIO],
    ) -> None:
        self._folder = folder
        self._config = config
        self._tokenizer = tokenizer
        self._dtype = token_dtype(tokenizer.vocab_size)
        self._seen: set[bytes] = set()
        self._counts = Counter[str]()
        self._rejected = Counter[str]()
        self._left_off = Counter[str]()
        self._passed_over = Counter[str]()
        self._inputs = {
            path: {"path": path, "sha256": digest, "records": 0, "conversations": 0}
            for path, digest in digests.items()
        }
        self._files = files

    def add(self, entry: Entry) -> None:
        """Take the next record; ValueError at a bad one under `on_error=fail`."""
        self._inputs[entry.file]["records"] += 1
        if isinstance(entry.conversation, BadRecord):
            self._reject(entry, str(entry.conversation))
        else:
            self._inputs[entry.file]["conversations"] += 1
            self._add(entry, entry.conversation)

    def _add(self, entry: Entry, conversation: Conversation) -> None:
        messages = conversation.messages
        digest = digest_of(messages, self._config.train_on)
        if digest in self._seen:
            return self._reject(entry, SAME_TEXT)
        try:
            encoded = encode_conversation(self._tokenizer, messages, train_on=self._config.train_on)
        except RefusedByTemplate as refusal:
            return self._reject(entry, refusal.reason, str(refusal))
        if not any(encoded.supervised):
            return self._reject(entry, NOTHING_TO_LEARN)
        is_overlong = len(encoded.ids) > self._config.max_tokens
        if is_overlong and self._config.overlong == "reject":
            return self._reject(entry, TOO_LONG)
        encoded = truncate(encoded, self._config.max_tokens)
        if not any(encoded.supervised):
            return self._reject(entry, NO_ANSWER_LEFT)
        self._seen.add(digest)
        self._left_off.update(conversation.left_off)
        self._passed_over.update(set(conversation.passed_over))
        if side_of(messages) < self._config.held_out_fraction * 2**64:
            self._counts["held_out"] += 1
            self._files["held_out.jsonl"].write(json_line(openai_record(messages)))
            return None
        self._counts["truncated"] += is_overlong
        return self._write(encoded)

    def _write(self, encoded: Encoded) -> None:
        self._counts["conversations"] += 1
        self._counts["tokens"] += len(encoded.ids)
        self._counts["supervised_tokens"] += sum(encoded.supervised)
        self._files["tokens"].write(np.array(encoded.ids, self._dtype).tobytes())
        self._files["supervised"].write(np.array(encoded.supervised, np.uint8).tobytes())
        self._files["stops"].write(np.array([self._counts["tokens"]], "<i8").tobytes())

    def _reject(self, entry: Entry, reason: str, detail: str = "") -> None:
        if self._config.on_error == "fail" and reason not in LEFT_OUT:
            raise ValueError(
                f"{entry.file}:{entry.line}: {detail or reason}; correct the record, or set "
                "on_error=skip to skip such records"
            )
        self._rejected[reason] += 1
        place = {"file": entry.file, "line": entry.line, "reason": reason}
        place |= {"detail": detail} if detail else {}
        self._files["skipped.jsonl"].write(json_line(place))

    def finish(self) -> dict:
        """The manifest; ValueError if there is nothing to train on."""
        config, counts = self._config, self._counts
        rejected = self._rejected.total() - self._rejected[EMPTY_LINE]
        records = counts["conversations"] + counts["held_out"] + rejected
        if rejected > config.max_rejected * records:
            raise ValueError(
                f"max_rejected: {rejected:,} of {records:,} records were rejected, more than a "
                f"share of {config.max_rejected}, and nothing was written: "
                f"{main_reasons(self._rejected)}; correct them, or raise max_rejected"
            )
        if not counts["conversations"]:
            raise ValueError(
                f"inputs: no conversation is left for training; {counts['held_out']} held out, "
                f"rejected: {main_reasons(self._rejected) or 'none'}"
            )
        return {
            "format_version": FORMAT_VERSION,
            "kind": KIND,
            "name": config.name,
            "dtype": self._dtype.str,
            "tokenizer": tokenizer_entry(self._tokenizer),
            "chat_template": template_of(self._tokenizer).digest,
            **{
                total: counts[total]
                for total in ("conversations", "tokens", "supervised_tokens", "truncated")
            },
            "rejected": dict(self._rejected),
            "left_off": dict(self._left_off),
            "passed_over": dict(self._passed_over),
            "held_out": {
                "fraction": config.held_out_fraction,
                "conversations": counts["held_out"],
                "sha256": sha256_of(self._folder / "held_out.jsonl"),
            },
            "inputs": list(self._inputs.values()),
            "files": {name: sha256_of(self._folder / name) for name in STORED},
            "settings": {
                "max_tokens": config.max_tokens,
                "overlong": config.overlong,
                "train_on": config.train_on,
                "fields": dict(config.fields),
                "ignore": list(config.ignore),
                "roles": dict(config.roles),
            },
        }
