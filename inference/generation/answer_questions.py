"""Open questions -> a model's answers in the chat format, for judges."""

import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from inference.generation.batch import GenerateConfig, write_answers
from inference.generation.load import SpeakerConfig, open_speaker
from inference.generation.question_files import read_open_questions
from storage.atomic import replace_text


@dataclass(kw_only=True)
class AnswerConfig(SpeakerConfig):
    """Which model answers which questions, and how it samples."""

    max_new_tokens: int = 1024
    """Most ids of one answer, its EOS included."""
    questions: str
    """An .xlsx table or .jsonl file of open questions."""
    out: str
    """The .jsonl file of answers; continued if it is there."""
    batch_size: int = 16
    """Answers at once."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.batch_size < 1:
            raise ValueError(f"batch_size={self.batch_size}: must be at least 1")


def answer_questions(config: AnswerConfig) -> int:
    """Answer every question that has no answer yet; returns how many were answered.

    `<out>.prompts.jsonl` holds the questions as they were put.

    Raises:
        ValueError: questions or model cannot be read, or `out` belongs to another command.
    """
    questions = read_open_questions(Path(config.questions))
    out = Path(config.out)
    prompts = out.with_name(out.name + ".prompts.jsonl")
    shared = {field.name for field in fields(SpeakerConfig)} | {"out", "batch_size"}
    chosen = {name: value for name, value in asdict(config).items() if name in shared}
    generate = GenerateConfig(**chosen, prompts=str(prompts), chat=True)
    text = "".join(json.dumps({"id": q.id, "prompt": q.question}) + "\n" for q in questions)
    if out.exists() and prompts.is_file() and prompts.read_text(encoding="utf-8") != text:
        raise ValueError(
            f"out={out} was begun with other questions than {config.questions}; choose another file"
        )
    speaker = open_speaker(generate)
    out.parent.mkdir(parents=True, exist_ok=True)
    replace_text(prompts, text)
    return write_answers(generate, speaker)
