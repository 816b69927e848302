"""Runs with wandb, the profiler and compiled blocks."""

import json

import pytest

from tests.helpers.runs import execute, losses, tiny


def test_wandb_offline_and_the_profiler_behind_their_flags(sample, tmp_path):
    size = "curriculum.stages.adaptation.tokens=4096"
    flags = ["logging.wandb=offline", "logging.profile=true", "name=run"]
    result = execute("+experiment=tspt_stage1", size, *flags, *tiny(sample, tmp_path))
    assert result.returncode == 0, result.stderr
    assert list((tmp_path / "run" / "wandb").glob("offline-run-*"))
    trace = json.loads((tmp_path / "run" / "profile" / "rank-0.json").read_text())
    assert any("banded_attention" in event.get("name", "") for event in trace["traceEvents"])


@pytest.mark.slow
def test_compiled_and_checkpointed_blocks_learn_the_same(sample, tmp_path):
    size = "curriculum.stages.adaptation.tokens=2048"
    arguments = ["+experiment=tspt_stage1", size, *tiny(sample, tmp_path)]
    assert execute(*arguments, "name=plain").returncode == 0
    expected = losses(tmp_path / "plain")
    flags = ["parallel.compile=true", "parallel.checkpointing=selective", "name=compiled"]
    result = execute(*arguments, *flags)
    assert result.returncode == 0, result.stderr
    for step, values in losses(tmp_path / "compiled").items():
        assert values == pytest.approx(expected[step], rel=1e-4)
