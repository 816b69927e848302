"""Prompts in, answers out: batched, seeded, streamed.

An answer depends on its prompt, its index and the configuration; what else is in the batch changes
the last bits of the logits at most, and never what is drawn. Sequences leave the batch when they
have finished: at an EOS, at a stop string, after `max_new_tokens`, or, without a sliding window, at
the model's `max_position_embeddings`, which a prompt must leave room under. With a window there is
no longest text. Padded ids are never chosen.
"""

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from inference.generation.detokenizer import Decode, IncrementalDetokenizer
from inference.generation.engine import Engine
from inference.generation.sampling import SamplingConfig, choose, uniform
from model.config import ModelConfig
from model.transformer import Mistral


class Event(NamedTuple):
    """One id of one answer.

    Attributes:
        prompt: its place among the prompts.
        id: what was chosen, the EOS included.
        text: what is certain now and was not before; often empty, never taken back.
        finished: `eos`, `stop`, `length` or `context` with the last id, else None.
    """

    prompt: int
    id: int
    text: str
    finished: str | None


@dataclass
class Answer:
    """One finished answer.

    Attributes:
        ids: without the EOS; with those of a stop string.
        text: without the stop string; empty if no `decode` was given.
        finished: see `Event`.
    """

    ids: list[int]
    text: str
    finished: str


def generate(
    model: Mistral | Engine,
    prompts: Sequence[Sequence[int]],
    config: SamplingConfig,
    *,
    eos_ids: Collection[int] = (),
    decode: Decode | None = None,
    continue_text: bool = True,
    indices: Sequence[int] | None = None,
    on_event: Callable[[Event], None] | None = None,
) -> list[Answer]:
    """All answers, in the order of the prompts; the arguments are those of `stream`."""
    answers = [Answer([], "", "") for _ in prompts]
    options = {"decode": decode, "continue_text": continue_text, "indices": indices}
    for event in stream(model, prompts, config, eos_ids=eos_ids, **options):
        answer = answers[event.prompt]
        answer.text += event.text
        if event.finished != "eos":
            answer.ids.append(event.id)
        answer.finished = event.finished or ""
        if on_event is not None:
            on_event(event)
    return answers


def stream(
    model: Mistral | Engine,
    prompts: Sequence[Sequence[int]],
    config: SamplingConfig,
    *,
    eos_ids: Collection[int] = (),
    decode: Decode | None = None,
    continue_text: bool = True,
    indices: Sequence[int] | None = None,
) -> Iterator[Event]:
    """Generate, and hand out every id as it is chosen; stop taking to stop generating.

    Args:
        model: the network, or a `Engine` of it, which spares its preparation.
        prompts: ids of each, BOS included.
        eos_ids: what ends an answer.
        decode: ids to text; needed for text and stop strings.
        continue_text: the text continues the prompt, so that it may begin with a space; false for
            answers, which are separate texts.
        indices: of the prompts, for the draws; None: 0, 1, ... Give them where a list of prompts is
            cut into batches, so that the cuts do not matter.

    Raises:
        ValueError: a prompt is empty, too long or has ids that stand for no token; stop strings
            without `decode`.
    """
    engine = model if isinstance(model, Engine) else Engine(model)
    check_prompts(prompts, engine.model.config)
    if config.stop and decode is None:
        raise ValueError("stop: stop strings need `decode`, the tokenizer's way back to text")
    if indices is None:
        indices = range(len(prompts))
    assert len(indices) == len(prompts)
    return _stream(engine, prompts, config, frozenset(eos_ids), decode, continue_text, indices)


def check_prompts(prompts: Sequence[Sequence[int]], config: ModelConfig) -> None:
    """ValueError unless each prompt is one that the network can continue."""
    limit = context_limit(config)
    for n, prompt in enumerate(prompts):
        if not len(prompt):
            raise ValueError(f"prompts[{n}] is empty; begin it with BOS")
        wrong = next((id for id in prompt if not 0 <= id < config.num_tokens), None)
        if wrong is not None:
            raise ValueError(
                f"prompts[{n}] has the id {wrong}; the model has tokens 0 to "
                f"{config.num_tokens - 1}: was it encoded with another tokenizer?"
            )
        if limit is not None and len(prompt) >= limit:
            raise ValueError(
                f"prompts[{n}] has {len(prompt):,} tokens; a model without a sliding window takes "
                f"fewer than max_position_embeddings={limit:,}: shorten it"
            )


def context_limit(config: ModelConfig) -> int | None:
    """Tokens of prompt and answer together; None: as many as you like."""
    return None if config.sliding_window is not None else config.max_position_embeddings


def _stream(
    engine: Engine,
    prompts: Sequence[Sequence[int]],
    config: SamplingConfig,
    eos_ids: frozenset[int],
    decode: Decode | None,
    continue_text: bool,
    indices: Sequence[int],
) -> Iterator[Event]:
    if not prompts:
        return
    limit = context_limit(engine.model.config)
    texts = [
        None
        if decode is None
        else IncrementalDetokenizer(decode, config.stop, p if continue_text else ())
        for p in prompts
    ]
    batch = _Batch(engine, prompts, config, indices)
    for count in range(1, config.max_new_tokens + 1):
        ids = batch.choose()
        going = []
        for place, (n, id) in enumerate(zip(batch.alive, ids, strict=True)):
            event = _event(n, id, texts[n], eos_ids)
            if event.finished is None and count == config.max_new_tokens:
                event = _last(event, "length", texts[n])
            elif event.finished is None and len(prompts[n]) + count == limit:
                event = _last(event, "context", texts[n])
            if event.finished is None:
                going.append(place)
            yield event
        if not going:
            return
        batch.advance(ids, going)


def _event(n: int, id: int, text: IncrementalDetokenizer | None, eos_ids: frozenset[int]) -> Event:
    if id in eos_ids:
        return _last(Event(n, id, "", None), "eos", text)
    if text is None:
        return Event(n, id, "", None)
    new = text.add(id)
    return Event(n, id, new, "stop" if text.stopped else None)


def _last(event: Event, reason: str, text: IncrementalDetokenizer | None) -> Event:
    """The event as the last one: with the text that was held back."""
    rest = "" if text is None else text.close()
    if text is not None and text.stopped:  # in what was held back
        reason = "stop"
    return event._replace(text=event.text + rest, finished=reason)


class _Batch:
    """The sequences that are still going on.

    Attributes:
        alive: their places among the prompts.
        rows: their places in the cache, which may keep finished sequences for a while.
    """

    def __init__(
        self,
        engine: Engine,
        prompts: Sequence[Sequence[int]],
        config: SamplingConfig,
        indices: Sequence[int],
    ) -> None:
        self.engine, self.config, self.indices = engine, config, indices
        self.alive = list(range(len(prompts)))
        self.rows = list(range(len(prompts)))
        self.position = 0
        shape = engine.model.config
        capacity = max(map(len, prompts)) + config.max_new_tokens
        limit = context_limit(shape)
        self.cache = engine.new_cache(
            len(prompts), capacity if limit is None else min(capacity, limit)
        )
        self.num_tokens = shape.num_tokens
        self.logits = engine.prefill(prompts, self.cache)
        self.seen: Tensor | None = None
        if config.repetition_penalty != 1:
            self.seen = torch.zeros(len(prompts), self.num_tokens, dtype=torch.bool)
            for row, prompt in zip(self.seen, prompts, strict=True):
                row[torch.tensor(prompt)] = True
            self.seen = self.seen.to(engine.device)

    @torch.inference_mode()
    def choose(self) -> list[int]:
        """The next id of each."""
        numbers = []
        if self.config.temperature > 0:
            numbers = [
                uniform(self.config.seed, self.indices[n], self.position) for n in self.alive
            ]
        logits = self.logits[:, : self.num_tokens]
        return choose(logits, self.seen, numbers, self.config).tolist()

    @torch.inference_mode()
    def advance(self, ids: list[int], going: list[int]) -> None:
        """Add the ids, and continue some of the sequences.

        Args:
            going: their places among those alive.
        """
        if len(going) < len(self.alive):
            self.alive = [self.alive[place] for place in going]
            self.rows = [self.rows[place] for place in going]
            if self.seen is not None:
                self.seen = self.seen[torch.tensor(going, device=self.seen.device)]
        added = torch.tensor([ids[place] for place in going], device=self.engine.device)
        if self.seen is not None:
            self.seen[torch.arange(len(going), device=added.device), added] = True
        self.position += 1
        if len(self.rows) < len(self.cache.lengths) and self.engine.should_compact(
            len(going), self.cache
        ):
            self.cache.keep(self.rows)
            self.rows = list(range(len(self.rows)))
        if len(self.rows) == len(self.cache.lengths):
            self.logits = self.engine.decode(added, self.cache)
            return
        rows = torch.tensor(self.rows, device=added.device)
        padded = added.new_zeros(len(self.cache.lengths)).index_copy_(0, rows, added)
        self.logits = self.engine.decode(padded, self.cache)[rows]
