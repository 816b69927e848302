"""A resumed run rounds moments as the uninterrupted run does."""

import shutil

import pytest

from tests.helpers.kills import run_training
from tests.helpers.runs import losses, tiny


@pytest.mark.parametrize("ranks", [1, 2])
def test_a_resumed_run_rounds_as_the_straight_one(sample, tmp_path, ranks):
    arguments = [
        *tiny(sample, tmp_path),
        "+experiment=tspt_stage1",
        "curriculum.stages.adaptation.tokens=3072",  # 6 steps
        "batch.micro_batch_rows=2",
        "evaluation.max_bytes=500",
        "checkpoint.every=3",
        "optim.moment_dtype=bfloat16",
        "name=run",
    ]
    run, straight = tmp_path / "run", tmp_path / "straight"
    assert run_training(arguments, ranks) == 0
    shutil.copytree(run, straight)
    shutil.rmtree(run / "model")
    shutil.rmtree(run / "checkpoints" / "step-00000006")
    assert run_training(arguments, ranks) == 0
    assert losses(run) == losses(straight)
    assert len(losses(run)) == 6
    left, right = (folder / "model" / "model.safetensors" for folder in (run, straight))
    assert left.read_bytes() == right.read_bytes()
