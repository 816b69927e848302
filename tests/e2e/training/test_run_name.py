"""A run of the old naming is continued by the same command."""

import shutil
from dataclasses import asdict

from omegaconf import OmegaConf

from tests.helpers.runs import configure, starts, tiny
from tests.unit.conf.test_run_name import config  # noqa: F401 fixture
from train import train


def test_the_same_command_continues_a_run_of_the_old_naming(sample, tmp_path):
    arguments = ["+experiment=tspt_stage1", "curriculum.stages.adaptation.tokens=1024"]
    config = configure(*tiny(sample, tmp_path, "checkpoint.every=1", *arguments))
    train(config)
    folder = tmp_path / "tspt_stage1-deadbeef"
    config.folder.rename(folder)
    shutil.rmtree(folder / "model")
    shutil.rmtree(folder / "checkpoints" / "step-00000002")
    before = OmegaConf.load(folder / "config.yaml")
    train(config)
    assert starts(folder) == [0, 1]
    assert [path.name for path in tmp_path.iterdir()] == [folder.name]
    assert (folder / "model").is_dir()
    after = OmegaConf.load(folder / "config.yaml")
    assert after.pop("name") == folder.name
    assert before.pop("name") is None
    assert after == before
    assert asdict(config)["name"] is None
