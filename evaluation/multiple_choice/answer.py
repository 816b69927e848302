"""Answers of a model in memory to the questions of a task: prepare them once, ask repeatedly.

All processes get all questions and return all predictions; the assignment of questions to
processes does not change them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tqdm import tqdm

from evaluation.benchmarks.items import Item, Task
from evaluation.multiple_choice.accuracy import accuracy
from evaluation.multiple_choice.config import AskConfig
from evaluation.multiple_choice.encode import check_lengths, encode_prompts
from evaluation.multiple_choice.predictions import Prediction, predict
from evaluation.multiple_choice.prompts import Prompt, write_prompts
from evaluation.scoring.loglikelihood import BATCH_TOKENS, score
from evaluation.scoring.requests import Request, Scored
from model.config import ModelConfig
from model.transformer import Mistral
from tokenizer.tokenizer import Tokenizer
from training.distributed import World


@dataclass(frozen=True)
class PreparedItem:
    """An item with its prompt as text and as ids.

    Attributes:
        prompt, request: None for a broken item, which is not asked.
        boundary_shift: ids of the context that are scored with the answers; see `encode`.
    """

    item: Item
    prompt: Prompt | None = None
    request: Request | None = None
    boundary_shift: int = 0


def prepare(
    task: Task, config: AskConfig, tokenizer: Tokenizer, shape: ModelConfig
) -> list[PreparedItem]:
    """Prompts and ids of all questions of a task.

    Raises:
        ValueError: a question cannot be asked with this configuration.
    """
    prompts = write_prompts(task, config)
    asked = [prompt for prompt in prompts if prompt is not None]
    encoded = encode_prompts(asked, tokenizer)
    check_lengths(asked, [request for request, _ in encoded], shape)
    following = iter(encoded)
    return [
        PreparedItem(item) if prompt is None else PreparedItem(item, prompt, *next(following))
        for item, prompt in zip(task.items, prompts, strict=True)
    ]


def accuracies(
    tasks: Mapping[str, Sequence[PreparedItem]],
    model: Mistral,
    config: AskConfig,
    world: World,
    *,
    batch_tokens: int = BATCH_TOKENS,
) -> dict[str, dict[str, float | None]]:
    """Accuracy and mean margin of prepared tasks, in memory: {task: {micro, macro, margin}}.

    All processes call it and get the same result. The model may be sharded and in training.
    """
    found = {}
    for name, items in tasks.items():
        whole = accuracy(answer(items, model, config.scoring, world, batch_tokens))
        found[name] = {"micro": whole.micro, "macro": whole.macro, "margin": whole.margin}
    return found


def answer(
    items: Sequence[PreparedItem],
    model: Mistral,
    scoring: str,
    world: World,
    batch_tokens: int,
    *,
    known: Mapping[Request, tuple[float, ...]] | None = None,
    bar: tqdm | None = None,
) -> list[Prediction]:
    """Predictions for all items, on every process.

    Args:
        known: `Prediction.nats` of requests that need no scoring.
        bar: progress in questions.

    Raises:
        ValueError: a log-likelihood is not finite.
    """
    known = known or {}
    asked = [n for n, i in enumerate(items) if i.request is not None and i.request not in known]
    mine: dict[int, tuple[float, ...]] = {}
    requests = [request for n in asked if (request := items[n].request) is not None]
    if requests:
        scores = score(
            model,
            requests,
            batch_tokens=batch_tokens,
            world=world,
            context=scoring == "perplexity",
        )
        for index, scored in scores:
            mine[asked[index]] = _per_choice(items[asked[index]], scored, scoring)
            if bar is not None and bar.n < (bar.total or 0):
                bar.update(min(world.dp_size, bar.total - bar.n))
    found: dict[int, tuple[float, ...]] = {}
    for part in world.gather(mine):
        found |= part
    predictions = []
    for n, one in enumerate(items):
        nats = () if one.request is None else known.get(one.request) or found[n]
        predictions.append(predict(one.item, one.prompt, nats))
    return predictions


def _per_choice(one: PreparedItem, scored: Scored, scoring: str) -> tuple[float, ...]:
    """Negative log-likelihoods of the choices in the unit of `Prediction.nats`."""
    assert one.request is not None
    assert one.prompt is not None
    request, endings = one.request, scored.endings
    if scoring == "letters":
        return endings
    if scoring == "cloze":
        sizes = [len(choice.encode()) for choice in one.prompt.choices]
        return tuple(nats / size for nats, size in zip(endings, sizes, strict=True))
    context = len(request.prefix) + len(request.body) - 1  # BOS is not predicted
    return tuple(
        (scored.context + nats) / (context + len(ids))
        for nats, ids in zip(endings, request.endings, strict=True)
    )
