import json

import numpy as np
import pytest

from data.rows.shards import (
    FORMAT_VERSION,
    ShardWriter,
    Source,
    fingerprint_of,
    token_dtype,
)
from storage.checksum import sha256_of

BOS, EOS = 1, 2


def make_documents(count, *, seed=0, vocab_size=1000, longest=20):
    """Documents BOS + ids + EOS of random lengths; some are BOS EOS only."""
    generator = np.random.default_rng(seed)
    lengths = generator.integers(0, longest + 1, count)
    return [np.array([BOS, *generator.integers(3, vocab_size, length), EOS]) for length in lengths]


def add(writer, documents):
    if documents:
        lengths = np.array([len(ids) for ids in documents])
        writer.add(np.concatenate(documents), lengths, lengths * 4)


def write_manifest(folder, entries, *, vocab_size=1000, tokenizer="t"):
    manifest = {
        "format_version": FORMAT_VERSION,
        "name": folder.name,
        "dtype": token_dtype(vocab_size).str,
        "tokenizer": {
            "fingerprint": tokenizer,
            "vocab_size": vocab_size,
            "bos_id": BOS,
            "eos_id": EOS,
        },
        "shards": entries,
    }
    (folder / "manifest.json").write_text(json.dumps(manifest))


def write_source(folder, *shards, vocab_size=1000, tokenizer="t"):
    """A prepared source with one shard per list of documents."""
    folder.mkdir(exist_ok=True)
    entries = []
    for number, documents in enumerate(shards):
        writer = ShardWriter(folder, number, token_dtype(vocab_size))
        add(writer, documents)
        entries.append(writer.close())
    write_manifest(folder, entries, vocab_size=vocab_size, tokenizer=tokenizer)
    return Source(folder)


@pytest.mark.parametrize("sizes", [[1], [7], [8], [9], [8, 8], [1, 17, 3, 16]])
def test_documents_come_back_as_written(tmp_path, monkeypatch, sizes):
    monkeypatch.setattr("data.rows.shards.BLOCK_DOCUMENTS", 8)
    shards = [make_documents(size, seed=size) for size in sizes]
    source = write_source(tmp_path / "s", *shards)
    documents = [ids for shard in shards for ids in shard]
    assert source.documents == len(documents)
    assert source.tokens == source.block_tokens.sum() == sum(map(len, documents))
    for number, ids in enumerate(documents):
        np.testing.assert_array_equal(source.document(number), ids)
    assert [int(n) for n in source.block_documents] == [
        sum(sizes[:shard]) + first
        for shard, size in enumerate(sizes)
        for first in range(0, size, 8)
    ]
    for block, first in enumerate(source.block_documents):
        tokens, stops = source.block(block)
        assert len(tokens) == stops[-1] == source.block_tokens[block]
        np.testing.assert_array_equal(tokens[: stops[0]], documents[first])


@pytest.mark.parametrize(("vocab_size", "bytes_per_token"), [(1 << 16, 2), ((1 << 16) + 1, 4)])
def test_every_id_fits(tmp_path, vocab_size, bytes_per_token):
    ids = np.array([BOS, vocab_size - 1, 0, EOS])
    source = write_source(tmp_path / "s", [ids], vocab_size=vocab_size)
    np.testing.assert_array_equal(source.document(0), ids)
    assert (tmp_path / "s/shard-00000.tokens").stat().st_size == 4 * bytes_per_token


def test_an_interrupted_shard_equals_an_uninterrupted_one(tmp_path):
    documents = make_documents(30)
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    write_source(whole, documents)
    parts.mkdir()
    writer = ShardWriter(parts, 0, token_dtype(1000))
    add(writer, documents[:10])
    writer.flush()
    acknowledged = writer.documents, writer.tokens
    add(writer, make_documents(5, seed=1))
    writer.close()
    writer = ShardWriter(parts, 0, token_dtype(1000), resume_at=acknowledged)
    add(writer, documents[10:])
    entry = writer.close()
    again = ShardWriter(parts, 0, token_dtype(1000), resume_at=(writer.documents, writer.tokens))
    assert again.close() == entry
    assert entry == json.loads((whole / "manifest.json").read_text())["shards"][0]
    assert entry["documents"] == 30
    assert entry["utf8_bytes"] == 4 * entry["tokens"]
    for name, digest in entry["sha256"].items():
        assert sha256_of(parts / name) == digest
        assert (parts / name).read_bytes() == (whole / name).read_bytes()


def test_resume_refuses_files_that_lost_acknowledged_documents(tmp_path):
    writer = ShardWriter(tmp_path, 0, token_dtype(1000))
    add(writer, make_documents(3))
    writer.close()
    with pytest.raises(ValueError, match=r"shard-00000\.tokens: \d+ bytes, but \d+ were written"):
        ShardWriter(tmp_path, 0, token_dtype(1000), resume_at=(3, writer.tokens + 1))


def test_further_shards_leave_numbers_and_documents_alone(tmp_path):
    old, new = make_documents(30), make_documents(20, seed=1)
    before = write_source(tmp_path / "s", old)
    writer = ShardWriter(tmp_path / "s", 1, token_dtype(1000))
    add(writer, new)
    write_manifest(tmp_path / "s", [*before.manifest["shards"], writer.close()])
    after = Source(tmp_path / "s")
    for number, ids in enumerate(old + new):
        np.testing.assert_array_equal(after.document(number), ids)
    assert after.fingerprint != before.fingerprint


def test_a_shard_without_documents_is_skipped(tmp_path):
    documents = make_documents(3)
    source = write_source(tmp_path / "s", [], documents[:1], [], documents[1:])
    assert source.documents == 3
    for number, ids in enumerate(documents):
        np.testing.assert_array_equal(source.document(number), ids)


def test_fingerprint_follows_tokens_and_tokenizer_but_not_the_name(tmp_path):
    documents = make_documents(3)
    first = write_source(tmp_path / "a", documents)
    assert write_source(tmp_path / "b", documents).fingerprint == first.fingerprint
    assert write_source(tmp_path / "c", documents[::-1]).fingerprint != first.fingerprint
    assert write_source(tmp_path / "d", documents, tokenizer="u").fingerprint != first.fingerprint
    assert fingerprint_of(first.manifest) == first.fingerprint


def test_held_out_texts_are_read_in_order(tmp_path):
    source = write_source(tmp_path / "s", make_documents(1))
    texts = ["one", "two\nlines \u2028 and 石", ""]
    lines = [json.dumps({"text": text}, ensure_ascii=False) + "\n" for text in texts]
    (tmp_path / "s/held_out.jsonl").write_text("".join(lines), encoding="utf-8")
    assert list(source.held_out()) == texts


def test_what_is_not_a_finished_source_is_refused(tmp_path):
    folder = tmp_path / "s"
    with pytest.raises(ValueError, match="not a prepared source"):
        Source(folder)
    with pytest.raises(ValueError, match="no training documents"):
        write_source(folder)
    with pytest.raises(ValueError, match="no training documents"):
        write_source(folder, [])
    write_source(folder, make_documents(3))
    tokens, index = folder / "shard-00000.tokens", folder / "shard-00000.index"
    for path in (tokens, index):
        content = path.read_bytes()
        path.write_bytes(content[:-1])
        with pytest.raises(ValueError, match=rf"{path.name}: \d+ bytes, but the manifest records"):
            Source(folder)
        path.unlink()
        with pytest.raises(ValueError, match=f"{path.name}: missing"):
            Source(folder)
        path.write_bytes(content)
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["format_version"] = FORMAT_VERSION + 1
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(ValueError, match="format_version 2, this code reads 1"):
        Source(folder)
