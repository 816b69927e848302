"""Turns for several arms, each always close to its share: the order of sources in a stage."""

import math
from collections.abc import Sequence
from fractions import Fraction
from heapq import heapify, heappop, heappush

import numpy as np
from jaxtyping import UInt16


def chairman_assignment(shares: Sequence[Fraction], count: int) -> UInt16[np.ndarray, " count"]:
    """Spread `count` turns over arms so that each arm is always close to its share.

    After n turns arm i has had within 1 - 1 / (2k - 2) of `n * shares[i]` turns, for every n and k
    arms (Tijdeman, "The chairman assignment problem", 1980): turn j of an arm may not come before
    its release, and of the arms that may come, the one with the earliest deadline does. Integer
    arithmetic throughout; where all shares are due in full the sequence repeats.
    """
    assert sum(shares) == 1
    assert all(share > 0 for share in shares)
    period = math.lcm(*(share.denominator for share in shares))
    slack = max(2 * len(shares) - 2, 1)
    steps = [(share.denominator, share.numerator * slack) for share in shares]

    def release(arm: int, turn: int) -> int:
        numerator, denominator = steps[arm]
        return -(-(turn * slack + 1) * numerator // denominator)

    def deadline(arm: int, turn: int) -> int:
        numerator, denominator = steps[arm]
        return ((turn + 1) * slack - 1) * numerator // denominator + 1

    turns = [0] * len(shares)
    waiting = [(release(arm, 0), arm) for arm in range(len(shares))]
    heapify(waiting)
    ready: list[tuple[int, int]] = []
    order = []
    for n in range(1, min(count, period) + 1):
        while waiting and waiting[0][0] <= n:
            _, arm = heappop(waiting)
            heappush(ready, (deadline(arm, turns[arm]), arm))
        _, arm = heappop(ready)
        order.append(arm)
        turns[arm] += 1
        heappush(waiting, (release(arm, turns[arm]), arm))
    return np.resize(np.array(order, np.uint16), count)
