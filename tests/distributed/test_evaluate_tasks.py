"""Benchmarks on several ranks, and commands that are killed."""

import pytest
import torch

from pretrained.load import open_model
from tests.helpers.kills import kill_at_call
from tests.helpers.ranks import run_ranks, start_ranks, wait_for_all
from tests.unit.evaluation.multiple_choice.test_evaluate_tasks import (  # noqa: F401 fixtures
    contents,
    evaluate,
    folder,
    opened,
    world,
)
from training.distributed import start_world


def evaluate_and_die(folder, out, name, count):
    kill_at_call(name, count)
    with start_world("cpu") as world:
        torch.set_num_threads(1)
        evaluate(out, open_model(folder, torch.float32, "cpu"), world, shots=1, save_every=5)


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("os:fsync", 4),
        ("evaluation.multiple_choice.run:append_lines", 3),
        ("evaluation.multiple_choice.answer:score", 5),
    ],
)
def test_a_killed_command_goes_on(folder, opened, world, tmp_path, name, count):
    out = tmp_path / "killed"
    processes = start_ranks(evaluate_and_die, 1, folder, out, name, count)
    wait_for_all(processes)
    assert processes[0].exitcode == -9
    assert not (out / "summary.json").exists()
    evaluate(out, opened, world, shots=1, save_every=5)
    evaluate(tmp_path / "whole", opened, world, shots=1, save_every=5)
    assert contents(out) == contents(tmp_path / "whole")


def on_ranks(world, folder, out):
    torch.set_num_threads(1)
    out = out / str(world.dp_size)
    opened = open_model(folder, torch.float32, "cpu")
    # Few tokens at a time, so that there is work for all.
    summary = evaluate(out, opened, world, shots=1, batch_tokens=200, save_every=7)
    return summary


def test_one_two_and_three_ranks_answer_alike(folder, tmp_path):
    summaries = [run_ranks(on_ranks, size, folder, tmp_path) for size in (1, 2, 3)]
    assert all(summary == per_rank[0] for per_rank in summaries for summary in per_rank)
    assert contents(tmp_path / "1") == contents(tmp_path / "2") == contents(tmp_path / "3")


def refused_on_ranks(world, folder, out):
    opened = open_model(folder, torch.float32, "cpu")
    try:
        evaluate(out, opened, world, shots=world.dp_size)
    except ValueError as error:
        return str(error)


def test_all_ranks_are_refused_together(folder, opened, world, tmp_path):
    evaluate(tmp_path, opened, world, shots=1)
    messages = run_ranks(refused_on_ranks, 2, folder, tmp_path)
    assert messages[0] == messages[1]
    assert "settings (prompts, shots)" in messages[0]
