"""A file of prompts or open questions -> a file of answers, in the same order.

Answers are appended and forced to disk batch by batch. `<out>.settings.json` next to them records
their origin: the same command continues an interrupted file, a different command is refused. An
answer does not depend on the borders of the batches.
"""

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tqdm import tqdm

from inference.generation.generate import Answer, check_prompts, generate
from inference.generation.load import LoadConfig, LoadedModel
from inference.generation.question_files import OpenQuestion
from pretrained.load import model_digest
from storage.errors import why_no_file
from storage.journal import append_lines, open_journal
from storage.lock import only_writer
from tokenizer.chat import Message, encode_prompt
from tokenizer.text import check_text
from tokenizer.tokenizer import Tokenizer


@dataclass(kw_only=True)
class GenerateConfig(LoadConfig):
    """Prompts to continue, the model, and how it samples."""

    prompt: str | None = field(default=None, metadata={"text": True})
    """One text to continue, or, with `chat`, a question; the answer is printed as it comes."""
    chat: bool = False
    """Ask prompts as questions in the chat template; else texts are continued after BOS."""
    prompts: str | None = None
    """A .jsonl file: each line has `prompt` (a text), or `messages` (role and content, always a
    conversation), and perhaps `id`."""
    questions: str | None = None
    """An .xlsx table or .jsonl file of open questions, answered in the chat template."""
    out: str | None = None
    """With `prompts` or `questions`: the .jsonl file of answers; continued if it exists."""
    batch_size: int = 16
    """With `prompts` or `questions`: sequences generated at once."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if sum(given is not None for given in (self.prompt, self.prompts, self.questions)) != 1:
            raise ValueError(
                "give exactly one of prompt=<text>, prompts=<file.jsonl> and "
                "questions=<file.xlsx or .jsonl>"
            )
        if (self.prompt is None) != (self.out is not None):
            raise ValueError(
                "prompts= and questions= need out=<file.jsonl>, and prompt= does not take it"
            )
        if self.questions is not None:
            self.chat = True
        if self.batch_size < 1:
            raise ValueError(f"batch_size={self.batch_size}: must be at least 1")


@dataclass(frozen=True)
class Prompt:
    """One prompt of a file.

    Attributes:
        ids: token ids to continue.
        chat: the prompt is in the chat template.
        echo: fields of the prompt's line that are repeated in the line of the answer.
    """

    ids: list[int]
    chat: bool
    echo: dict[str, Any]


def encode_text(tokenizer: Tokenizer, text: str, chat: bool) -> list[int]:
    """A text to continue, or a question to answer; ValueError if it is empty."""
    check_text(text)
    if not text.strip():
        raise ValueError("the prompt is empty; give a text to continue or a question")
    if chat:
        return encode_prompt(tokenizer, [Message("user", text)])
    return [tokenizer.bos_id, *tokenizer.encode(text)]


def read_prompts(path: Path, tokenizer: Tokenizer, chat: bool) -> list[Prompt]:
    """All prompts of a file.

    Raises:
        ValueError: names the line that holds none.
    """
    if not path.is_file():
        raise ValueError(f"prompts={path}: {why_no_file(path)}; give a .jsonl file of prompts")
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"prompts={path} is not UTF-8 ({error})") from None
    prompts = []
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            prompts.append(_prompt(json.loads(line), tokenizer, chat))
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise ValueError(f"{path}, line {number}: {error}") from None
    if not prompts:
        raise ValueError(f"prompts={path}: the file has no prompt")
    return prompts


def _prompt(line: Any, tokenizer: Tokenizer, chat: bool) -> Prompt:
    if not isinstance(line, dict) or ("prompt" in line) == ("messages" in line):
        raise ValueError("give an object with either `prompt` or `messages`")
    echo = {key: line[key] for key in ("id", "prompt", "messages") if key in line}
    json.dumps(echo, ensure_ascii=False).encode()  # a lone surrogate could not be written again
    if "prompt" in line:
        if not isinstance(line["prompt"], str):
            raise ValueError(f"`prompt` must be a text, not {line['prompt']!r}")
        return Prompt(encode_text(tokenizer, line["prompt"], chat), chat, echo)
    messages = line["messages"]
    well_formed = isinstance(messages, list) and all(
        isinstance(m, dict) and all(isinstance(m.get(k), str) for k in ("role", "content"))
        for m in messages
    )
    if not well_formed:
        raise ValueError("`messages` must be a list of objects with role and content")
    said = [Message(message["role"], message["content"]) for message in messages]
    return Prompt(encode_prompt(tokenizer, said), True, echo)


def encode_questions(questions: Sequence[OpenQuestion], tokenizer: Tokenizer) -> list[Prompt]:
    """Open questions as prompts in the chat template."""
    return [
        Prompt(
            encode_text(tokenizer, question.question, chat=True),
            True,
            {"id": question.id, "prompt": question.question},
        )
        for question in questions
    ]


def write_answers(
    config: GenerateConfig, loaded: LoadedModel, questions: Sequence[OpenQuestion] = ()
) -> int:
    """Answer every prompt that has no answer yet; returns the number of new answers.

    Args:
        questions: content of the file `config.questions`, if that is set.

    Raises:
        ValueError: a prompt cannot be continued, or `out` belongs to another command.
    """
    assert config.out is not None
    if config.prompts is not None:
        prompts = read_prompts(Path(config.prompts), loaded.tokenizer, config.chat)
    else:
        prompts = encode_questions(questions, loaded.tokenizer)
    check_prompts([prompt.ids for prompt in prompts], loaded.engine.model.config)
    out = Path(config.out)
    out.parent.mkdir(parents=True, exist_ok=True)
    with only_writer(out.with_name(f".{out.name}.lock"), out):
        done = _open(out, _settings(config, prompts, loaded))
        _append(config, loaded, prompts, done, out)
    return len(prompts) - done


def _append(
    config: GenerateConfig, loaded: LoadedModel, prompts: list[Prompt], done: int, out: Path
) -> None:
    """Answer the prompts from `done` on."""
    for batch in tqdm(list(_batches(prompts, done, config.batch_size)), unit="batch"):
        answers = _answer(config, loaded, prompts, batch)
        lines = [
            {"index": n, **prompts[n].echo, "answer": answer.text, "finished": answer.finished}
            | {"tokens": len(answer.ids)}
            for n, answer in zip(batch, answers, strict=True)
        ]
        append_lines(out, lines)


def _batches(prompts: list[Prompt], first: int, size: int) -> Iterator[list[int]]:
    """Consecutive prompts, of one kind each."""
    batch: list[int] = []
    for n in range(first, len(prompts)):
        if batch and (len(batch) == size or prompts[n].chat != prompts[batch[0]].chat):
            yield batch
            batch = []
        batch.append(n)
    if batch:
        yield batch


def _answer(
    config: GenerateConfig, loaded: LoadedModel, prompts: list[Prompt], batch: list[int]
) -> list[Answer]:
    return generate(
        loaded.engine,
        [prompts[n].ids for n in batch],
        config,
        eos_ids=loaded.eos_ids,
        decode=loaded.tokenizer.decode,
        continue_text=not prompts[batch[0]].chat,
        indices=batch,
    )


def _settings(config: GenerateConfig, prompts: list[Prompt], loaded: LoadedModel) -> dict[str, Any]:
    """Settings that determine the answers."""
    free = (
        "folder",
        "base",
        "prompt",
        "prompts",
        "questions",
        "out",
        "batch_size",
        "device",
        "decoder",
        "dtype",
    )
    chosen = {key: value for key, value in asdict(config).items() if key not in free}
    ids = json.dumps([[prompt.ids, prompt.echo] for prompt in prompts], sort_keys=True)
    model = loaded.engine.model
    return {
        **chosen,
        "dtype": str(model.lm_head.weight.dtype).removeprefix("torch."),
        "prompts": hashlib.sha256(ids.encode()).hexdigest(),
        "model": model_digest(model),
        "tokenizer": loaded.tokenizer.fingerprint,
    }


def _open(out: Path, settings: dict[str, Any]) -> int:
    """Create or continue the file; returns the number of its answers."""
    lines = open_journal(out, settings, out.with_name(out.name + ".settings.json"))
    for n, line in enumerate(lines):
        if json.loads(line).get("index") != n:
            raise ValueError(f"{out}, line {n + 1}: not the answer to prompt {n}; remove the file")
    return len(lines)
