"""How likely endings are after contexts, with what contexts share computed once.

Requests with one prefix (the demonstrations of a subject) run it once and go on from its keys and
values. The rests of many contexts lie side by side in one pass, without padding; endings branch
from theirs, and the first id of each is read off the context's own last logits, so that endings of
one id, letters, cost nothing. Logits exist for one chunk of positions at a time.

Memory beyond the weights: the activations of one pass, which has at most `batch_tokens` tokens (and
the endings of one request on top, where that request alone is larger), with its attention mask
against the stored keys; the keys and values of the longest context, its window at most; one chunk
of logits, and as many logarithms of probability.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from evaluation.scoring.requests import Request, Scored
from evaluation.scoring.target_logits import Reader, run_idly, run_pass
from inference.generation.cache.prefix import Prefix, Tree
from inference.generation.generate import context_limit
from model.transformer import Mistral
from training.distributed import World
from training.parallelize import reshard

BATCH_TOKENS = 4096
"""Tokens of one pass, unless told otherwise."""


def score(
    model: Mistral,
    requests: Sequence[Request],
    *,
    batch_tokens: int = BATCH_TOKENS,
    context: bool = True,
    world: World | None = None,
) -> Iterator[tuple[int, Scored]]:
    """Score requests; yields the index of a request and its scores, those of one prefix together.

    Padded ids of the vocabulary get no probability. Results depend on neither the order of the
    requests nor `batch_tokens`, but for rounding. Endings of a request with the same ids are
    computed once, so that their scores have the same bits.

    Args:
        batch_tokens: the most that are computed at once.
        context: score contexts, too. Without, `Scored.context` is NaN, and logits are computed
            only where an id of an ending is predicted.
        world: the processes that share the requests: each calls with the same ones, yields its
            own part, and must exhaust the iterator, because sharded weights are gathered in each
            pass and all run equally many. No collective may be called on the way. Batches are
            formed before they are dealt, so that results do not depend on the number of processes.

    Raises:
        ValueError: `batch_tokens` is not positive, an id is none of the model's, or a text is
            longer than a model without a window takes.
    """
    if batch_tokens < 1:
        raise ValueError(f"batch_tokens={batch_tokens}: must be at least 1")
    for index, request in enumerate(requests):
        _check(index, request, model)
    rooted = [_rooted(_distinct(request), batch_tokens) for request in requests]
    shares = _deal(_batches(rooted, batch_tokens), batch_tokens, world.size if world else 1)
    mine = shares[world.rank if world else 0]
    passes = [sum(_passes(share, batch_tokens)) for share in shares]
    idle = max(passes) - sum(_passes(mine, batch_tokens))
    scores = _score(_Plan(model, batch_tokens, context), rooted, mine, idle)
    return ((index, _for_each(requests[index], scored)) for index, scored in scores)


def _check(index: int, request: Request, model: Mistral) -> None:
    assert request.body, f"request {index} has no body"
    assert all(request.endings), f"request {index} has an empty ending"
    known, limit = model.config.num_tokens, context_limit(model.config)
    for ids in (request.prefix, request.body, *request.endings):
        if ids and (min(ids) < 0 or max(ids) >= known):
            wrong = min(ids) if min(ids) < 0 else max(ids)
            raise ValueError(
                f"request {index} has the id {wrong}; the model has tokens 0 to {known - 1}: was "
                "it encoded with another tokenizer?"
            )
    longest = max(map(len, request.endings), default=0)
    length = len(request.prefix) + len(request.body) + longest
    if limit is not None and length > limit:
        raise ValueError(
            f"request {index} has {length:,} tokens; a model without a sliding window takes "
            f"max_position_embeddings={limit:,}: give fewer demonstrations, or shorten the text"
        )


def _distinct(request: Request) -> Request:
    """The same request, each ending once."""
    return replace(request, endings=tuple(dict.fromkeys(request.endings)))


def _for_each(request: Request, scored: Scored) -> Scored:
    """The scores of all endings of a request, given those of each ending once."""
    places = {ending: n for n, ending in enumerate(dict.fromkeys(request.endings))}
    found = [places[ending] for ending in request.endings]
    endings = tuple(scored.endings[n] for n in found)
    return Scored(scored.context, endings, tuple(scored.greedy[n] for n in found))


def _rooted(request: Request, batch_tokens: int) -> Request:
    """The same request; a body that no pass can hold goes to the prefix, which comes in pieces."""
    if len(request.body) <= batch_tokens:
        return request
    body = request.body
    return replace(request, prefix=(*request.prefix, *body[:-1]), body=body[-1:])


@dataclass(frozen=True)
class _Batch:
    """Requests of one pass.

    Attributes:
        prefix: what they share.
        members: their indices.
    """

    prefix: tuple[int, ...]
    members: tuple[int, ...]


def _batches(requests: Sequence[Request], batch_tokens: int) -> list[_Batch]:
    """Prefix by prefix, as many requests in a pass as fit, in their order."""
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
    """What a request runs after its prefix: nothing follows the last id of an ending."""
    return Tree(len(request.body), tuple(len(ending) - 1 for ending in request.endings))


@dataclass(frozen=True)
class _Plan:
    """The network and how it is asked; see `score`."""

    model: Mistral
    batch_tokens: int
    context: bool


def _passes(batches: Sequence[_Batch], batch_tokens: int) -> list[int]:
    """Forward passes that `_score` makes for each batch, where they come in this order."""
    before = [(), *(batch.prefix for batch in batches)]
    return [
        1 + (-(-len(batch.prefix) // batch_tokens) if batch.prefix != prefix else 0)
        for prefix, batch in zip(before, batches, strict=False)
    ]


def _deal(batches: Sequence[_Batch], batch_tokens: int, ranks: int) -> list[list[_Batch]]:
    """Each rank's batches: stretches of about equally many passes, so that few prefixes are run
    on several ranks."""
    shares: list[list[_Batch]] = [[] for _ in range(ranks)]
    passes = _passes(batches, batch_tokens)
    ends = list(accumulate(passes))
    for batch, end in zip(batches, ends, strict=True):
        shares[(end - 1) * ranks // ends[-1]].append(batch)
    return shares


def _score(
    plan: _Plan, requests: Sequence[Request], batches: Sequence[_Batch], idle: int
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
            run_idly(plan.model)
    finally:
        plan.model.train(training)
        reshard(plan.model)


@dataclass(frozen=True)
class _Start:
    """The end of a prefix.

    Attributes:
        prefix: what the layers kept of it.
        hidden: (1, D), from which its next id is predicted; None: it is empty.
        nats: of all its ids but the first.
    """

    prefix: Prefix
    hidden: Tensor | None
    nats: float


def _nothing(plan: _Plan) -> _Start:
    return _Start(Prefix(), None, 0.0 if plan.context else math.nan)


def _read_prefix(plan: _Plan, ids: tuple[int, ...]) -> _Start:
    """Run a prefix, in pieces."""
    start, count = _nothing(plan), plan.batch_tokens
    for first in range(0, len(ids), count):
        piece = ids[first : first + count]
        following = list(ids[first + 1 : first + 1 + count]) if plan.context else []
        rows = list(range(1, len(following) + 1))
        reader = Reader(None, rows, following, plan.model.config.num_tokens)
        trunk = [Tree(len(piece))]
        prefix = run_pass(plan.model, piece, start.prefix, trunk, reader, extend=True)
        start = _Start(prefix, reader.last, start.nats + float(reader.nats.double().sum()))
    return start


class _Layout(NamedTuple):
    """The tokens of a pass, and the targets that are predicted in it.

    Attributes:
        tokens: of each request the body, then every ending but for its last id.
        rows: where each target is predicted: 0 is the prefix's end, n + 1 token n.
        targets: ids, as many.
        parts: what each target counts for: a request's context, its endings, the next request's
            context, and so on.
    """

    tokens: list[int]
    rows: list[int]
    targets: list[int]
    parts: list[int]


def _lay_out(requests: Sequence[Request], given: int | None) -> _Layout:
    """Lay requests out as `Branches` takes them.

    Args:
        given: how many ids of each body are not predicted; None: all.
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


def _score_batch(plan: _Plan, start: _Start, requests: Sequence[Request]) -> list[Scored]:
    # Nothing predicts the first id of all.
    layout = _lay_out(requests, int(start.hidden is None) if plan.context else None)
    reader = Reader(start.hidden, layout.rows, layout.targets, plan.model.config.num_tokens)
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
