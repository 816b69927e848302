import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data.rows.packing import cut_row, empty_row
from data.rows.stream import Stream
from model.labels import IGNORE_INDEX
from tests.helpers.draws import examples
from tests.unit.data.rows.test_shards import BOS, EOS, make_documents, write_source


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    monkeypatch.setattr("data.rows.shards.BLOCK_DOCUMENTS", 4)


def naive_row(stream, n, row_length):
    """A row written down from the definition, token by token."""
    span = stream.read(0, (n + 1) * row_length + 1)
    owner = np.repeat(np.arange(len(span.lengths)), span.lengths).tolist()
    first = n * row_length
    tokens, labels, segments, positions = [], [], [], []
    for at in range(first, first + row_length):
        tokens.append(int(span.tokens[at]))
        labels.append(int(span.tokens[at + 1]) if owner[at + 1] == owner[at] else -100)
        begins = at == first or owner[at] != owner[at - 1]
        segments.append(segments[-1] + begins if segments else 1)
        positions.append(0 if begins else positions[-1] + 1)
    documents = span.documents[owner[first] : owner[first + row_length - 1] + 1].tolist()
    return tokens, labels, segments, positions, documents


@examples(60)
@given(
    sizes=st.lists(st.integers(1, 9), min_size=1, max_size=3),
    longest=st.sampled_from([0, 1, 12, 80]),
    row_length=st.integers(1, 40),
    n=st.integers(0, 30),
)
def test_rows_are_the_naive_construction(tmp_path_factory, sizes, longest, row_length, n):
    shards = [make_documents(size, seed=i, longest=longest) for i, size in enumerate(sizes)]
    stream = Stream(write_source(tmp_path_factory.mktemp("s") / "s", *shards), 0)
    row = cut_row(stream, n, row_length)
    tokens, labels, segments, positions, documents = naive_row(stream, n, row_length)
    assert row.tokens.tolist() == tokens
    assert row.labels.tolist() == labels
    assert row.segments.tolist() == segments
    assert row.positions.tolist() == positions
    assert row.documents.tolist() == documents


@pytest.mark.parametrize("row_length", [1, 7, 64])
def test_rows_end_to_end_are_the_stream(tmp_path, row_length):
    source = write_source(tmp_path / "s", make_documents(40))
    stream = Stream(source, 0)
    count = 2 * source.tokens // row_length + 1
    rows = [cut_row(stream, n, row_length) for n in range(count)]
    tokens = stream.read(0, count * row_length + 1).tokens
    np.testing.assert_array_equal(np.concatenate([row.tokens for row in rows]), tokens[:-1])
    # Every token is somebody's label, save the first of each document.
    labels = np.concatenate([row.labels for row in rows])
    np.testing.assert_array_equal(labels == IGNORE_INDEX, tokens[1:] == BOS)
    np.testing.assert_array_equal(labels[labels != IGNORE_INDEX], tokens[1:][tokens[1:] != BOS])


def test_a_row_of_several_epochs_of_one_document(tmp_path):
    stream = Stream(write_source(tmp_path / "s", [np.array([BOS, 7, EOS])]), 0)
    row = cut_row(stream, 1, 8)
    assert row.tokens.tolist() == [EOS, BOS, 7, EOS, BOS, 7, EOS, BOS]
    assert row.labels.tolist() == [-100, 7, EOS, -100, 7, EOS, -100, 7]
    assert row.segments.tolist() == [1, 2, 2, 2, 3, 3, 3, 4]
    assert row.positions.tolist() == [0, 0, 1, 2, 0, 1, 2, 0]
    assert row.documents.tolist() == [0, 0, 0, 0]


def test_a_cut_document_keeps_its_last_label_and_restarts(tmp_path):
    ids = np.array([BOS, 5, 6, 7, 8, EOS])
    stream = Stream(write_source(tmp_path / "s", [ids]), 0)
    first, second = cut_row(stream, 0, 3), cut_row(stream, 1, 3)
    assert first.labels.tolist() == [5, 6, 7]
    assert second.tokens.tolist() == [7, 8, EOS]
    assert second.labels.tolist() == [8, EOS, IGNORE_INDEX]
    assert second.positions.tolist() == [0, 1, 2]


def test_an_empty_row_teaches_nothing():
    row = empty_row(5)
    assert not row.tokens.any()
    assert (row.labels == IGNORE_INDEX).all()
    assert not row.segments.any()
    assert row.positions.tolist() == [0, 1, 2, 3, 4]
    assert len(row.documents) == 0
