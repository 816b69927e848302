"""Files of answers to open questions, as `scripts.generate` writes them."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from inference.generation.question_files import OpenQuestion
from storage.errors import why_no_file
from tokenizer.text import check_text


def read_answers(name: str, path: Path, questions: Sequence[OpenQuestion]) -> dict[str, str]:
    """The answer to every question, by the question's id.

    A line has `answer`, and `id` or `prompt` (the question's words) or both. An answer may be
    empty; lines that answer other questions are skipped.

    Args:
        name: author of the answers, as in the configuration.

    Raises:
        ValueError: a line is invalid, or a question has no answer; the message names them.
    """
    if not path.is_file():
        raise ValueError(
            f"answers.{name}={path}: {why_no_file(path)}; give a .jsonl file of answers"
        )
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except UnicodeDecodeError as error:
        raise ValueError(f"answers.{name}={path} is not UTF-8 ({error})") from None
    ids = {question.id: question for question in questions}
    words = {question.question: question for question in questions}
    found: dict[str, str] = {}
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            fields = _fields(line)
            question = _question(fields, ids, words)
            if question is not None and question.id in found:
                raise ValueError(f"question {question.id} is answered twice; keep one of them")
        except (ValueError, RecursionError) as error:
            raise ValueError(f"answers.{name}={path}, line {number}: {error}") from None
        if question is not None:
            found[question.id] = fields["answer"]
    if missing := [question.id for question in questions if question.id not in found]:
        raise ValueError(
            f"answers.{name}={path}: no answer to {len(missing)} of {len(questions)} questions "
            f"(id {', '.join(missing)}); run scripts.generate questions=... to answer them"
        )
    return found


def _fields(line: str) -> dict[str, Any]:
    fields = json.loads(line)
    if not isinstance(fields, dict) or not isinstance(fields.get("answer"), str):
        raise ValueError("give an object with `answer`, a text")
    check_text(fields["answer"])
    return fields


def _question(
    fields: dict[str, Any], ids: Mapping[str, OpenQuestion], words: Mapping[str, OpenQuestion]
) -> OpenQuestion | None:
    """Question that a line answers; None: a question of another file."""
    id, prompt = fields.get("id"), fields.get("prompt")
    if id is None and prompt is None:
        raise ValueError("give `id`, or `prompt` with the words of the question")
    if id is None:
        return words.get(str(prompt))
    question = ids.get(str(id))
    if question is not None and prompt is not None and prompt != question.question:
        raise ValueError(
            f"`prompt` differs from the question with id {id}; answer the questions again"
        )
    return question
