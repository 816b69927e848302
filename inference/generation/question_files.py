"""Questions without options, for judges: GeoBench's subjective task, or a file of one's own."""

import json
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from storage.errors import why_no_file
from tokenizer.text import check_text

COLUMNS = {
    "id": ("id",),
    "question": ("question", "questions"),
    "subject": ("subject", "category"),
    "reference": ("reference", "answer"),
}
"""Names that a column of a table, or a key of a line, may have; case does not matter."""


@dataclass(frozen=True)
class OpenQuestion:
    """A question that is answered in sentences.

    Attributes:
        id: unique within its file; the row or line number where the file gives none.
        subject: what the question belongs to; empty where the file does not say.
        reference: a right answer to compare with, where there is one.
    """

    id: str
    question: str
    subject: str = ""
    reference: str | None = None


def read_open_questions(path: Path) -> list[OpenQuestion]:
    """All questions of an .xlsx table whose first row names the columns, or of a .jsonl file.

    A column, or key, `question` (or `questions`) is needed; `id`, `subject` (or `category`) and
    `reference` (or `answer`) may be there. `.xlsx` needs the extra `eval`.

    Raises:
        ValueError: a row or line is not a question; the message names it and the file.
    """
    if not path.is_file():
        raise ValueError(
            f"questions={path}: {why_no_file(path)}; give an .xlsx or .jsonl file of open questions"
        )
    if path.suffix.lower() == ".xlsx":
        return _unique(path, "row", _rows(path))
    if path.suffix.lower() == ".jsonl":
        return _unique(path, "line", _lines(path))
    raise ValueError(f"{path}: open questions are read from .xlsx or .jsonl; convert the file")


def _unique(
    path: Path, unit: str, found: Iterable[tuple[int, dict[str, Any]]]
) -> list[OpenQuestion]:
    questions: dict[str, OpenQuestion] = {}
    for number, fields in found:
        try:
            question = _question(number, fields)
        except ValueError as error:
            raise ValueError(f"{path}, {unit} {number}: {error}") from None
        if question.id in questions:
            raise ValueError(
                f"{path}, {unit} {number}: id {question.id!r} is there twice; give each its own"
            )
        questions[question.id] = question
    if not questions:
        raise ValueError(f"{path}: the file has no question")
    return list(questions.values())


def _question(number: int, fields: dict[str, Any]) -> OpenQuestion:
    texts: dict[str, str] = {}
    for key, value in fields.items():
        name = _name(key)
        if name is None or value is None:
            continue
        if name in texts:
            raise ValueError(f"two fields for `{name}`; keep one of {', '.join(COLUMNS[name])}")
        if not isinstance(value, str) and not (name == "id" and type(value) is int):
            raise ValueError(f"`{key}` must be a text, not {value!r}")
        texts[name] = str(value).strip()
        check_text(texts[name])
    if not texts.get("question"):
        raise ValueError("no question; fill `question` or remove the row")
    return OpenQuestion(
        id=texts.get("id") or str(number),
        question=texts["question"],
        subject=texts.get("subject", ""),
        reference=texts.get("reference") or None,
    )


def _name(key: str) -> str | None:
    """The field that a column stands for."""
    spelled = key.strip().lower()
    return next((name for name, names in COLUMNS.items() if spelled in names), None)


def _lines(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 ({error}); save it as UTF-8") from None
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            fields = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{path}, line {number}: not JSON ({error})") from None
        if not isinstance(fields, dict):
            raise ValueError(f"{path}, line {number}: give an object with `question`")
        yield number, fields


def _rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    try:
        import openpyxl
        from openpyxl.utils.exceptions import InvalidFileException
    except ImportError:
        raise ValueError(
            f"{path} needs openpyxl; install the extra: pip install -e '.[eval]', or give .jsonl"
        ) from None
    try:
        book = openpyxl.load_workbook(path, data_only=True)
    # What a damaged zip, XML that is none (SyntaxError), or another kind of document raise.
    except (
        InvalidFileException,
        zipfile.BadZipFile,
        zlib.error,
        SyntaxError,
        KeyError,
        TypeError,
        ValueError,
        OSError,
        EOFError,
        NotImplementedError,
    ) as error:
        raise ValueError(f"{path} is not an .xlsx table ({error}); save it as one") from None
    rows = list(book.worksheets[0].iter_rows(values_only=True)) if book.worksheets else []
    names = [str(cell or "") for cell in (rows[0] if rows else ())]
    if "question" not in {_name(name) for name in names}:
        raise ValueError(
            f"{path}, row 1: no column `question`, only {', '.join(names) or 'an empty sheet'}"
        )
    for number, row in enumerate(rows[1:], start=2):
        if any(cell is not None for cell in row):
            yield number, dict(zip(names, row, strict=True))
