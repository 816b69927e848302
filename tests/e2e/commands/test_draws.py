"""Property tests with other inputs, and messages that do not depend on the process."""

import subprocess
import sys
from dataclasses import asdict

import pytest

from tests.helpers.draws import EXPLORE
from tests.helpers.toy import ROOT, run_without_hook, toy_config


def print_refusals():
    from model.config import ModelConfig

    wrong = dict.fromkeys(("vocab_size", "hidden_size", "num_hidden_layers", "head_dim"), "many")
    for values in (wrong, {"rope_theta": "x", "rms_norm_eps": "y", "initializer_range": "z"}):
        try:
            ModelConfig(**(asdict(toy_config()) | values))
        except ValueError as error:
            print(error)


def test_of_several_faults_the_same_is_named_in_every_process(monkeypatch):
    found = set()
    for seed in "12":
        monkeypatch.setenv("PYTHONHASHSEED", seed)
        found.add(run_without_hook(print_refusals))
    assert len(found) == 1
    assert len(found.pop().splitlines()) == 2


@pytest.mark.slow
def test_properties_hold_for_other_inputs():
    """Minutes; prints how to draw a failing input again."""
    options = ["-q", "-m", "hypothesis and not slow", f"--hypothesis-profile={EXPLORE}", "-x"]
    result = subprocess.run(
        [sys.executable, "-m", "pytest", *options, "-p", "no:cacheprovider", "tests"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr
