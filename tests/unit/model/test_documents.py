"""Documents in packed rows, and the pairs of tokens that attention scores."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from model.backends.banded import visible_keys
from model.documents import Documents, copy_to
from tests.helpers.toy import random_segments, spans

CPU = torch.device("cpu")
segment_rows = st.integers(1, 12).flatmap(
    lambda length: st.lists(
        st.lists(st.integers(0, 3), min_size=length, max_size=length), min_size=1, max_size=4
    )
)


@given(segment_rows)
def test_from_segments_is_the_naive_construction(rows):
    starts, positions = [], []
    for r, row in enumerate(rows):
        positions.append([])
        for i, number in enumerate(row):
            begins = i == 0 or number != row[i - 1]
            positions[r].append(0 if begins else positions[r][-1] + 1)
            if begins:
                starts.append(r * len(row) + i)
    segments = torch.tensor(rows, dtype=torch.int32)
    documents = Documents.from_segments(segments)
    assert documents.segments is segments
    assert documents.positions.tolist() == positions
    assert documents.cu_seqlens.tolist() == [*starts, segments.numel()]
    assert documents.cu_seqlens.dtype == torch.int32
    assert documents.max_seqlen == 1 + max(map(max, positions))
    assert type(documents.max_seqlen) is int


def test_what_cuda_copies_cannot_be_paged_out(monkeypatch):
    """Or the host would wait for the device. A CPU has neither, so both calls are only recorded."""
    calls = []
    x = torch.arange(3)

    def pin(x):  # torch's keeps the strides, and fails where elements share their place
        assert x.is_contiguous()
        calls.append("pinned")
        return x

    monkeypatch.setattr(torch.Tensor, "pin_memory", pin)
    monkeypatch.setattr(torch.Tensor, "to", lambda x, *to, **how: calls.append((to, how)) or x)
    cuda = torch.device("cuda")
    copy_to(cuda, x)
    assert calls == ["pinned", ((cuda,), {"non_blocking": True})]
    documents = Documents.whole_rows(2, 3, CPU)
    calls.clear()
    documents.to(cuda)
    assert calls == 3 * ["pinned", ((cuda,), {"non_blocking": True})]
    calls.clear()
    copy_to(CPU, x)
    assert calls == [((CPU,), {"non_blocking": True})]


@pytest.mark.parametrize(("rows", "length"), [(1, 1), (1, 9), (4, 1), (3, 7)])
def test_whole_rows_are_one_segment_each(rows, length):
    whole = Documents.whole_rows(rows, length, CPU)
    same = Documents.from_segments(torch.ones(rows, length, dtype=torch.int32))
    for name in ("segments", "positions", "cu_seqlens"):
        assert torch.equal(getattr(whole, name), getattr(same, name))
        assert getattr(whole, name).dtype == getattr(same, name).dtype
    assert whole.max_seqlen == same.max_seqlen


def test_every_tensor_moves():
    moved = Documents.from_segments(random_segments(2, 5)).to(torch.device("meta"))
    for tensor in (moved.segments, moved.positions, moved.cu_seqlens):
        assert tensor.device.type == "meta"


@pytest.mark.parametrize("length", [1, 7, 8, 9, 19])
@pytest.mark.parametrize("window", [None, 1, 2, 8, 19, 40])
@pytest.mark.parametrize("padding", [False, True])
def test_count_pairs_is_the_size_of_the_mask(length, window, padding):
    segments = random_segments(4, length, seed=length, padding=padding)
    pairs = 0
    for _, place in spans(segments):
        for i in range(place.start, place.stop):
            pairs += sum(window is None or i - j < window for j in range(place.start, i + 1))
    documents = Documents.from_segments(segments)
    assert documents.count_pairs(window) == pairs
    real = (segments > 0)[:, :, None]
    mask = visible_keys(segments, slice(None), slice(None), window) & real
    assert pairs == mask.sum()


def test_padding_counts_for_nothing():
    assert Documents.from_segments(torch.zeros(2, 5, dtype=torch.int32)).count_pairs(3) == 0
