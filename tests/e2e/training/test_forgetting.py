"""A run that starts from a model measures from that model."""

import pytest

from tests.helpers.runs import configure, evaluations, tiny
from train import train
from training.run.forgetting import DELTA


def test_the_start_of_a_run_with_init_from_is_that_model(sample, finished, tmp_path):
    more = ("name=next", f"init_from={finished}", "curriculum.stages.adaptation.tokens=512")
    config = configure("+experiment=tspt_stage1", *tiny(sample, tmp_path, *more))
    train(config)
    rows, before = evaluations(config.folder), evaluations(finished)[10]
    for name, result in rows[0].items():
        assert result["bits_per_byte"] == pytest.approx(before[name]["bits_per_byte"], rel=1e-5)
        assert result[DELTA] == 0.0
        assert rows[1][name][DELTA] == rows[1][name]["bits_per_byte"] - result["bits_per_byte"]
