"""Released files: search in a folder, reading as UTF-8, fingerprints, rows of tables.

Reports name a file by its path relative to the benchmark's folder, so that they are equal on every
machine.
"""

import csv
import hashlib
import io
import json
import zipfile
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

Root = Path | zipfile.Path
"""A folder, or a folder inside a zip."""


@dataclass(frozen=True)
class Reading:
    """Reader of the files of one folder that records their digests.

    Attributes:
        base: folder to which file names in reports are relative.
        digests: sha256 by file name; a zip is one file.
    """

    base: Path
    digests: dict[str, str] = field(default_factory=dict)

    def label(self, path: Root) -> str:
        """Name of a file in reports."""
        return str(path).removeprefix(f"{self.base}/")

    def open_zip(self, path: Path) -> zipfile.Path:
        """Top folder of a zip; ValueError if the file is not a zip."""
        content = self._bytes(path)
        self._remember(path, content)
        try:
            archive = zipfile.ZipFile(io.BytesIO(content))
        except (zipfile.BadZipFile, NotImplementedError) as error:
            raise ValueError(f"{path} is not a zip ({error}); fetch it again") from None
        archive.filename = str(path)  # gives its members a path
        return zipfile.Path(archive)

    def text(self, path: Root) -> str:
        """Text of a file without byte order mark; ValueError names a line that is not UTF-8."""
        content = self._bytes(path)
        if isinstance(path, Path):
            self._remember(path, content)
        try:
            text = content.decode().removeprefix("\ufeff")
        except UnicodeDecodeError as error:
            line = content.count(b"\n", 0, error.start) + 1
            raise ValueError(
                f"{self.label(path)}, line {line}: not UTF-8 ({error.reason}); convert the file, "
                "or fetch it again"
            ) from None
        if not text.strip():
            raise ValueError(f"{self.label(path)}: the file is empty; fetch it again")
        return text

    def json(self, path: Root) -> Any:
        """Content of a JSON file; ValueError names the invalid line."""
        text, label = self.text(path), self.label(path)
        try:
            content = json.loads(text)
            json.dumps(content, ensure_ascii=False).encode()
        except UnicodeEncodeError as error:  # a lone surrogate cannot be tokenized
            raise ValueError(f"{label}: lone surrogate {error.object[error.start]!a}") from None
        except json.JSONDecodeError as error:
            raise ValueError(
                f"{label}, line {error.lineno}: not JSON ({error.msg}); fetch it again"
            ) from None
        except (
            ValueError,
            RecursionError,
        ) as error:  # number too long, or deep nesting
            raise ValueError(f"{label}: not valid JSON ({error}); fetch it again") from None
        return content

    def _bytes(self, path: Root) -> bytes:
        try:
            return path.read_bytes()
        # RuntimeError: password needed; NotImplementedError (its subclass): unknown compression.
        except (OSError, EOFError, zipfile.BadZipFile, zlib.error, RuntimeError) as error:
            raise ValueError(f"{path} cannot be read ({error}); fetch it again") from None

    def _remember(self, path: Path, content: bytes) -> None:
        self.digests[self.label(path)] = hashlib.sha256(content).hexdigest()


class Row(NamedTuple):
    """A row of a table.

    Spaces and line ends around a cell are removed, because in prompts they would change the
    neighbouring tokens. Nothing else is changed.
    """

    cells: list[str]
    place: str


def find(task: str, data: Path, folder: str, names: tuple[str, ...], origin: str) -> Path:
    """First of `names` in `data`, in its folder `folder`, or in that folder of a subfolder.

    If `data` is a file, it is the result.

    Raises:
        ValueError: nothing was found (the message names the files, the folders searched and the
            origin), or several folders have them.
    """
    if data.is_file():
        kinds = {Path(name).suffix for name in names} - {""}
        if data.suffix.lower() not in kinds:
            raise ValueError(f"benchmarks={data}: {task} is read from {' or '.join(sorted(kinds))}")
        return data
    if not data.is_dir():
        raise ValueError(f"benchmarks={data}: no such folder; give the parent of {folder}/")
    places = [data, data / folder, *sorted(data.glob(f"*/{folder}"))]
    hits = [
        found
        for place in places
        if (found := next((place / name for name in names if (place / name).exists()), None))
    ]
    if not hits:
        looked = ", ".join(str(place) for place in (data, data / folder, data / "*" / folder))
        raise ValueError(
            f"benchmarks={data}: contains no files of {task}; looked for {' or '.join(names)} in "
            f"{looked}; put {origin} there"
        )
    if len(hits) > 1:
        raise ValueError(
            f"benchmarks={data}: {task} occurs twice ({hits[0]} and {hits[1]}); name one of the two"
        )
    return hits[0]


def read_rows(reading: Reading, path: Root, columns: int) -> list[Row]:
    """Rows of a comma-separated file; cells may contain line breaks, empty lines are skipped.

    The place of a row is its first line.

    Raises:
        ValueError: quotes or number of cells of a line are wrong; the message names the line.
    """
    text, label = reading.text(path), reading.label(path)
    # strict: an unclosed quotation mark is an error; otherwise the cell would contain the rest.
    table = csv.reader(io.StringIO(text, newline=""), strict=True)
    rows: list[Row] = []
    line = 1
    try:
        for cells in table:
            place, line = f"{label}, line {line}", table.line_num + 1
            if not cells:
                continue
            if len(cells) != columns:
                tabs = "; it seems to be tab-separated" if "\t" in "".join(cells) else ""
                raise ValueError(
                    f"{place}: {len(cells)} cells instead of {columns}{tabs}; fetch the file "
                    "again, and put quotation marks around cells with commas"
                )
            rows.append(Row([cell.strip() for cell in cells], place))
    except csv.Error as error:
        raise ValueError(f"{label}, line {line}: {error}; correct its quotation marks") from None
    return rows
