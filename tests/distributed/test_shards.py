"""A source of fifty million documents, opened by a process of its own."""

import shutil
import time
from pathlib import Path

import numpy as np
import pytest

from data.rows.seeds import splitmix64
from data.rows.shards import (
    BLOCK_DOCUMENTS,
    Source,
)
from data.rows.stream import Stream
from tests.helpers.ranks import run_ranks
from tests.unit.data.rows.test_shards import write_manifest


def write_huge_source(folder, *, shards, documents_per_shard):
    """A source of sparse token files (all zeros) with documents of 2 to 1025 tokens."""
    folder.mkdir()
    entries = []
    for number in range(shards):
        lengths = 2 + (splitmix64(number, documents_per_shard) % 1024).astype("<i8")
        stops = np.cumsum(lengths)
        with (folder / f"shard-{number:05d}.index").open("wb") as file:
            of_blocks = np.append(stops[BLOCK_DOCUMENTS - 1 : -1 : BLOCK_DOCUMENTS], stops[-1])
            file.write(of_blocks.tobytes() + stops.tobytes())
            file.truncate(file.tell() + 4 * documents_per_shard)
        with (folder / f"shard-{number:05d}.tokens").open("wb") as file:
            file.truncate(2 * int(stops[-1]))
        entries.append(
            {
                "name": f"shard-{number:05d}",
                "documents": documents_per_shard,
                "tokens": int(stops[-1]),
                "sha256": {},
            }
        )
    write_manifest(folder, entries)


def anonymous_memory():
    """Bytes of this process that are no file's pages."""
    status = Path("/proc/self/status")
    if not status.exists():
        pytest.skip("needs /proc")
    (line,) = (line for line in status.read_text().splitlines() if line.startswith("RssAnon"))
    return int(line.split()[1]) * 1024


def open_and_read(_world, folder):
    """Seconds to open, seconds per random row, resident bytes; in a process without a past."""
    before, began = anonymous_memory(), time.perf_counter()
    source = Source(folder)
    stream = Stream(source, 0)
    stream.read(0, 1025)
    opened = time.perf_counter() - began
    places = splitmix64(0, 2000) % (source.tokens // 1024)
    began = time.perf_counter()
    for place in places.tolist():
        stream.read(place * 1024, 1025)
    return opened, (time.perf_counter() - began) / len(places), anonymous_memory() - before


@pytest.mark.slow
def test_fifty_million_documents_open_in_a_second_and_rows_in_a_millisecond(tmp_path):
    write_huge_source(tmp_path / "s", shards=50, documents_per_shard=1_000_000)
    documents = Source(tmp_path / "s").documents
    ((open_seconds, lookup_seconds, resident),) = run_ranks(open_and_read, 1, tmp_path / "s")
    shutil.rmtree(tmp_path / "s")
    assert documents == 50_000_000
    print(
        f"open {open_seconds:.3f} s, random row {lookup_seconds * 1e3:.3f} ms, resident "
        f"{resident / documents:.3f} bytes per document"
    )
    assert open_seconds < 1
    assert lookup_seconds < 1e-3
    assert resident < 16 * documents
