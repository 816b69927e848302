"""Questions put to a model in memory: prepared once, asked as often as one likes.

Questions go to all processes together, and every process learns all answers; which one computes
which does not matter.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tqdm import tqdm

from evaluation.benchmarks.items import Item, Task
from evaluation.multiple_choice.accuracy import accuracy
from evaluation.multiple_choice.config import AskConfig
from evaluation.multiple_choice.encode import Encoded, check_lengths, encode_prompts
from evaluation.multiple_choice.predictions import Prediction, predict
from evaluation.multiple_choice.prompts import Prompt, write_prompts
from evaluation.scoring.loglikelihood import BATCH_TOKENS, score
from evaluation.scoring.requests import Request, Scored
from model.config import ModelConfig
from model.transformer import Mistral
from tokenizer.tokenizer import Tokenizer
from training.distributed import World


@dataclass(frozen=True)
class Question:
    """One question, ready to be asked; what cannot be asked has no prompt."""

    item: Item
    prompt: Prompt | None
    encoded: Encoded | None


def prepare(
    task: Task, config: AskConfig, tokenizer: Tokenizer, shape: ModelConfig
) -> list[Question]:
    """The questions of a task as this model reads them.

    Raises:
        ValueError: they cannot be asked as the configuration says.
    """
    prompts = write_prompts(task, config)
    asked = [prompt for prompt in prompts if prompt is not None]
    encoded = encode_prompts(asked, tokenizer)
    check_lengths(asked, encoded, shape)
    following = iter(encoded)
    return [
        Question(item, prompt, None if prompt is None else next(following))
        for item, prompt in zip(task.items, prompts, strict=True)
    ]


def accuracies(
    tasks: Mapping[str, Sequence[Question]],
    model: Mistral,
    config: AskConfig,
    world: World,
    *,
    batch_tokens: int = BATCH_TOKENS,
) -> dict[str, dict[str, float | None]]:
    """Accuracy and mean margin of prepared tasks, in memory: {task: {micro, macro, margin}}.

    All processes call it, and all get the same. The model may be sharded and in training.
    """
    found = {}
    for name, questions in tasks.items():
        nats = answer(questions, model, config.scoring, world, batch_tokens)
        whole = accuracy([conclude(q, n) for q, n in zip(questions, nats, strict=True)])
        found[name] = {"micro": whole.micro, "macro": whole.macro, "margin": whole.margin}
    return found


def answer(
    questions: Sequence[Question],
    model: Mistral,
    scoring: str,
    world: World,
    batch_tokens: int,
    *,
    known: Mapping[Request, tuple[float, ...]] | None = None,
    bar: tqdm | None = None,
) -> list[tuple[float, ...]]:
    """Nats of every choice of every question, on every process; () for what cannot be asked."""
    known = known or {}
    found: dict[int, tuple[float, ...]] = {}
    asked = []
    for n, question in enumerate(questions):
        if question.encoded is None:
            found[n] = ()
        elif question.encoded.request in known:
            found[n] = known[question.encoded.request]
        else:
            asked.append(n)
    requests = [e.request for n in asked if (e := questions[n].encoded) is not None]
    mine = {}
    if requests:
        options = {"batch_tokens": batch_tokens, "world": world, "context": scoring == "perplexity"}
        for index, scored in score(model, requests, **options):
            mine[asked[index]] = _nats(questions[asked[index]], scored, scoring)
            if bar is not None and bar.n < (bar.total or 0):
                bar.update(min(world.size, bar.total - bar.n))
    for part in world.gather(mine):
        found |= part
    return [found[n] for n in range(len(questions))]


def _nats(question: Question, scored: Scored, scoring: str) -> tuple[float, ...]:
    """What the choices are compared by; see `Prediction`."""
    assert question.encoded is not None
    assert question.prompt is not None
    request, endings = question.encoded.request, scored.endings
    if scoring == "letters":
        return endings
    if scoring == "cloze":
        sizes = [len(choice.encode()) for choice in question.prompt.choices]
        return tuple(nats / size for nats, size in zip(endings, sizes, strict=True))
    context = len(request.prefix) + len(request.body) - 1  # BOS is given
    return tuple(
        (scored.context + nats) / (context + len(ids))
        for nats, ids in zip(endings, request.endings, strict=True)
    )


def conclude(question: Question, nats: Sequence[float]) -> Prediction:
    """The prediction that follows from the nats of the choices."""
    return predict(question.item, question.prompt, nats)
