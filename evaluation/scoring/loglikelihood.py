"""Log-likelihoods of endings after contexts, with shared prefixes computed once.

A prefix (the demonstrations of a subject) is computed once for all its requests, whose passes then
attend to its keys and values. The bodies of many requests are in one pass, without padding; endings
branch from their body, and the first id of an ending is scored with the last logits of the body, so
that endings of one id (letters) need no further token. Logits exist for one chunk of positions.

Memory beyond the weights: the activations of one pass of at most `batch_tokens` tokens (one request
with its endings may exceed it), its attention mask against the stored keys, the keys and values of
the longest context (its window at most), one chunk of logits and their log-probabilities.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from evaluation.scoring.requests import Request, Scored
from evaluation.scoring.target_logits import TargetLogits, run_dummy_pass, run_pass
from inference.generation.cache.prefix import Prefix, Tree
from inference.generation.generate import context_limit
from model.transformer import Mistral
from training.distributed import World
from training.parallelize import reshard

BATCH_TOKENS = 4096
"""Default number of tokens of a pass."""


def score(
    model: Mistral,
    requests: Sequence[Request],
    *,
    batch_tokens: int = BATCH_TOKENS,
    context: bool = True,
    world: World | None = None,
) -> Iterator[tuple[int, Scored]]:
    """Score requests; yields the index of a request and its scores, grouped by prefix.

    Padded ids of the vocabulary get no probability. Results depend on the order of the requests and
    on `batch_tokens` only by rounding. Endings of a request with equal ids are computed once, so
    that their scores are equal bit for bit.

    Args:
        batch_tokens: most tokens of a pass.
        context: score contexts too. Otherwise `Scored.context` is NaN, and logits are computed only
            at ids of endings.
        world: processes that share the requests: each calls with all requests, yields its part, and
            must exhaust the iterator, because sharded weights are gathered in each pass and all
            processes run the same number of passes. No collective may be called in between.
            Batches are formed before they are distributed, so that results do not depend on the
            number of processes.

    Raises:
        ValueError: `batch_tokens` is not positive, an id is not in the model's vocabulary, or a
            text is longer than the context of a model without a sliding window.
    """
    if batch_tokens < 1:
        raise ValueError(f"batch_tokens={batch_tokens}: must be at least 1")
    for index, request in enumerate(requests):
        _check(index, request, model)
    rooted = [_split_long_body(_distinct(request), batch_tokens) for request in requests]
    shares = _partition(_batches(rooted, batch_tokens), batch_tokens, world.dp_size if world else 1)
    mine = shares[world.rank if world else 0]
    passes = [sum(_passes(share, batch_tokens)) for share in shares]
    idle = max(passes) - sum(_passes(mine, batch_tokens))
    scores = _score(ScoringPasses(model, batch_tokens, context), rooted, mine, idle)
    return ((index, _for_each(requests[index], scored)) for index, scored in scores)


def _check(index: int, request: Request, model: Mistral) -> None:
    assert request.body, f"request {index} has no body"
    assert all(request.endings), f"request {index} has an empty ending"
    known, limit = model.config.num_tokens, context_limit(model.config)
    for ids in (request.prefix, request.body, *request.endings):
        if ids and (min(ids) < 0 or max(ids) >= known):
            wrong = min(ids) if min(ids) < 0 else max(ids)
            raise ValueError(
                f"request {index} has the id {wrong}, but the model has ids 0 to {known - 1}; "
                "encode it with the model's tokenizer"
            )
    longest = max(map(len, request.endings), default=0)
    length = len(request.prefix) + len(request.body) + longest
    if limit is not None and length > limit:
        raise ValueError(
            f"request {index} has {length:,} tokens, but a model without a sliding window takes "
            f"max_position_embeddings={limit:,}; use fewer shots, or shorten the text"
        )


def _distinct(request: Request) -> Request:
    """The request with each ending once."""
    return replace(request, endings=tuple(dict.fromkeys(request.endings)))


def _for_each(request: Request, scored: Scored) -> Scored:
    """Scores of all endings of a request from those of its distinct endings."""
    places = {ending: n for n, ending in enumerate(dict.fromkeys(request.endings))}
    found = [places[ending] for ending in request.endings]
    endings = tuple(scored.endings[n] for n in found)
    return Scored(scored.context, endings, tuple(scored.greedy[n] for n in found))


def _split_long_body(request: Request, batch_tokens: int) -> Request:
    """The request, with a body longer than a pass moved to the prefix, which runs in pieces."""
    if len(request.body) <= batch_tokens:
        return request
    body = request.body
    return replace(request, prefix=(*request.prefix, *body[:-1]), body=body[-1:])


@dataclass(frozen=True)
class _Batch:
    """Requests of one pass.

    Attributes:
        prefix: common prefix.
        members: indices of the requests.
    """

    prefix: tuple[int, ...]
    members: tuple[int, ...]


def _batches(requests: Sequence[Request], batch_tokens: int) -> list[_Batch]:
    """Requests grouped by prefix, as many per pass as fit, in their order."""
    groups: dict[tuple[int, ...], list[int]] = {}
    for index, request in enumerate(requests):
        groups.setdefault(request.prefix, []).append(index)
    batches = []
    for prefix, indices in groups.items():
        members: list[int] = []
        used = 0
        for index in indices:
            size = _tree(requests[index]).size
            if members and used + size > batch_tokens:
                batches.append(_Batch(prefix, tuple(members)))
                members, used = [], 0
            members.append(index)
            used += size
        batches.append(_Batch(prefix, tuple(members)))
    return batches


def _tree(request: Request) -> Tree:
    """Tokens of a request after its prefix; the last id of an ending is only a target."""
    return Tree(len(request.body), tuple(len(ending) - 1 for ending in request.endings))


@dataclass(frozen=True)
class ScoringPasses:
    """The network and the settings of its passes; see `score`."""

    model: Mistral
    batch_tokens: int
    context: bool


def _passes(batches: Sequence[_Batch], batch_tokens: int) -> list[int]:
    """Number of forward passes of `_score` for each batch, in this order of batches."""
    before = [(), *(batch.prefix for batch in batches)]
    return [
        1 + (-(-len(batch.prefix) // batch_tokens) if batch.prefix != prefix else 0)
        for prefix, batch in zip(before, batches, strict=False)
    ]


def _partition(batches: Sequence[_Batch], batch_tokens: int, ranks: int) -> list[list[_Batch]]:
    """Batches of each rank: consecutive ones with about equal numbers of passes, so that few
    prefixes are computed on several ranks."""
    shares: list[list[_Batch]] = [[] for _ in range(ranks)]
    passes = _passes(batches, batch_tokens)
    ends = list(accumulate(passes))
    for batch, end in zip(batches, ends, strict=True):
        shares[(end - 1) * ranks // ends[-1]].append(batch)
    return shares


def _score(
    plan: ScoringPasses, requests: Sequence[Request], batches: Sequence[_Batch], idle: int
) -> Iterator[tuple[int, Scored]]:
    training = plan.model.training
    plan.model.eval()
    try:
        ids, start = (), _nothing(plan)
        for batch in batches:
            if batch.prefix != ids:
                ids, start = batch.prefix, _read_prefix(plan, batch.prefix)
            scores = _score_batch(plan, start, [requests[index] for index in batch.members])
            yield from zip(batch.members, scores, strict=True)
        for _ in range(idle):
            run_dummy_pass(plan.model)
    finally:
        plan.model.train(training)
        reshard(plan.model)


@dataclass(frozen=True)
class _PrefixState:
    """State after a prefix.

    Attributes:
        prefix: keys and values of its layers.
        hidden: (1, D), hidden state that predicts the next id; None: the prefix is empty.
        nats: negative log-likelihood of all its ids except the first.
    """

    prefix: Prefix
    hidden: Tensor | None
    nats: float


def _nothing(plan: ScoringPasses) -> _PrefixState:
    return _PrefixState(Prefix(), None, 0.0 if plan.context else math.nan)


def _read_prefix(plan: ScoringPasses, ids: tuple[int, ...]) -> _PrefixState:
    """Compute a prefix, in pieces."""
    start, count = _nothing(plan), plan.batch_tokens
    for first in range(0, len(ids), count):
        piece = ids[first : first + count]
        following = list(ids[first + 1 : first + 1 + count]) if plan.context else []
        rows = list(range(1, len(following) + 1))
        reader = TargetLogits(None, rows, following, plan.model.config.num_tokens)
        trunk = [Tree(len(piece))]
        prefix = run_pass(plan.model, piece, start.prefix, trunk, reader, extend=True)
        start = _PrefixState(prefix, reader.last, start.nats + float(reader.nats.double().sum()))
    return start


class _Layout(NamedTuple):
    """Tokens of a pass and the targets that it predicts.

    Attributes:
        tokens: of each request the body, then every ending without its last id.
        rows: position that predicts each target: 0 is the end of the prefix, n + 1 is token n.
        targets: predicted ids.
        parts: part to which each target belongs: the context of a request, each of its endings, the
            context of the next request, and so on.
    """

    tokens: list[int]
    rows: list[int]
    targets: list[int]
    parts: list[int]


def _layout(requests: Sequence[Request], given: int | None) -> _Layout:
    """Layout of requests as `Branches` takes them.

    Args:
        given: number of ids of each body that are not predicted; None: all.
    """
    tokens, rows, targets, parts = layout = _Layout([], [], [], [])
    part = 0
    for body, endings in ((request.body, request.endings) for request in requests):
        start, end = len(tokens), len(tokens) + len(body)
        known = len(body) if given is None else given
        rows += [0, *range(start + 1, end)][known:]
        targets += body[known:]
        parts += [part] * (len(body) - known)
        tokens += body
        for ending in endings:
            part += 1
            rows += [end, *range(len(tokens) + 1, len(tokens) + len(ending))]
            targets += ending
            parts += [part] * len(ending)
            tokens += ending[:-1]
        part += 1
    return layout


def _score_batch(
    plan: ScoringPasses, start: _PrefixState, requests: Sequence[Request]
) -> list[Scored]:
    # The first id of a context is not predicted.
    layout = _layout(requests, int(start.hidden is None) if plan.context else None)
    reader = TargetLogits(start.hidden, layout.rows, layout.targets, plan.model.config.num_tokens)
    run_pass(
        plan.model, layout.tokens, start.prefix, [_tree(request) for request in requests], reader
    )
    counts = [1 + len(request.endings) for request in requests]
    sums = torch.zeros(2, sum(counts), dtype=torch.float64, device=reader.nats.device)
    parts = torch.tensor(layout.parts, dtype=torch.int64, device=sums.device)
    sums.index_add_(1, parts, torch.stack([reader.nats.double(), (~reader.greedy).double()]))
    nats, missed = sums.tolist()
    scores = []
    for first, end in pairwise(accumulate(counts, initial=0)):
        endings = slice(first + 1, end)
        greedy = tuple(not count for count in missed[endings])
        scores.append(Scored(start.nats + nats[first], tuple(nats[endings]), greedy))
    return scores
