"""What must be the same, and what may differ, for a run that was begun to go on."""

import json
import os
import shutil
from pathlib import Path

import pytest

from tests.helpers.runs import configure, losses, tiny
from train import train

RUN = ["+experiment=tspt_stage1", "curriculum.stages.adaptation.tokens=4096", "name=run"]


@pytest.fixture(scope="module")
def begun(sample, tmp_path_factory):
    """A folder with data and a run that has all of its checkpoints, and its end still to do."""
    folder = tmp_path_factory.mktemp("begun")
    shutil.copytree(sample, folder / "sample")
    train(configure(*RUN, *tiny(folder / "sample", folder)))
    shutil.rmtree(folder / "run" / "model")
    return folder


@pytest.fixture
def place(begun, tmp_path):
    """All of it elsewhere; `go_on` continues the run there."""
    shutil.copytree(begun, tmp_path, dirs_exist_ok=True)
    return tmp_path


def go_on(place, *overrides):
    train(configure(*RUN, *tiny(place / "sample", place), *overrides))


def test_data_may_be_moved_if_it_stays_what_it_is(place, begun, capsys):
    before = configure(*RUN, *tiny(begun / "sample", place))
    after = configure(*RUN, *tiny(place / "sample", place))
    assert before.data.root != after.data.root
    assert before.digest != after.digest  # a run without a name is another one
    logged = losses(place / "run")
    train(after)
    assert "continuing after step 8" in capsys.readouterr().out
    assert (place / "run" / "model").is_dir()
    assert losses(place / "run") == logged
    assert str(place / "sample") in (place / "run" / "config.yaml").read_text()


def test_a_checkpoint_gets_its_name_when_the_log_up_to_its_step_is_on_disk(place, monkeypatch):
    """Or a loss of power leaves a run that goes on after steps which its log does not have."""
    log, newest = place / "run" / "metrics.jsonl", place / "run" / "checkpoints" / "step-00000008"
    fsync, rename, forced, at_the_name = os.fsync, Path.rename, [], []

    def recorded_fsync(descriptor):
        fsync(descriptor)
        if Path(f"/proc/self/fd/{descriptor}").readlink() == log:
            forced.append(log.read_text())

    def recorded_rename(path, target):
        if target == newest:
            at_the_name.extend(forced)
        return rename(path, target)

    shutil.rmtree(newest)
    monkeypatch.setattr(os, "fsync", recorded_fsync)
    monkeypatch.setattr(Path, "rename", recorded_rename)
    go_on(place, "checkpoint.asynchronous=false")
    assert newest.is_dir()
    assert at_the_name, "the log was not forced to disk before"
    rows = [json.loads(line) for line in at_the_name[-1].splitlines()]
    assert [row["step"] for row in rows if "loss_nats" in row] == list(range(1, 9))
    assert [row["step"] for row in rows if "eval" in row] == [0, 5, 8]
    assert at_the_name[-1] == log.read_text()


def test_other_data_at_the_new_place_is_refused(place):
    shutil.rmtree(place / "sample" / "geo_zh")
    shutil.copytree(place / "sample" / "geo_en", place / "sample" / "geo_zh")
    with pytest.raises(ValueError, match=r"^data\.sources geo_zh, geo_zh/held_out changed since"):
        go_on(place)


def test_held_out_text_that_changed_is_refused(place):
    path = place / "sample" / "geo_en" / "held_out.jsonl"
    text, environment = path.read_bytes(), place / "run" / "environment.json"
    before = environment.read_bytes()
    path.write_bytes(text + text.splitlines(keepends=True)[0])
    with pytest.raises(ValueError, match=r"^data\.sources geo_en/held_out changed since .*/run "):
        go_on(place)
    assert environment.read_bytes() == before
    path.unlink()
    with pytest.raises(ValueError, match=r"geo_en/held_out\.jsonl: missing; restore it"):
        go_on(place)
    path.write_bytes(text)
    go_on(place)


def test_a_run_begun_without_a_record_of_the_held_out_text_goes_on_and_gets_one(place):
    environment = place / "run" / "environment.json"
    content = json.loads(environment.read_text())
    recorded = content["data_fingerprints"]
    content["data_fingerprints"] = {k: v for k, v in recorded.items() if "/" not in k}
    assert len(content["data_fingerprints"]) == len(recorded) // 2
    environment.write_text(json.dumps(content))
    go_on(place)
    assert json.loads(environment.read_text())["data_fingerprints"] == recorded


@pytest.mark.parametrize(
    "names", [["config.yaml"], ["environment.json"], ["config.yaml", "environment.json"]]
)
def test_checkpoints_of_which_nothing_tells_the_run_are_refused(place, names):
    for name in names:
        (place / "run" / name).unlink()
    missing = " and no ".join(names)
    with pytest.raises(
        ValueError, match=rf"checkpoints up to step 8 but no {missing}, so their origin"
    ):
        go_on(place)
    assert not any((place / "run" / name).exists() for name in names)
    shutil.rmtree(place / "run" / "checkpoints")  # nothing of another run can be taken for ours
    go_on(place)


def test_an_environment_that_is_damaged_is_refused(place):
    (place / "run" / "environment.json").write_text("{}")
    with pytest.raises(ValueError, match=r"environment\.json is damaged, .*; restore it, or set"):
        go_on(place)
