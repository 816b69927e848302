"""Benchmarks in processes: in turns, stopped when they hang, and refused with the reason."""

import json
import re
from dataclasses import replace

import pytest
import torch

from experiments.benchmarks.__main__ import BenchmarkConfig, measure_suite
from experiments.benchmarks.harness import launcher
from experiments.benchmarks.harness.launcher import Launcher, launch
from experiments.benchmarks.harness.suites import (
    chosen_parts,
)
from experiments.benchmarks.harness.table import markdown
from experiments.benchmarks.harness.workloads import Attention, Job
from tests.unit.experiments.test_benchmark_suite import PART, configured, here, run


def test_sides_take_turns_and_both_columns_are_filled(tmp_path):
    parts = chosen_parts("toy", ["decode_2_float32", "train_32_float32"])
    assert [part.name for part in parts] == ["train_32_float32", "decode_2_float32"]
    order = []

    def launch(job):
        order.append((type(job.work).__name__, job.side))
        return here(job)

    content = run(parts, tmp_path, launch, rounds=2)
    turns = [(kind, side) for kind in ("Training", "Decoding") for side in ("ours", "peer") * 2]
    assert order == turns
    for part in parts:
        found = content["parts"][part.name]
        assert found["figures"].keys() == {"ours", "peer"}
        assert all(len(side["rounds"]) == 2 for side in found["sides"].values())
        shares = [f["share"] for side in found["figures"].values() for f in side.values()]
        assert sum(share is not None and share > 0 for share in shares) >= 2
    # Both sides have the same weights and ids, and compute the same.
    losses = [content["parts"]["train_32_float32"]["figures"][s] for s in ("ours", "peer")]
    ours, theirs = (loss["first_loss_nats"]["median"] for loss in losses)
    assert ours == pytest.approx(theirs, rel=1e-5)
    assert content["parts"]["decode_2_float32"]["same_answers"] == {"peer": "2 of 2"}
    table = markdown(content, [part.name for part in parts])
    assert "| part | figure | ours | peer | ours / peer | measured ceiling |" in table
    rows = [line for line in table.splitlines() if "_tokens_per_second" in line]
    assert len(rows) == 2
    assert all(re.search(r"\| [^|]+, [\d.]+% \| [^|]+, [\d.]+% \| [\d.]+ \|", row) for row in rows)


def test_the_command_measures_in_processes_of_its_own(tmp_path):
    out = tmp_path / "results" / "toy.json"
    config = configured("suite=toy", "only=[loss_64]", f"out={out}")
    assert isinstance(config, BenchmarkConfig)
    table = measure_suite(config)
    assert re.search(r"\| loss_64 \| tokens_per_second \| [^|]+% \| [^|]+% \| [\d.]+ \|", table)
    held = json.loads(out.read_text())
    assert held["parts"].keys() == {"loss_64"}
    assert held["environment"]["sources"]
    assert measure_suite(config) == table  # from the file


def test_a_side_that_hangs_is_stopped(monkeypatch):
    monkeypatch.setattr(launcher, "MINUTES", 0.001)
    assert launch(Job(PART.work, "ours", 1)) == {"not_measured": "stopped after 0.001 minutes"}


@pytest.mark.parametrize(
    ("program", "reason"),
    [
        ("echo first >&2; echo 'ValueError: second' >&2; exit 1", "ValueError: second"),
        ("exit 3", "exit code 3"),
        ("kill -KILL $$", "ended by SIGKILL (too little memory?)"),
    ],
)
def test_a_process_that_fails_says_why(tmp_path, monkeypatch, program, reason):
    script = tmp_path / "python"
    script.write_text(f"#!/bin/sh\n{program}\n")
    script.chmod(0o755)
    monkeypatch.setattr("sys.executable", str(script))
    assert launch(Job(PART.work, "ours", 1)) == {"not_measured": reason}


def test_a_serving_process_answers_job_after_job():
    (loss,) = chosen_parts("toy", ["loss_64"])
    with Launcher() as launcher_:
        first = launcher_.ask(Job(loss.work, "ours", 1))
        server = launcher_._server
        assert first["figures"]["tokens_per_second"] > 0
        missing = Job(Attention(**small_attention(), device="cuda"), "banded", 1)
        if not torch.cuda.is_available():
            assert "needs a CUDA device" in launcher_.ask(missing)["not_measured"]
        assert launcher_.ask(Job(loss.work, "plain", 1))["figures"]["tokens_per_second"] > 0
        assert launcher_._server is server  # the same process all the time
        broken = launcher_.ask(Job(replace(loss.work, dtype="float8"), "ours", 1))
        assert broken["not_measured"] == "KeyError: 'float8'"
        assert server.poll() is not None  # nothing after it is measured on a broken device
        assert launcher_.ask(Job(loss.work, "ours", 1))["figures"]["tokens_per_second"] > 0
        other = launcher_._server
        assert other is not server
        other.kill()
        other.wait()
        assert launcher_.ask(Job(loss.work, "ours", 1))["figures"]["tokens_per_second"] > 0
        last = launcher_._server
    assert last.poll() is not None


def small_attention():
    sizes = {"length": 48, "packed": False, "window": 8, "heads": 2, "key_heads": 1}
    return {**sizes, "head_size": 8, "dtype": "float32"}
