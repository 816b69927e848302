"""What a network is asked for: how likely some endings are after a context."""

from dataclasses import dataclass
from typing import NamedTuple


@dataclass(frozen=True)
class Request:
    """Endings after one context, which is `prefix` + `body`.

    Attributes:
        prefix: ids, BOS first, that many requests share (the demonstrations); computed once.
        body: ids of this question; not empty.
        endings: ids of each ending, none of them empty.
    """

    prefix: tuple[int, ...]
    body: tuple[int, ...]
    endings: tuple[tuple[int, ...], ...]


class Scored(NamedTuple):
    """Negative log-likelihoods in nats: logits in the network's dtype, the rest in fp32 or better.

    Attributes:
        context: of all ids of the context but the first, given those before them.
        endings: of each ending given the context; a sum over its ids.
        greedy: whether each ending is what greedy decoding would give.
    """

    context: float
    endings: tuple[float, ...]
    greedy: tuple[bool, ...]
