"""What a trace says is what the loader reads, in both directions."""

import json
import re
import shutil
import time
from collections import defaultdict

import numpy as np
import pytest

from conf.schema import load_run
from data.rows.curriculum import Curriculum
from data.rows.curriculum_config import REPLAY, CurriculumConfig, Replay, Stage
from data.rows.loader import Loader
from data.rows.shards import Source
from data.rows.stream import stream_of_run
from data.rows.trace import Trace, TraceConfig
from scripts.trace import trace
from tests.unit.data.rows.test_curriculum import make_plan, stage
from tests.unit.data.rows.test_shards import make_documents, write_source


@pytest.fixture
def sources(tmp_path, monkeypatch):
    monkeypatch.setattr("data.rows.shards.BLOCK_DOCUMENTS", 4)
    return {
        name: write_source(tmp_path / name, make_documents(count, seed=count, longest=40))
        for name, count in (("web", 30), ("geo", 12))
    }


def stages():
    replay = Replay(of="general", share=0.4)
    return {
        "general": stage(9, {"web": 0.8, "geo": 0.2}),
        "domain": stage(40, {"geo": 0.9, "web": 0.1}, replay=replay),
    }


@pytest.mark.parametrize("run", [[], ["domain"]])
def test_pieces_are_the_rows_that_the_loader_reads(sources, run):
    plan = make_plan(stages(), run)
    lookup = Trace(plan, sources, seed=7)
    with Loader(plan, sources, micro_batch_rows=4, rank=0, world_size=1, seed=7) as loader:
        for n in range(plan.rows):
            row, pieces = loader.row(n), lookup.pieces(n)
            assert [piece.document for piece in pieces] == row.documents.tolist()
            np.testing.assert_array_equal(np.concatenate([p.tokens for p in pieces]), row.tokens)
            source = sources[plan.row(n).source]
            for piece in pieces:
                whole = source.document(piece.document)
                assert piece.length == len(whole)
                np.testing.assert_array_equal(whole[piece.start : piece.stop], piece.tokens)


@pytest.mark.parametrize("run", [[], ["domain"]])
def test_a_document_is_traced_to_every_row_that_holds_a_token_of_it(sources, run):
    plan = make_plan(stages(), run)
    lookup = Trace(plan, sources, seed=7)
    expected = defaultdict(set)
    for n in range(plan.rows):
        address = plan.row(n)
        for piece in lookup.pieces(n):
            seen = (n, address.stage, address.counted_as == REPLAY)
            expected[address.source, piece.document].add(seen)
    epochs = 0
    for source, opened in sources.items():
        for number in range(opened.documents):
            found = set()
            for passage in lookup.passages(source, number):
                epochs = max(epochs, passage.epoch + 1)
                for reading in passage.readings:
                    for n in reading.rows.tolist():
                        assert plan.row(n).index in passage.rows
                        found.add((n, reading.stage.name, reading.replayed))
            assert found == expected[source, number]
    assert epochs >= 3


def test_a_document_of_a_long_run_is_found_in_seconds(sources):
    weights = {"web": 0.7, "geo": 0.3}
    curriculum = CurriculumConfig(
        stages={
            "general": Stage(tokens=650_000 * 16, weights=weights),
            "domain": Stage(
                tokens=250_000 * 16, weights=weights, replay=Replay(of="general", share=0.18)
            ),
        }
    )
    plan = Curriculum(curriculum, row_length=16, rows_per_step=100, seed=0)
    assert plan.rows == 900_000
    begun = time.process_time()
    passages = Trace(plan, sources, seed=0).passages("web", 3)
    first = next(passages)
    seconds = time.process_time() - begun
    print(f"{seconds:.2f} s")
    assert first.readings
    assert seconds < 10  # 0.2 on two slow cores


def printed(capsys, run, **asked):
    capsys.readouterr()
    trace(TraceConfig(run=str(run), **asked))
    return capsys.readouterr().out


def test_a_step_is_printed_with_its_rows_losses_and_text(finished, capsys):
    lines = (finished / "metrics.jsonl").read_text().splitlines()
    (record,) = [row for row in map(json.loads, lines) if row["step"] == 9 and "rows" in row]
    out = printed(capsys, finished, step=9)
    assert out.startswith("step 9 of 10, stage specialization, loss ")
    for row, loss in record["rows"]:
        assert f"\nrow {row}: " in out
        assert f"loss {loss:.4f}" in out
    assert out.count(", replayed from stage adaptation") == out.count(" of general_") + out.count(
        " of arithmetic"
    )
    assert ", replayed from stage adaptation" in out
    one = printed(capsys, finished, row=record["rows"][3][0])
    assert one.split("\n\n")[1].strip() in out


def test_full_text_of_a_row_holds_everything(finished, capsys, sample):
    paths = (sample / "corpus").glob("*.jsonl")
    lines = (line for path in paths for line in path.read_text().splitlines())
    corpus = [json.loads(line)["text"] for line in lines]
    out = printed(capsys, finished, step=3, full=True)
    begun = re.findall(r"\n    \[BOS\](.*?)\[(?:cut|EOS)\]\n", out, re.DOTALL)
    assert begun
    for start in begun:  # a character whose bytes a border parts has no text
        assert any(text.startswith(start.rstrip("\ufffd")) for text in corpus)


def test_a_document_is_printed_with_the_steps_that_read_it(finished, capsys):
    out = printed(capsys, finished, step=10)
    row, name = re.findall(r"\nrow (\d+): row \d+ of \S+, 64 tokens.*\n  (geo_\S+) ", out)[-1]
    found = printed(capsys, finished, document=name)
    assert found.startswith(name)
    (line,) = [line for line in found.splitlines() if line.startswith("  step 10, specialization:")]
    assert row in line.split(": rows ")[1].split(", ")
    # This run ends before the last document of the first epoch.
    config = load_run(finished)
    source = Source(f"{config.data.root}/geo_en")
    last = int(stream_of_run(source, "geo_en", config.seed).read(source.tokens - 1, 1).documents[0])
    assert "not reached by the end of this run: " in printed(
        capsys, finished, document=f"geo_en:{last}"
    )


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"step": 0}, "step=0: must be at least 1"),
        ({"step": 11}, "step=11: this run has steps 1 to 10"),
        ({"row": 80}, "row=80: this run has rows 0 to 79"),
        ({"row": -1}, "row=-1: must be at least 0"),
        ({"document": "geo_en"}, "document='geo_en': give source:number"),
        ({"document": "geo_en:-1"}, "document='geo_en:-1': give source:number"),
        ({"document": "web:1"}, r"no source 'web'; this run reads general_en, .*geo_zh"),
        ({"document": "geo_en:99999"}, r"document=geo_en:99999: geo_en has documents 0 to \d+"),
        ({}, "nothing to look up: give exactly one"),
        ({"step": 1, "row": 0}, "step=1, row=0: give exactly one"),
    ],
)
def test_what_is_not_there_is_refused(finished, asked, message):
    with pytest.raises(ValueError, match=message):
        trace(TraceConfig(run=str(finished), **asked))


def test_other_data_than_the_run_read_is_refused(sample, finished, tmp_path):
    root, moved = tmp_path / "sample", tmp_path / "moved"
    shutil.copytree(sample, root)
    shutil.copytree(finished, moved)
    config = moved / "config.yaml"
    config.write_text(config.read_text().replace(str(sample), str(root)))
    trace(TraceConfig(run=str(moved), step=1))
    shutil.rmtree(root / "geo_en")
    shutil.copytree(root / "general_en", root / "geo_en")
    with pytest.raises(ValueError, match=r"data\.sources geo_en changed since"):
        trace(TraceConfig(run=str(moved), step=1))


def test_a_folder_that_is_no_run_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"run=.*no config\.yaml; name the folder of a run"):
        trace(TraceConfig(run=str(tmp_path), step=1))
