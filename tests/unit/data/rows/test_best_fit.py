"""Packing: every item once, no row too full, few rows, the same ones for the same lengths."""

import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data.rows.best_fit import best_fit


@st.composite
def problems(draw):
    capacity = draw(st.integers(1, 60))
    lengths = draw(st.lists(st.integers(1, capacity), max_size=80))
    return np.array(lengths, np.int64), capacity


def rows_of(lengths, capacity):
    return int(best_fit(lengths, capacity).max(initial=-1)) + 1


def first_fit(lengths, capacity):
    """Rows that the plainest packing needs: in the given order, into the first row with room."""
    rows = []
    for length in lengths.tolist():
        for number, used in enumerate(rows):
            if used + length <= capacity:
                rows[number] += length
                break
        else:
            rows.append(length)
    return len(rows)


def plain_best_fit(lengths, capacity):
    """The definition, in quadratic time: rooms of the rows, from the longest item on."""
    rooms = []
    for length in sorted(lengths.tolist(), reverse=True):
        fitting = [room for room in rooms if room >= length]
        if fitting:
            rooms.remove(min(fitting))
            rooms.append(min(fitting) - length)
        else:
            rooms.append(capacity - length)
    return sorted(rooms)


@given(problems())
def test_every_item_has_a_row_and_no_row_overflows(problem):
    lengths, capacity = problem
    rows = best_fit(lengths, capacity)
    assert rows.shape == lengths.shape
    used = np.bincount(rows, weights=lengths) if len(rows) else np.zeros(0)
    assert (used > 0).all()  # no number is left out
    assert (used <= capacity).all()


@given(problems())
def test_it_is_best_fit_decreasing(problem):
    lengths, capacity = problem
    rows = best_fit(lengths, capacity)
    used = np.bincount(rows, weights=lengths) if len(rows) else np.zeros(0)
    assert sorted((capacity - used).astype(int).tolist()) == plain_best_fit(lengths, capacity)


@given(problems(), st.randoms(use_true_random=False))
def test_the_number_of_rows_follows_from_the_lengths_alone(problem, random):
    lengths, capacity = problem
    shuffled = lengths.tolist()
    random.shuffle(shuffled)
    assert rows_of(np.array(shuffled, np.int64), capacity) == rows_of(lengths, capacity)
    np.testing.assert_array_equal(best_fit(lengths, capacity), best_fit(lengths, capacity))


@given(problems())
def test_it_keeps_the_bound_of_johnson(problem):
    lengths, capacity = problem
    least = -(-int(lengths.sum()) // capacity)
    big = int((2 * lengths > capacity).sum())  # no two of these share a row
    rows = rows_of(lengths, capacity)
    assert rows >= max(least, big)
    if lengths.max(initial=0) * 2 <= capacity:
        assert rows <= 2 * least + 1


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("capacity", [64, 512, 2048])
def test_it_is_never_worse_than_first_fit(seed, capacity):
    generator = np.random.default_rng(seed)
    lengths = np.clip(generator.lognormal(4.5, 0.9, 400).astype(np.int64), 1, capacity)
    assert rows_of(lengths, capacity) <= first_fit(lengths, capacity)


def test_a_worked_example():
    rows = best_fit(np.array([3, 7, 6, 4, 10, 1], np.int64), 10)
    assert rows.tolist() == [1, 1, 2, 2, 0, 3]


def test_a_million_items_take_seconds():
    lengths = np.random.default_rng(0).integers(1, 2049, 1_000_000)
    start = time.process_time()
    rows = best_fit(lengths, 2048)
    assert time.process_time() - start < 20
    assert lengths.sum() / (2048 * (rows.max() + 1)) > 0.99


@pytest.mark.parametrize("lengths", [[0, 3], [3, 11], [-1]])
def test_what_fits_no_row_is_refused(lengths):
    with pytest.raises(ValueError, match=r"between 1 and the capacity of 10"):
        best_fit(np.array(lengths, np.int64), 10)
