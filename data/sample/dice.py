"""Seeded draws that no Python release, platform or PYTHONHASHSEED can change.

Only `random.Random(int).random()` is used, whose sequence Python guarantees; `choice`, `shuffle`
and `sample` have changed between versions, so their few lines are written out here.
"""

import random
from collections.abc import Sequence
from typing import TypeVar

from data.rows.seeds import derive

T = TypeVar("T")


class Dice:
    """A stream of draws led to by a seed and names: `Dice(0, "geo_en", 7)` is always the same."""

    def __init__(self, seed: int, *names: str | int) -> None:
        self._uniform = random.Random(derive(seed, *names)).random

    def below(self, n: int) -> int:
        """An integer from 0 to n - 1."""
        return int(self._uniform() * n)

    def between(self, low: int, high: int) -> int:
        """An integer from low to high, both included."""
        return low + int(self._uniform() * (high - low + 1))

    def pick(self, items: Sequence[T]) -> T:
        """One of the items."""
        return items[int(self._uniform() * len(items))]

    def shuffled(self, items: Sequence[T]) -> list[T]:
        """The items in a new order."""
        order = list(items)
        for last in range(len(order) - 1, 0, -1):
            other = self.below(last + 1)
            order[last], order[other] = order[other], order[last]
        return order
