"""What has happened to a run folder, or to the machine, since the run was stopped is found out
before a step is computed; nothing in the folder has changed then."""

import json
import shutil

import pytest
import torch

from tests.helpers.runs import configure, metrics, tiny
from train import train
from training.run.folder import open_run_folder

RUN = ["+experiment=tspt_stage1", "curriculum.stages.adaptation.tokens=6144", "name=run"]


@pytest.fixture(scope="module")
def stopped(sample, tmp_path_factory):
    """A run of 12 steps with checkpoints of 4, 8 and 12, and its end still to do."""
    folder = tmp_path_factory.mktemp("stopped")
    train(configure(*RUN, *tiny(sample, folder)))
    shutil.rmtree(folder / "run" / "model")
    return folder / "run"


@pytest.fixture
def run(stopped, tmp_path):
    """A copy of it."""
    return shutil.copytree(stopped, tmp_path / "run")


def go_on(sample, run, *overrides):
    train(configure(*RUN, *tiny(sample, run.parent), *overrides))


def contents(folder):
    return {
        path.relative_to(folder): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def lose_checkpoints(run):
    shutil.rmtree(run / "checkpoints")


def replace_checkpoints_by_a_file(run):
    shutil.rmtree(run / "checkpoints")
    (run / "checkpoints").mkdir()
    (run / "checkpoints" / "step-00000012").write_text("")


def break_config(run):
    (run / "config.yaml").write_text("{")


def empty_config(run):
    (run / "config.yaml").write_text("")


def empty_environment(run):
    (run / "environment.json").write_text('{"data_fingerprints": null}')


def number_as_text(run):
    log = run / "metrics.jsonl"
    log.write_text(log.read_text().replace('"step": 2,', '"step": "2",'))


DAMAGE = {
    lose_checkpoints: r"holds no checkpoint, but had some \(its log reaches step 12, with a "
    r"checkpoint every 4 steps\); bring them back",
    replace_checkpoints_by_a_file: "holds no checkpoint, but had some",
    break_config: "config.yaml is damaged; restore it",
    empty_config: "config.yaml is damaged; restore it",
    empty_environment: "environment.json is damaged, it names no data_fingerprints",
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_folder_is_refused_and_left_alone(sample, run, damage):
    damage(run)
    before = contents(run)
    with pytest.raises(ValueError, match=DAMAGE[damage]):
        go_on(sample, run)
    assert contents(run) == before


def test_a_row_without_a_number_is_refused(sample, run):
    number_as_text(run)
    before = (run / "metrics.jsonl").read_bytes()
    with pytest.raises(ValueError, match=r"metrics.jsonl: line \d+ is not a valid log record"):
        go_on(sample, run)
    assert (run / "metrics.jsonl").read_bytes() == before


def test_a_checkpoint_under_another_step_is_refused(sample, run):
    (run / "checkpoints" / "step-00000012").rename(run / "checkpoints" / "step-00000099")
    with pytest.raises(ValueError, match="step-00000099 holds the state of step 12; give it its"):
        go_on(sample, run)


def test_auto_may_not_come_to_mean_another_precision(sample, run, monkeypatch):
    """As on a machine whose device computes in bfloat16; asked for by name, it is the same."""
    before = contents(run)
    with pytest.raises(ValueError, match="was computed in float32, and would resume in bfloat16"):
        go_on(sample, run, "parallel.dtype=bfloat16")
    monkeypatch.setattr("conf.build.compute_dtype", lambda *_: torch.bfloat16)
    with pytest.raises(ValueError, match=r"set parallel\.dtype=float32, or another name"):
        go_on(sample, run)
    assert contents(run) == before
    monkeypatch.undo()
    go_on(sample, run, "parallel.dtype=float32")  # what auto has meant
    assert (run / "model").is_dir()


def test_what_the_log_has_lost_is_said(sample, run, capsys):
    rows = metrics(run)
    assert [row["step"] for row in rows if "loss_nats" in row] == list(range(1, 13))
    kept = [row for row in rows if row["step"] not in (3, 7)]
    (run / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in kept))
    go_on(sample, run)
    said = "metrics.jsonl: steps 3, 7: not in the log, where logging.every promises them"
    assert said in capsys.readouterr().out


def test_the_lock_names_its_holder(run):
    class Alone:
        def run_on_rank0(self, work):
            work()

    with (
        open_run_folder(run, Alone()),
        pytest.raises(ValueError, match=r"working in this folder \(process \d+ on \S+\)"),
        open_run_folder(run, Alone()),
    ):
        pass
    with open_run_folder(run, Alone()):
        assert (run / ".lock").read_text().count("process") == 1
