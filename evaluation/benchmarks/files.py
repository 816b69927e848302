"""Released files: found in a folder, read whole as UTF-8, fingerprinted, cut into rows.

A file is named in reports by its path below the folder that it was found in, so that a report
reads the same on every machine.
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
"""A folder, or one inside a zip."""


@dataclass(frozen=True)
class Reading:
    """Reads files below one folder and remembers what they were.

    Attributes:
        base: file names in reports are relative to it.
        digests: sha256 by file name; a zip is one file.
    """

    base: Path
    digests: dict[str, str] = field(default_factory=dict)

    def label(self, path: Root) -> str:
        """How reports name a file."""
        return str(path).removeprefix(f"{self.base}/")

    def open_zip(self, path: Path) -> zipfile.Path:
        """The top of a zip; ValueError if it is none."""
        content = self._bytes(path)
        self._remember(path, content)
        try:
            archive = zipfile.ZipFile(io.BytesIO(content))
        except (zipfile.BadZipFile, NotImplementedError) as error:
            raise ValueError(f"{path} is not a zip ({error}); fetch it again") from None
        archive.filename = str(path)  # a name for its members, as if it had been opened by name
        return zipfile.Path(archive)

    def text(self, path: Root) -> str:
        """A whole file without its byte order mark; ValueError names the line not in UTF-8."""
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
        """What a JSON file holds; ValueError names the line where it is none."""
        text, label = self.text(path), self.label(path)
        try:
            content = json.loads(text)
            json.dumps(content, ensure_ascii=False).encode()
        except UnicodeEncodeError as error:  # half of an escaped pair could not be tokenized
            raise ValueError(f"{label}: lone surrogate {error.object[error.start]!a}") from None
        except json.JSONDecodeError as error:
            raise ValueError(
                f"{label}, line {error.lineno}: not JSON ({error.msg}); fetch it again"
            ) from None
        except (ValueError, RecursionError) as error:  # a number too long for int, nested too deep
            raise ValueError(f"{label}: not JSON of a release ({error}); fetch it again") from None
        return content

    def _bytes(self, path: Root) -> bytes:
        try:
            return path.read_bytes()
        # RuntimeError: a password is asked for; NotImplementedError: an unknown compression.
        except (OSError, EOFError, zipfile.BadZipFile, zlib.error, RuntimeError) as error:
            raise ValueError(f"{path} cannot be read ({error}); fetch it again") from None

    def _remember(self, path: Path, content: bytes) -> None:
        self.digests[self.label(path)] = hashlib.sha256(content).hexdigest()


class Row(NamedTuple):
    """A row of a table.

    Spaces and line ends around a cell are not part of it: in prompts they would change the tokens
    beside them. Nothing else is changed.
    """

    cells: list[str]
    place: str


def find(task: str, data: Path, folder: str, names: tuple[str, ...], origin: str) -> Path:
    """The first of `names` in `data`, or in the folder `folder` of it or of one of its folders.

    A `data` that is a file is the answer itself.

    Raises:
        ValueError: there is none (says what was looked for, where, and where to get it), or they
            are in more than one folder.
    """
    if data.is_file():
        kinds = {Path(name).suffix for name in names} - {""}
        if data.suffix.lower() not in kinds:
            raise ValueError(f"benchmarks={data}: {task} is read from {' or '.join(sorted(kinds))}")
        return data
    if not data.is_dir():
        raise ValueError(f"benchmarks={data}: no such folder; give the one that holds {folder}/")
    places = [data, data / folder, *sorted(data.glob(f"*/{folder}"))]
    hits = [
        found
        for place in places
        if (found := next((place / name for name in names if (place / name).exists()), None))
    ]
    if not hits:
        looked = ", ".join(str(place) for place in (data, data / folder, data / "*" / folder))
        raise ValueError(
            f"benchmarks={data}: nothing of {task} there; looked for {' or '.join(names)} in "
            f"{looked}; put {origin} there"
        )
    if len(hits) > 1:
        raise ValueError(
            f"benchmarks={data}: {task} is there twice ({hits[0]} and {hits[1]}); name one of them"
        )
    return hits[0]


def read_rows(reading: Reading, path: Root, columns: int) -> list[Row]:
    """The rows of a comma-separated file; a cell may hold line breaks, empty lines are passed over.

    A row's place is the line it starts in.

    Raises:
        ValueError: names the line whose quotes or number of cells are wrong.
    """
    text, label = reading.text(path), reading.label(path)
    # A quotation mark that is never closed is an error, not a cell that swallows the file.
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
        raise ValueError(f"{label}, line {line}: {error}; mend its quotation marks") from None
    return rows
