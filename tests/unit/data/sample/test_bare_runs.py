"""Samples on a read-only disk, moved elsewhere, or incomplete."""

import json
import shutil
import warnings

import pytest

from conf.suggest import CONF
from data.sample import build
from data.sample.build import build_sample
from storage import lock
from tests.helpers.runs import configure
from tests.helpers.sizes import SAMPLE_SCALE
from training.run.plots import plot_forgetting, plot_run

ROWS = {
    "step": {"step": 1, "stage": "a", "tokens": 8, "loss_nats": 3.0},
    "evaluation": {"step": 0, "stage": "a", "eval": {"x": {"bits_per_byte": 2.0}}},
    "evaluation of nothing": {"step": 0, "stage": "a", "eval": {}},  # of an earlier version
}


@pytest.mark.parametrize(
    ("names", "loss", "forgetting"),
    [
        ([], False, False),
        (["evaluation of nothing"], False, False),
        (["evaluation of nothing", "step"], True, False),
        (["step"], True, False),
        (["evaluation"], True, False),
        (["evaluation", "step"], True, True),
    ],
)
def test_only_what_was_logged_is_drawn(tmp_path, names, loss, forgetting):
    log = tmp_path / "metrics.jsonl"
    log.write_text("".join(json.dumps(ROWS[name]) + "\n" for name in names))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        plot_run(log, tmp_path / "loss.png")
        plot_forgetting(log, tmp_path / "forgetting.png")
    assert (tmp_path / "loss.png").exists() == loss
    assert (tmp_path / "forgetting.png").exists() == forgetting


def state(folder):
    """Names and times of everything in a folder: the folder's own time shows new names."""
    return {path: path.stat().st_mtime_ns for path in [folder, *folder.rglob("*")]}


def test_a_complete_sample_is_not_written_to(sample, tmp_path, monkeypatch):
    root = shutil.copytree(sample, tmp_path / "sample")
    (root / ".lock").unlink()
    before = state(root)
    monkeypatch.setattr(lock.fcntl, "flock", lambda *_: pytest.fail("a lock was taken"))
    build_sample(root, scale=SAMPLE_SCALE)
    assert state(root) == before
    with pytest.raises(ValueError, match="describes another sample"):
        build_sample(root, scale=2 * SAMPLE_SCALE)
    assert state(root) == before


@pytest.mark.parametrize("lost", ["sample.json", "geo_en/manifest.json", "apart"])
def test_an_incomplete_sample_is_completed_under_the_lock(sample, tmp_path, monkeypatch, lost):
    root = shutil.copytree(sample, tmp_path / "sample")
    if lost == "apart":  # of an earlier version, whose sources nobody has compared
        for name in build.SOURCES:
            path = root / name / "manifest.json"
            manifest = json.loads(path.read_text())
            manifest["avoid"] = []
            path.write_text(json.dumps(manifest))
    else:
        (root / lost).unlink()
        if "/" in lost:
            shutil.rmtree((root / lost).parent)
    taken = []
    flock = lock.fcntl.flock
    monkeypatch.setattr(lock.fcntl, "flock", lambda *all: (taken.append(1), flock(*all)))
    build_sample(root, scale=SAMPLE_SCALE)
    assert taken
    taken.clear()
    build_sample(root, scale=SAMPLE_SCALE)
    assert not taken


@pytest.mark.parametrize("data", ["sample", "sample_chat"])
def test_the_sample_moves_with_its_tokenizer(data):
    moved = configure(f"data={data}", "data.root='/mnt/disk 2/样本'")
    assert moved.data.tokenizer == "/mnt/disk 2/样本/tokenizer"
    assert configure(f"data={data}").data.tokenizer == "prepared/sample/tokenizer"
    apart = configure(f"data={data}", "data.root=here", "data.tokenizer=there")
    assert (apart.data.root, apart.data.tokenizer) == ("here", "there")


def test_no_data_set_names_a_tokenizer_outside_of_its_root():
    for path in (CONF / "data").glob("*.yaml"):
        (line,) = (x for x in path.read_text().splitlines() if x.startswith("tokenizer:"))
        assert line in ("tokenizer: ${.root}/tokenizer", "tokenizer: ???"), path
