"""Best-fit-decreasing packing: items of given lengths into as few rows of a capacity as it finds.

Items are taken from the longest to the shortest, each into the fullest row that still has room, or
else into a new one. What the rows look like follows from the lengths alone, however the items are
ordered: items of one length are interchangeable. No more than 11/9 of the fewest possible rows,
plus one, are used (Johnson 1973).
"""

from collections import defaultdict

import numpy as np
from jaxtyping import Int64


def best_fit(lengths: Int64[np.ndarray, " items"], capacity: int) -> Int64[np.ndarray, " items"]:
    """The row of each item; rows are numbered as they are opened.

    Among items of equal length the first is placed first. A million items take a second or two.

    Raises:
        ValueError: an item has no length, or fits no row.
    """
    if len(lengths) and (lengths.min() < 1 or lengths.max() > capacity):
        raise ValueError(
            f"lengths are {lengths.min()} to {lengths.max()}; they must lie between 1 and the "
            f"capacity of {capacity}"
        )
    order = np.argsort(-lengths, kind="stable")
    rows = np.empty(len(lengths), np.int64)
    rows[order] = _place(lengths[order].tolist(), capacity)
    return rows


def _place(lengths: list[int], capacity: int) -> list[int]:
    """The row of each item, given from the longest to the shortest."""
    with_room: defaultdict[int, list[int]] = defaultdict(list)
    # Bit r says that some row has room for exactly r more tokens; the lowest bit at or above an
    # item's length is the fullest row that takes it.
    rooms = 0
    rows, opened = [], 0
    for length in lengths:
        fitting = rooms >> length
        if fitting:
            room = length + (fitting & -fitting).bit_length() - 1
            row = with_room[room].pop()
            if not with_room[room]:
                rooms ^= 1 << room
        else:
            room, row = capacity, opened
            opened += 1
        rows.append(row)
        left = room - length
        if left:
            with_room[left].append(row)
            rooms |= 1 << left
    return rows
