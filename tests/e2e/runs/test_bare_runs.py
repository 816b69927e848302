"""Runs in bare surroundings: nothing held out, a sample on a read-only disk or moved elsewhere."""

import json
import shutil
import warnings

import pytest

from conf.suggest import CONF
from data.prepare.documents import PrepareConfig, prepare
from data.sample import build
from data.sample.build import build_sample
from tests.helpers.runs import configure, metrics, tiny
from tests.helpers.sizes import SAMPLE_SCALE
from storage import lock
from train import train
from training.run.plots import plot_forgetting, plot_run

NAMES = ("general_en", "general_zh", "geo_en", "geo_zh")


@pytest.fixture
def nothing_held_out(sample, tmp_path):
    """Four sources of a few documents, none of which holds anything out."""
    for number, name in enumerate(NAMES):
        texts = tmp_path / f"{name}.jsonl"
        lines = [json.dumps({"text": f"Sample {number} of loess, bed {n}. " * 9}) for n in range(9)]
        texts.write_text("\n".join(lines))
        settings = {"name": name, "inputs": [str(texts)], "out": str(tmp_path / "data" / name)}
        tokenizer = str(sample / "tokenizer")
        prepare(
            PrepareConfig(**settings, tokenizer=tokenizer, held_out_fraction=0.0, workers=1),
            progress=False,
        )
    return tmp_path / "data"


@pytest.mark.parametrize("steps", [1, 3])
def test_without_held_out_text_there_is_no_empty_line_and_no_empty_plot(
    sample, nothing_held_out, tmp_path, capsys, steps
):
    arguments = ["data=bilingual", f"curriculum.stages.adaptation.tokens={512 * steps}"]
    arguments += ["data.vocab_size=2048", "+experiment=tspt_stage1", "name=run"]
    places = ["data.sample_scale=null", f"data.root={nothing_held_out}"]
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        train(configure(*tiny(sample, tmp_path), *arguments, *places))
    assert [str(one.message) for one in said if "legend" in str(one.message)] == []
    printed = capsys.readouterr().out
    assert "bits per byte" not in printed
    for name in NAMES:
        assert printed.count(f"source {name} has no held-out text and is not evaluated") == 1
    run = tmp_path / "run"
    assert (run / "loss.png").is_file()
    assert not (run / "forgetting.png").exists()
    assert all("eval" not in row for row in metrics(run))
    assert max(row["step"] for row in metrics(run)) == steps


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


def test_one_override_moves_the_sample(sample, tmp_path):
    root = shutil.copytree(sample, tmp_path / "moved")
    steps = ["+experiment=tspt_stage1", "curriculum.stages.adaptation.tokens=512", "name=run"]
    places = ("data.root=", "data.tokenizer=")
    others = [x for x in tiny(sample, tmp_path, *steps) if not x.startswith(places)]
    config = configure(*others, f"data.root={root}")
    assert config.data.tokenizer == str(root / "tokenizer")
    train(config)
    assert (tmp_path / "run" / "model" / "tokenizer.model").is_file()


def test_no_data_set_names_a_tokenizer_outside_of_its_root():
    for path in (CONF / "data").glob("*.yaml"):
        (line,) = (x for x in path.read_text().splitlines() if x.startswith("tokenizer:"))
        assert line in ("tokenizer: ${.root}/tokenizer", "tokenizer: ???"), path
