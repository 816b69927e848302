"""Files -> records -> texts, for `.jsonl[.gz|.zst]`, `.txt` and `.parquet` (extra `parquet`).

A record is a raw document with its position. `read_records` only cuts a file, with one record in
memory at a time. `text_of` decodes and checks a record, so this costly part can run in another
process. A refused record is a `BadRecord`; a file that cannot be read further is a ValueError.

Lines end at "\\n" only ("\\r\\n" in Windows files), so that U+2028 within a text is text; a UTF-8
byte order mark is removed from the start of a file. Otherwise texts are not changed.
Endings of file names count without regard to case. `read_rows` gives whole rows of Parquet files.
"""

import glob
import gzip
import io
import json
import zlib
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import zstandard

FORMATS = (".jsonl", ".jsonl.gz", ".jsonl.zst", ".txt", ".parquet")

LONGEST_RECORD = 1 << 26
"""Bytes from which a line, file or cell is refused, so that a damaged file cannot fill memory."""

_TABLES = (".csv", ".tsv", ".xls", ".xlsx")
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_DAMAGE = (EOFError, gzip.BadGzipFile, zlib.error, zstandard.ZstdError)


class BadRecord(ValueError):
    """A record that is not a document; the message is the reason under which it is counted."""


class Position(NamedTuple):
    """Position of a record."""

    file: int = 0
    """Number of the input file."""
    line: int = 0
    """Line of the file, or row of a Parquet file, from 1."""
    bytes_read: int = 0
    """Bytes of the file on disk that have been read."""


class Record(NamedTuple):
    """A raw document."""

    position: Position
    payload: bytes | None
    """UTF-8 as found; None for a null."""
    is_json: bool


def find_inputs(
    patterns: list[str], text_field: str | None, formats: tuple[str, ...] = FORMATS
) -> list[str]:
    """The files that paths and globs stand for, sorted; ValueError before anything is read.

    Args:
        text_field: column that a Parquet file must have; None: it may have any.
    """
    paths = []
    for pattern in patterns:
        if Path(pattern).is_dir():
            raise ValueError(f"inputs: {pattern!r} is a folder; {_files_in(pattern, formats)}")
        literal = Path(pattern).is_file()
        found = [pattern] if literal else glob.glob(pattern, recursive=True)  # noqa: PTH207
        found = [path for path in found if Path(path).is_file()]
        if not found:
            raise ValueError(f"inputs: {pattern!r} matches no file; give a file or a glob of files")
        paths += found
    paths.sort()
    seen: dict[Path, str] = {}
    for path in paths:
        twin = seen.setdefault(Path(path).resolve(), path)
        if twin is not path:
            raise ValueError(
                f"inputs: {path!r} is matched twice (as {twin!r}); its documents would be read "
                "twice, so narrow one of the patterns"
            )
        if not has_ending(path, *formats):
            table = "write the rows as .jsonl, an object each, or " * has_ending(path, *_TABLES)
            raise ValueError(
                f"inputs: {path!r} is in no known format; {table}the name must end in one of "
                + ", ".join(formats)
            )
        if has_ending(path, ".parquet"):
            _check_parquet(path, text_field)
    return paths


def has_ending(path: str, *endings: str) -> bool:
    """Say if the name of a file ends in one of these, in capitals or not."""
    return path.lower().endswith(endings)


def _files_in(folder: str, formats: tuple[str, ...]) -> str:
    """Glob to type for the files of a folder, by the first format found there."""
    names = [path.name for path in Path(folder).rglob("*") if path.is_file()]
    held = next((end for end in formats if any(name.endswith(end) for name in names)), None)
    if held is None:
        return f"this folder contains no file whose name ends in one of {', '.join(formats)}"
    below = "" if any(path.name.endswith(held) for path in Path(folder).iterdir()) else "**/"
    return f"type inputs='[{folder}/{below}*{held}]' for its files"


def read_records(
    paths: list[str], text_field: str, txt_documents: str, after: Position
) -> Iterator[Record]:
    """The records of all files after a position, in order; ValueError where a file is damaged."""
    for file, path in enumerate(paths[after.file :], after.file):
        is_json = not has_ending(path, ".txt", ".parquet")
        pieces = _cut(path, text_field, txt_documents)
        for line, (payload, bytes_read) in enumerate(pieces, start=1):
            if file > after.file or line > after.line:
                yield Record(Position(file, line, bytes_read), payload, is_json)


def _cut(path: str, text_field: str, txt_documents: str) -> Iterator[tuple[bytes | None, int]]:
    """Raw documents of one file, with the bytes read so far."""
    if has_ending(path, ".parquet"):
        return _rows(path, text_field)
    if has_ending(path, ".txt") and txt_documents == "file":
        return _whole(path)
    return _lines(path)


def text_of(record: Record, text_field: str) -> str:
    """The text of a record; BadRecord says why there is none."""
    if record.payload is None:
        raise BadRecord(f"field {text_field!r} is not a string")
    if len(record.payload) >= LONGEST_RECORD:
        raise BadRecord(f"longer than {LONGEST_RECORD >> 20} MiB")
    try:
        text = record.payload.decode()
    except UnicodeDecodeError:
        raise BadRecord("invalid UTF-8") from None
    if record.is_json and text.strip():
        text = _text_in_json(text, text_field)
    if not text.strip():
        raise BadRecord("empty text")
    return text


def _text_in_json(line: str, text_field: str) -> str:
    try:
        fields = json.loads(line)
    except (ValueError, RecursionError):  # a number too long for int, an array too deep
        raise BadRecord("invalid JSON") from None
    if not isinstance(fields, dict):
        raise BadRecord("not a JSON object")
    if text_field not in fields:
        raise BadRecord(f"no field {text_field!r}")
    text = fields[text_field]
    if not isinstance(text, str):
        raise BadRecord(f"field {text_field!r} is not a string")
    try:
        text.encode()
    except UnicodeEncodeError:  # half of an escaped pair: no character, so nothing to tokenize
        raise BadRecord("lone surrogate") from None
    return text


def _lines(path: str) -> Iterator[tuple[bytes, int]]:
    """Lines without their ends; of an overlong one, the first `LONGEST_RECORD` bytes."""
    count = 0
    with ExitStack() as stack:
        raw = stack.enter_context(Path(path).open("rb"))
        lines = stack.enter_context(_decompressed(path, raw))
        try:
            while line := lines.readline(LONGEST_RECORD):
                rest = line
                while not rest.endswith(b"\n") and (rest := lines.readline(LONGEST_RECORD)):
                    pass
                if count == 0:
                    line = line.removeprefix(_BYTE_ORDER_MARK)
                count += 1
                yield line.removesuffix(b"\n").removesuffix(b"\r"), raw.tell()
        except _DAMAGE as error:
            raise _damaged(path, f" after line {count}", error) from error


def read_bytes(path: str, most: int = -1) -> bytes:
    """The first bytes of a file as they are when unpacked; all, unless there are `most`.

    Raises:
        ValueError: the file is damaged.
    """
    with ExitStack() as stack:
        raw = stack.enter_context(Path(path).open("rb"))
        content = stack.enter_context(_decompressed(path, raw))
        try:
            return content.read(most)
        except _DAMAGE as error:
            raise _damaged(path, "", error) from error


def _damaged(path: str, where: str, error: Exception) -> ValueError:
    return ValueError(f"{path}: damaged{where} ({error}); restore the file, or leave it out")


def _whole(path: str) -> Iterator[tuple[bytes, int]]:
    with Path(path).open("rb") as file:
        content = file.read(LONGEST_RECORD)
    yield content.removeprefix(_BYTE_ORDER_MARK), len(content)


def _rows(path: str, text_field: str) -> Iterator[tuple[bytes | None, int]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    count, size = 0, Path(path).stat().st_size
    try:
        with pq.ParquetFile(path) as file:
            rows = file.metadata.num_rows
            for batch in file.iter_batches(batch_size=256, columns=[text_field]):
                # As bytes, since a writer may have put invalid UTF-8 into a string column.
                for value in batch.column(0).cast(pa.large_binary()):
                    count += 1
                    yield value.as_py(), size * count // rows
    except (pa.ArrowException, OSError) as error:
        raise _damaged(path, f" after row {count}", error) from error


def read_rows(path: str) -> Iterator[dict[str, Any] | BadRecord]:
    """The rows of a Parquet file as objects; a BadRecord where a text is not UTF-8.

    Raises:
        ValueError: the file is damaged.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    count = 0
    try:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=256):
                for number in range(len(batch)):
                    try:
                        row = batch.slice(number, 1).to_pylist()[0]
                    except UnicodeDecodeError:
                        row = BadRecord("invalid UTF-8")
                    count += 1
                    yield row
    except (pa.ArrowException, OSError) as error:
        raise _damaged(path, f" after row {count}", error) from error


def _check_parquet(path: str, text_field: str | None) -> None:
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError:
        raise ValueError(
            f"inputs: {path!r} needs pyarrow; install the extra: pip install -e '.[parquet]'"
        ) from None
    try:
        schema = pq.read_schema(path)
    except (pa.ArrowException, OSError) as error:
        raise ValueError(f"inputs: {path!r} is not a Parquet file ({error})") from error
    if text_field is None:
        return
    if text_field not in schema.names:
        raise ValueError(
            f"{path}: no column {text_field!r}; set text_field to one of {', '.join(schema.names)}"
        )
    kind: Any = schema.field(text_field).type
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    if not (pa.types.is_string(kind) or pa.types.is_large_string(kind)):
        raise ValueError(
            f"{path}: column {text_field!r} holds {kind}, not strings; set text_field to another"
        )


def _decompressed(path: str, raw: io.BufferedReader) -> io.BufferedIOBase:
    if has_ending(path, ".gz"):
        return gzip.GzipFile(fileobj=raw)
    if has_ending(path, ".zst"):
        return io.BufferedReader(_ZstdFrames(raw), 1 << 17)
    return raw


class _ZstdFrames(io.RawIOBase):
    """Concatenated zstd frames as one stream.

    zstandard's own reader stops after the first frame unless told otherwise, and takes a file
    that ends inside a frame for a complete one.
    """

    def __init__(self, raw: io.BufferedReader) -> None:
        self._raw = raw
        self._frame = None
        self._input = b""
        self._output = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._output:
            self._input = self._input or self._raw.read(1 << 14)
            if not self._input:
                if self._frame is not None:
                    raise zstandard.ZstdError("the file ends inside a frame")
                return 0
            self._frame = self._frame or zstandard.ZstdDecompressor().decompressobj()
            self._output = memoryview(self._frame.decompress(self._input))
            self._input = self._frame.unused_data
            if self._frame.eof:
                self._frame = None
        target = memoryview(buffer).cast("B")
        count = min(len(target), len(self._output))
        target[:count] = self._output[:count]
        self._output = self._output[count:]
        return count
