"""Files of instruction data -> parsed records, in the order of the file.

A file holds one array of records (.json), a record per line (.jsonl) or a record per row
(.parquet); .json and .jsonl may be compressed (.gz, .zst). A line that cannot be read is a bad
record. A file that holds something else than its name says is refused as a whole, by what it is.
"""

import codecs
import io
import json
from collections.abc import Iterator
from typing import Any

from data.records.readers import (
    LONGEST_RECORD,
    BadRecord,
    Position,
    has_ending,
    read_bytes,
    read_records,
    read_rows,
)
from data.records.record_keys import ALIASES, plain

FORMATS = tuple(f".{kind}{packed}" for kind in ("json", "jsonl") for packed in ("", ".gz", ".zst"))
FORMATS += (".parquet",)
EMPTY_LINE = "empty line"
HEAD_BYTES = 1 << 20
"""Bytes from which is told what a file holds."""


def read_parsed(path: str) -> Iterator[tuple[int, Any]]:
    """The records of a file, each a JSON value or why there is none, and where: the line or row
    from 1, or the index in an array from 0.

    Raises:
        ValueError: the file is damaged, or does not hold what its name says.
    """
    if has_ending(path, ".parquet"):
        return enumerate(read_rows(path), start=1)
    if has_ending(path, ".json", ".json.gz", ".json.zst"):
        return _of_array(path)
    return _of_lines(path)


def _of_array(path: str) -> Iterator[tuple[int, Any]]:
    content = read_bytes(path)
    _refuse_encoding(path, content)
    try:
        records = json.loads(content.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise ValueError(
            f"{path}: not JSON ({error}); correct it, or name it .jsonl if it holds a record per "
            "line"
        ) from None
    if not isinstance(records, list):
        raise ValueError(f"{path}: {_what_is_no_array(records)}")
    return enumerate(records)


def _what_is_no_array(value: Any) -> str:
    """Content of a .json file that is not an array, with a remedy."""
    array = "not an array of records"
    if not isinstance(value, dict):
        return f"{array}; write a list of objects into it"
    lists = [key for key, held in value.items() if isinstance(held, list) and held]
    objects = [key for key in lists if isinstance(value[key][0], dict)]
    if len(objects) == 1 and plain(objects[0]) not in ALIASES["messages"]:
        return (
            f"{array}, but an object with a list of them under {objects[0]!r}; write that list "
            "alone into the file"
        )
    columns = [key for key, held in value.items() if isinstance(held, list | dict)]
    sizes = {len(value[key]) for key in columns}
    if len(columns) == len(value) > 1 and len(sizes) == 1 and not objects:
        shown = ", ".join(map(repr, columns[:4]))
        return f"{array}, but an object of columns ({shown}); write an object for each record"
    return f"{array}; put its record into one, or name it .jsonl if it holds a record per line"


def _of_lines(path: str) -> Iterator[tuple[int, Any]]:
    _refuse_misnamed(path)
    for record in read_records([path], "", "line", Position()):
        yield record.position.line, _parsed(record.payload or b"")


def _parsed(line: bytes) -> Any:
    """The JSON value of a line, or why there is none."""
    if len(line) >= LONGEST_RECORD:
        return BadRecord(f"longer than {LONGEST_RECORD >> 20} MiB")
    if not line.strip():
        return BadRecord(EMPTY_LINE)
    try:
        return json.loads(line.decode())
    except UnicodeDecodeError:
        return BadRecord("invalid UTF-8")
    except (ValueError, RecursionError):
        return BadRecord("invalid JSON")


def _refuse_misnamed(path: str) -> None:
    """ValueError if the beginning of a .jsonl file is not a record per line."""
    head = read_bytes(path, HEAD_BYTES)
    _refuse_encoding(path, head)
    text = head.decode("utf-8-sig", errors="replace").lstrip()
    first = text.partition("\n")[0]
    value = _parsed(first.encode())
    if text[:1] == "[" and not (_is_list_of_objects(value) and text[len(first) :].strip()):
        if not _is_conversation(value):
            raise ValueError(
                f"{path}: begins with `[`, so that it holds one array of records and not a record "
                "per line; name it .json"
            )
    elif text[:1] == "{" and isinstance(value, BadRecord) and _spans_lines(text):
        raise ValueError(
            f"{path}: its records take several lines each; write one record per line, or all of "
            "them as one array into a .json file"
        )


def _is_list_of_objects(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(part, dict) for part in value)


def _is_conversation(value: Any) -> bool:
    """Say if a line that is a list may be a conversation without an object around it."""
    roles = ALIASES["role"]
    return _is_list_of_objects(value) and all(any(key in turn for key in roles) for turn in value)


def _spans_lines(text: str) -> bool:
    """Say if a text begins with one JSON value that takes more than a line."""
    try:
        _, stop = json.JSONDecoder().raw_decode(text)
    except (ValueError, RecursionError):
        return False
    return "\n" in text[:stop]


def _refuse_encoding(path: str, head: bytes) -> None:
    """ValueError if a file is written in another encoding than UTF-8, from its first bytes.

    Single lines with bytes that are not UTF-8 are bad records; here, half of all lines are.
    """
    utf16 = head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    if utf16 or head[:1024].count(0) > len(head[:1024]) // 4:
        raise ValueError(f"{path}: UTF-16, not UTF-8; {_conversion('UTF-16')}")
    lines = [line for line in io.BytesIO(head) if line.strip()]
    if len(head) == HEAD_BYTES:
        lines = lines[:-1]
    wrong = [line for line in lines if not _is_in(line, "utf-8")]
    if 2 * len(wrong) < max(1, len(lines)):
        return
    if all(_is_in(line, "gb18030") for line in wrong):
        guess = "GB18030"
        raise ValueError(f"{path}: not UTF-8, perhaps GB18030 (GBK); {_conversion(guess)}")
    raise ValueError(f"{path}: not UTF-8; {_conversion('<its encoding>')}")


def _is_in(line: bytes, encoding: str) -> bool:
    try:
        line.decode(encoding)
    except UnicodeDecodeError:
        return False
    return True


def _conversion(encoding: str) -> str:
    return f"convert it: iconv -f {encoding} -t UTF-8 <file> > <new file>"
