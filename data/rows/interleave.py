"""Order of the sources in a stage: at every point each source is close to its share."""

import math
from collections.abc import Sequence
from fractions import Fraction
from heapq import heapify, heappop, heappush

import numpy as np
from jaxtyping import UInt16


def interleave_by_weight(shares: Sequence[Fraction], count: int) -> UInt16[np.ndarray, " count"]:
    """Assign each of `count` rows to a source (Tijdeman, "The chairman assignment problem", 1980).

    After n rows, source i of k has within 1 - 1 / (2k - 2) of `n * shares[i]` rows, for every n.
    Row j of a source is allowed from its release on, and of the allowed sources the one with the
    earliest deadline is next. The arithmetic is exact; after the common period of the shares the
    sequence repeats.

    Args:
        shares: positive, with sum 1.

    Returns:
        For each row, the index of its share.
    """
    assert sum(shares) == 1
    assert all(share > 0 for share in shares)
    period = math.lcm(*(share.denominator for share in shares))
    slack = max(2 * len(shares) - 2, 1)
    steps = [(share.denominator, share.numerator * slack) for share in shares]

    def release(source: int, turn: int) -> int:
        numerator, denominator = steps[source]
        return -(-(turn * slack + 1) * numerator // denominator)

    def deadline(source: int, turn: int) -> int:
        numerator, denominator = steps[source]
        return ((turn + 1) * slack - 1) * numerator // denominator + 1

    turns = [0] * len(shares)
    waiting = [(release(source, 0), source) for source in range(len(shares))]
    heapify(waiting)
    ready: list[tuple[int, int]] = []
    order = []
    for n in range(1, min(count, period) + 1):
        while waiting and waiting[0][0] <= n:
            _, source = heappop(waiting)
            heappush(ready, (deadline(source, turns[source]), source))
        _, source = heappop(ready)
        order.append(source)
        turns[source] += 1
        heappush(waiting, (release(source, turns[source]), source))
    return np.resize(np.array(order, np.uint16), count)
