"""Text to ids, and rows from a memory-mapped source."""

import hashlib
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from data.rows.seeds import splitmix64
from data.rows.shards import FORMAT_VERSION, ShardWriter, Source
from data.rows.sources import rows_of_run
from data.sample.corpus import documents
from experiments.benchmarks.harness.common import copy_rate, need
from experiments.benchmarks.harness.workloads import Rows, Tokenizing
from tokenizer.tokenizer import Tokenizer
from tokenizer.train import train_bpe

CPU = torch.device("cpu")
IDS = 32000
MEAN_TOKENS = 600
VOCAB_SIZE = 2048


def measure(work: Rows | Tokenizing, side: str) -> dict:
    """Million bytes of text, or tokens, per second."""
    with tempfile.TemporaryDirectory() as place:
        if isinstance(work, Rows):
            return _read_rows(work, Path(place))
        return _encode(work, side, Path(place))


def _read_rows(work: Rows, folder: Path) -> dict:
    _write_source(work, folder)
    rows = rows_of_run(Source(folder), "benchmark", 0, work.length)
    rows.row(0)
    start = time.perf_counter()
    for n in range(work.rows):
        row = rows.row(n)
        for part in (row.tokens, row.labels, row.segments, row.positions):
            torch.from_numpy(np.stack([part]))  # what a loader does with each
    rate = work.rows * work.length / (time.perf_counter() - start)
    copy = copy_rate(CPU, work.bandwidth_bytes)
    # A token is read in 2 bytes; it is written twice, as row and as batch, with label, segment and
    # position in 8 + 8 + 4 + 4, and read once between.
    return {
        "figures": {"tokens_per_second": rate},
        "ceilings": {"tokens_per_second": copy / (2 + 3 * 24)},
        "machine": {"copy_gb_per_second": copy / 1e9},
    }


def _write_source(work: Rows, folder: Path) -> None:
    """A source of random documents from 1 to twice the mean."""
    lengths = (splitmix64(0, work.documents) % np.uint64(2 * MEAN_TOKENS)).astype(np.int64) + 1
    writer = ShardWriter(folder, 0, np.dtype("<u2"))
    for some in np.array_split(lengths, -(-work.documents // 1024)):
        ids = (splitmix64(len(some), int(some.sum())) % np.uint64(IDS)).astype("<u2")
        writer.add(ids, some, some)
    manifest = {"format_version": FORMAT_VERSION, "dtype": "<u2", "tokenizer": {}}
    manifest["shards"] = [writer.close()]
    (folder / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")


def _encode(work: Tokenizing, side: str, folder: Path) -> dict:
    texts = list(documents("general_en", scale=work.scale))
    learnt = texts[: max(1, len(texts) // 4)]
    (folder / "trained.model").write_bytes(train_bpe(learnt, vocab_size=VOCAB_SIZE))
    encode = {"ours": _ours, "peer": _theirs}[side](folder)
    encode(texts[:10])
    seconds, ids = [], []
    for _ in range(work.times):
        start = time.perf_counter()
        ids = encode(texts)
        seconds.append(time.perf_counter() - start)
    size = sum(len(text.encode()) for text in texts)
    copy = copy_rate(CPU, work.bandwidth_bytes)
    return {
        "figures": {"mb_per_second": size / statistics.median(seconds) / 1e6},
        "ceilings": {"mb_per_second": copy / 2 / 1e6},
        "machine": {"copy_gb_per_second": copy / 1e9},
        "answers": [hashlib.sha256(json.dumps(ids).encode()).hexdigest()[:16]],
    }


Encode = Callable[[list[str]], list[list[int]]]


def _ours(folder: Path) -> Encode:
    tokenizer = Tokenizer.open(folder / "trained.model")
    return lambda texts: tokenizer.encode_batch(texts, threads=torch.get_num_threads())


def _theirs(folder: Path) -> Encode:
    need("tokenizers")
    import tokenizers

    exported = folder / "exported"
    exported.mkdir()
    Tokenizer.open(folder / "trained.model").save(exported)
    opened = tokenizers.Tokenizer.from_file(str(exported / "tokenizer.json"))

    def encode(texts: list[str]) -> list[list[int]]:
        return [x.ids for x in opened.encode_batch_fast(texts, add_special_tokens=False)]

    return encode
