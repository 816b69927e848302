"""Requests for log-likelihoods of endings after a context, and their scores."""

from dataclasses import dataclass
from typing import NamedTuple


@dataclass(frozen=True)
class Request:
    """Endings after one context, which is `prefix` + `body`.

    Attributes:
        prefix: ids, BOS first, that many requests share (the demonstrations); computed once.
        body: ids of the question; not empty.
        endings: ids of each ending; no ending is empty.
    """

    prefix: tuple[int, ...]
    body: tuple[int, ...]
    endings: tuple[tuple[int, ...], ...]


class Scored(NamedTuple):
    """Negative log-likelihoods in nats: logits in the network's dtype, the rest in fp32 or better.

    Attributes:
        context: of all ids of the context except the first.
        endings: of each ending given the context, summed over its ids.
        greedy: greedy decoding gives this ending.
    """

    context: float
    endings: tuple[float, ...]
    greedy: tuple[bool, ...]
