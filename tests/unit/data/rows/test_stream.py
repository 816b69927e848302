import itertools
import math
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data.rows.seeds import derive, permutation, splitmix64
from data.rows.stream import Stream
from tests.helpers.draws import examples
from tests.unit.data.rows.test_shards import BOS, EOS, make_documents, write_source


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    monkeypatch.setattr("data.rows.shards.BLOCK_DOCUMENTS", 4)


def naive_pieces(shards, seed):
    """The endless stream as (document number, ids), written down from the definition."""
    blocks, number = [], 0
    for shard in shards:
        numbered = list(enumerate(shard, start=number))
        blocks += [numbered[start : start + 4] for start in range(0, len(shard), 4)]
        number += len(shard)
    for epoch in itertools.count():
        for block in permutation(len(blocks), derive(seed, "blocks", epoch)):
            documents = derive(seed, "documents", epoch, int(block))
            for place in permutation(len(blocks[block]), documents):
                yield blocks[block][place]


def naive_read(shards, seed, start, count):
    """(tokens, [(document number, length)]) of a span, one token at a time."""
    tokens, pieces, position = [], [], 0
    for number, ids in naive_pieces(shards, seed):
        inside = [int(t) for i, t in enumerate(ids, position) if start <= i < start + count]
        if inside:
            tokens += inside
            pieces.append((number, len(inside)))
        position += len(ids)
        if position >= start + count:
            break
    return tokens, pieces


def pieces_of(span):
    return list(zip(span.documents.tolist(), span.lengths.tolist(), strict=True))


@examples(60)
@given(
    sizes=st.lists(st.integers(1, 11), min_size=1, max_size=3),
    longest=st.sampled_from([0, 1, 9]),
    seed=st.integers(0, 5),
    data=st.data(),
)
def test_stream_is_the_naive_construction(tmp_path_factory, sizes, longest, seed, data):
    shards = [make_documents(n, seed=i, longest=longest) for i, n in enumerate(sizes)]
    source = write_source(tmp_path_factory.mktemp("s") / "s", *shards)
    stream = Stream(source, seed)
    for _ in range(5):
        start = data.draw(st.integers(0, 3 * source.tokens))
        count = data.draw(st.integers(1, 2 * source.tokens + 2))
        span = stream.read(start, count)
        tokens, pieces = naive_read(shards, seed, start, count)
        assert span.tokens.tolist() == tokens
        assert pieces_of(span) == pieces


def test_every_document_comes_once_per_epoch_and_epochs_differ(tmp_path):
    shards = [make_documents(n, seed=n) for n in (50, 31, 4)]
    documents = [ids for shard in shards for ids in shard]
    source = write_source(tmp_path / "s", *shards)
    stream = Stream(source, 0)
    orders = []
    for epoch in range(4):
        span = stream.read(epoch * source.tokens, source.tokens)
        orders.append(tuple(span.documents.tolist()))
        assert sorted(orders[-1]) == list(range(85))
        for number, part in zip(
            orders[-1], np.split(span.tokens, np.cumsum(span.lengths)[:-1]), strict=True
        ):
            np.testing.assert_array_equal(part, documents[number])
    assert len(set(orders)) == 4
    assert tuple(Stream(source, 1).read(0, source.tokens).documents.tolist()) not in orders


def test_a_document_is_found_where_the_stream_reads_it(tmp_path):
    shards = [make_documents(n, seed=n) for n in (23, 9)]
    documents = [ids for shard in shards for ids in shard]
    source = write_source(tmp_path / "s", *shards)
    stream = Stream(source, 3)
    for epoch in range(3):
        places = [stream.place(number, epoch) for number in range(32)]
        for number, place in enumerate(places):
            span = stream.read(place.start, len(place))
            np.testing.assert_array_equal(span.tokens, documents[number])
            assert span.documents.tolist() == [number]
        filled = sorted(token for place in places for token in place)
        assert filled == list(range(epoch * source.tokens, (epoch + 1) * source.tokens))


def test_offsets_say_where_in_its_document_a_piece_begins(tmp_path):
    documents = make_documents(40)
    source = write_source(tmp_path / "s", documents[:21], documents[21:])
    stream = Stream(source, 0)
    for start in range(0, 2 * source.tokens, 17):
        span = stream.read(start, 17)
        parts = np.split(span.tokens, np.cumsum(span.lengths)[:-1])
        for number, offset, part in zip(span.documents, span.offsets, parts, strict=True):
            np.testing.assert_array_equal(documents[number][offset : offset + len(part)], part)


def test_both_levels_are_shuffled(tmp_path):
    source = write_source(tmp_path / "s", make_documents(400))
    documents = Stream(source, 0).read(0, source.tokens).documents
    blocks = documents.reshape(100, 4) // 4
    assert (blocks == blocks[:, :1]).all()
    assert 20 < np.abs(blocks[:, 0] - np.arange(100)).mean() < 47
    assert len({tuple(block) for block in (documents % 4).reshape(100, 4).tolist()}) > 18


def test_a_single_short_document_is_a_new_piece_every_epoch(tmp_path):
    source = write_source(tmp_path / "s", [np.array([BOS, 7, EOS])])
    span = Stream(source, 0).read(1, 8)
    assert span.tokens.tolist() == [7, EOS, BOS, 7, EOS, BOS, 7, EOS]
    assert pieces_of(span) == [(0, 2), (0, 3), (0, 3)]


def test_empty_documents_are_kept(tmp_path):
    empty = np.array([BOS, EOS])
    source = write_source(tmp_path / "s", [empty] * 9)
    span = Stream(source, 0).read(0, 36)
    assert span.tokens.tolist() == [BOS, EOS] * 18
    assert Counter(span.documents.tolist()) == dict.fromkeys(range(9), 2)


def test_threads_read_what_one_reader_reads(tmp_path):
    source = write_source(tmp_path / "s", make_documents(200))
    places = (splitmix64(0, 300) % (5 * source.tokens)).tolist()
    alone = [Stream(source, 0).read(place, 100).tokens.tolist() for place in places]
    shared = Stream(source, 0)
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda place: shared.read(place, 100).tokens.tolist(), places))
    assert together == alone


def test_splitmix64_is_the_published_generator():
    # The first outputs for seed 1234567 that the Rosetta Code task states.
    assert splitmix64(1234567, 5).tolist() == [
        6457827717110365317,
        3203168211198807973,
        9817491932198370423,
        4593380528125082431,
        16408922859458223821,
    ]


def test_derived_seeds_never_change():
    """A run continues after an upgrade only if these stay what they are."""
    assert derive(0, "stream", "general") == 3388501565016159856
    assert permutation(10, 3388501565016159856).tolist() == [4, 9, 0, 2, 8, 7, 3, 1, 6, 5]


def test_derived_seeds_tell_paths_apart():
    paths = [(0,), (1,), (0, "a"), (0, "b"), (0, "a", "b"), (0, "ab"), (0, 1), (0, "1"), (0, 1, 1)]
    assert len({derive(*path) for path in paths}) == len(paths)
    assert all(0 <= derive(*path) < 1 << 64 for path in paths)


@given(count=st.integers(0, 300), seed=st.integers(0, 2**64 - 1))
def test_permutation_holds_every_number_once(count, seed):
    assert sorted(permutation(count, seed).tolist()) == list(range(count))


def test_permutations_are_uniform():
    draws = 24_000
    counts = Counter(tuple(permutation(4, derive(0, i)).tolist()) for i in range(draws))
    assert len(counts) == math.factorial(4)
    chi_squared = sum((n - draws / 24) ** 2 / (draws / 24) for n in counts.values())
    assert chi_squared < 49.7  # 0.1 % of truly uniform draws exceed it (23 degrees of freedom)
