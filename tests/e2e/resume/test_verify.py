"""A run that can be had again is certified, one that was changed is not, and neither is touched."""

import json
import os
import shutil
import subprocess
import sys

import pytest
import torch
import torch.distributed.checkpoint as dcp

from conf.description import describe_processor
from conf.schema import load_run
from scripts.verify import verify
from storage.checksum import crc32_of
from tests.helpers.kills import run_training
from tests.helpers.ranks import run_ranks, start_ranks, wait_for_all
from tests.helpers.runs import ROOT, TWO_STAGES, configure, tiny, two_stages
from tools.verification.replay import (
    VerifyConfig,
    choose_tolerance,
    draw_replays,
)
from train import train
from training.checkpoint.manifest import MARKER
from training.run.folder import read_starts


@pytest.fixture
def copy(finished, tmp_path):
    """The run elsewhere, to be tampered with."""
    return shutil.copytree(finished, tmp_path / "moved")


def verified(run, **asked):
    return verify(VerifyConfig(run=str(run), **asked))


def tree(folder):
    """Everything about a folder that could change."""
    return {
        str(path): (path.stat().st_mtime_ns, path.read_bytes() if path.is_file() else None)
        for path in [folder, *folder.rglob("*")]
    }


def rows_of(run):
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def write_rows(run, rows):
    (run / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def edit_log(run, step, **values):
    rows = rows_of(run)
    for row in rows:
        if row["step"] == step and "loss_nats" in row:
            row |= {name: change(row[name]) for name, change in values.items()}
    write_rows(run, rows)


def test_a_run_of_two_stages_reproduces_exactly_and_is_not_touched(finished, capsys):
    before = tree(finished)
    verdict = verified(finished, steps=100)
    assert tree(finished) == before
    assert verdict.passed
    assert verdict.compared == 10
    figures = ("loss_nats", "grad_norm", "sources", "eval", "rows")
    assert verdict.largest == dict.fromkeys(figures, 0.0)
    assert verdict.evaluated == [0, 6, 10]
    assert verdict.equal == [4, 8, 10]
    out = capsys.readouterr().out
    assert "tolerance: exact equality (ranks 1, threads " in out
    assert "as in the run" in out
    assert "drawn from 10 of 10 logged steps\n" in out
    assert "to execute: 10 steps, " in out
    assert "speed, and 3 evaluations\n" in out
    assert "steps 5 to 8 from the checkpoint of step 4" in out
    assert out.index("to execute") < out.index("steps 1 to 4: reproduced")
    assert "REPRODUCED: 10 logged steps and 3 evaluations repeated" in out


def test_the_border_is_crossed_from_the_initial_weights(copy, capsys):
    shutil.rmtree(copy / "checkpoints")
    verdict = verified(copy, steps=100, reach=7)
    assert verdict.passed
    assert verdict.compared == 7
    sentence = "drawn from 7 of 10 logged steps; the others are more than 7 steps after"
    assert sentence in capsys.readouterr().out


def test_a_second_stage_from_the_folder_of_the_first_reproduces(sample, finished, tmp_path):
    arguments = [
        "+experiment=tspt_stage2",
        *TWO_STAGES,
        *tiny(sample, tmp_path),
        f"init_from={finished}",
    ]
    config = configure(*arguments)
    train(config)
    verdict = verified(config.folder, steps=3)
    assert verdict.passed
    assert verdict.compared >= 3


def test_steps_that_were_not_logged_are_executed_and_not_compared(copy):
    write_rows(copy, [row for row in rows_of(copy) if row["step"] in (0, 3, 6, 9, 10)])
    (start,) = read_starts(copy)
    (copy / "starts.jsonl").write_text(json.dumps(start | {"logging_every": 3}) + "\n")
    verdict = verified(copy, steps=100)
    assert verdict.passed
    assert verdict.compared == 4


def test_a_loss_changed_in_the_sixth_digit_is_named(copy, capsys):
    edit_log(copy, 7, loss_nats=lambda loss: loss + 1e-5)
    verdict = verified(copy, steps=100)
    assert not verdict.passed
    (problem,) = verdict.problems
    assert problem.startswith("step 7: loss_nats logged ")
    assert "relative difference 1." in problem
    assert verdict.equal == [4, 8, 10]
    assert "NOT REPRODUCED" in capsys.readouterr().out


def test_a_grad_norm_that_is_no_number_does_not_pass(copy):
    edit_log(copy, 2, grad_norm=lambda _: float("nan"))
    verdict = verified(copy, steps=100, tolerance=0.5)
    assert [problem.split(" logged ")[0] for problem in verdict.problems] == ["step 2: grad_norm"]
    assert verdict.equal == []  # bits are compared where equality is asked for


def edit_evaluation(run, step, **values):
    rows = rows_of(run)
    for row in rows:
        if row["step"] == step and "eval" in row:
            name = min(row["eval"])
            row["eval"][name] |= {key: f(row["eval"][name][key]) for key, f in values.items()}
    write_rows(run, rows)


def test_everything_that_an_evaluation_says_is_compared(copy):
    up = lambda value: value * (1 + 1e-9)  # noqa: E731
    edit_evaluation(copy, 0, bits_per_byte=up)  # of the initial weights
    edit_evaluation(copy, 6, loss_nats=up)  # on the way between two checkpoints
    edit_evaluation(copy, 10, bytes=lambda count: count + 1, delta_bits_per_byte=up)
    verdict = verified(copy, steps=100)
    problems = [problem.split(" logged ")[0] for problem in verdict.problems]
    name = min(rows_of(copy)[0]["eval"])
    figures = [(0, "bits_per_byte"), (6, "loss_nats"), (10, "bytes")]
    # What is said of the difference from step 0 does not follow from that any more.
    figures += [(6, "delta_bits_per_byte"), (10, "delta_bits_per_byte")]
    assert problems == [f"step {step}: eval.{name}.{figure}" for step, figure in figures]
    assert verdict.equal == [4, 8, 10]
    assert 0 < verdict.largest["eval"] < 1e-8


def test_the_evaluation_of_a_checkpoint_is_repeated_from_it(copy):
    rows = [
        row | {"step": 8} if row["step"] == 6 and "eval" in row else row for row in rows_of(copy)
    ]
    write_rows(copy, rows)
    verdict = verified(copy, steps=100, reach=2)  # steps 1, 2, 5, 6, 9 and 10
    assert verdict.compared == 6
    assert verdict.evaluated == [0, 8, 10]
    # It is not that of step 8.
    assert verdict.problems
    assert all(problem.startswith("step 8: ") for problem in verdict.problems)
    assert verdict.largest["eval"] > 1e-5


def change_source(**values):
    def change(sources):
        name = min(sources)
        return sources | {name: {key: f(sources[name][key]) for key, f in values.items()}}

    return change


def test_everything_that_a_row_says_of_its_step_is_compared(copy):
    same, more = (lambda value: value), (lambda value: value + 1)
    up = lambda loss: loss * (1 + 1e-9)  # noqa: E731
    edit_log(copy, 1, lr=up)
    edit_log(copy, 2, stage=lambda _: "specialization")
    edit_log(copy, 3, tokens=more)
    edit_log(copy, 4, sources=change_source(loss_nats=up, tokens=same))
    edit_log(copy, 5, sources=change_source(loss_nats=same, tokens=more))
    edit_log(copy, 6, sources=lambda sources: dict(sorted(sources.items())[1:]))
    edit_log(copy, 7, sources=lambda sources: sources | {"new": {"loss_nats": 1.0, "tokens": 1}})
    edit_log(copy, 8, rows=lambda rows: [[rows[0][0], up(rows[0][1])], *rows[1:]])
    edit_log(copy, 9, rows=lambda rows: rows[1:])
    edit_log(copy, 10, grad_norm=lambda norm: str(norm))
    verdict = verified(copy, steps=100)
    assert not verdict.passed
    first = {}
    for problem in verdict.problems:
        step, figure = problem.split(" logged ")[0].split(": ")
        first.setdefault(int(step.removeprefix("step ")), figure)
    assert first.pop(4).split(".")[::2] == ["sources", "loss_nats"]
    assert first.pop(5).split(".")[::2] == ["sources", "tokens"]
    assert first.pop(6).startswith("sources.")
    assert first == {
        **dict(zip((1, 2, 3, 10), ("lr", "stage", "tokens", "grad_norm"), strict=True)),
        **dict(zip((7, 8, 9), ("sources.new.loss_nats", "rows.0.1", "rows.0.0"), strict=True)),
    }
    assert "step 9: 13 more figures differ" in verdict.problems
    assert verdict.equal == [4, 8, 10]


def without(*steps):
    return lambda rows: [row for row in rows if row["step"] not in steps or "eval" in row]


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (without(6), "steps 6: not in the log, where logging.every promises them"),
        (without(9, 10), "steps 9, 10: not in the log, where logging.every promises them"),
        (without(1, 2, 3, 4, 5), "steps 1, 2, 3 and 2 more: not in the log, where"),
        (lambda rows: [*rows, next(r for r in rows if r["step"] == 7)], "step 7: logged 2 times"),
        (lambda rows: [*rows, rows[-2] | {"step": 11}], "step 11: logged, but the run has steps 1"),
        (lambda rows: [*rows, rows[0]], "step 0: evaluated 2 times"),
    ],
)
def test_a_log_with_a_step_too_many_or_too_few_does_not_pass(copy, change, problem):
    write_rows(copy, change(rows_of(copy)))
    verdict = verified(copy, steps=1, reach=1)
    assert not verdict.passed
    (found,) = verdict.problems
    assert found.startswith(problem)


def test_lines_that_are_no_rows_are_refused(copy):
    log, starts = copy / "metrics.jsonl", copy / "starts.jsonl"
    log.write_text(log.read_text() + '{"step": "11", "loss_nats": 1.0}\n')
    with pytest.raises(ValueError, match=r"metrics\.jsonl, line \d+ is not a valid log record"):
        verified(copy)
    for text in ("no json\n", "[]\n", '{"step": 0}\n'):
        starts.write_text(text)
        with pytest.raises(ValueError, match=r"starts\.jsonl, line 1: .* tells of no start"):
            read_starts(copy)


def elsewhere(sample, copy, tmp_path):
    """A copy of the data, which the copied run reads."""
    root = shutil.copytree(sample, tmp_path / "sample")
    config = copy / "config.yaml"
    config.write_text(config.read_text().replace(str(sample), str(root)))
    return root


def test_one_changed_token_of_the_data_is_found(sample, copy, tmp_path):
    root = elsewhere(sample, copy, tmp_path)
    assert verified(copy, steps=1, reach=2).passed
    tokens = root / "geo_en" / "shard-00000.tokens"
    content = bytearray(tokens.read_bytes())
    content[-3] ^= 1
    tokens.write_bytes(content)
    with pytest.raises(ValueError, match=r"geo_en/shard-00000\.tokens: the bytes differ"):
        verified(copy)


def test_another_source_is_found(sample, copy, tmp_path):
    root = elsewhere(sample, copy, tmp_path)
    shutil.rmtree(root / "geo_en")
    shutil.copytree(root / "general_en", root / "geo_en")
    with pytest.raises(ValueError, match=r"data\.sources geo_en.* changed since"):
        verified(copy)


def test_a_changed_checkpoint_is_found_left_in_place_and_not_started_from(copy):
    shard = next((copy / "checkpoints" / "step-00000004").glob("*.distcp"))
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 1
    shard.write_bytes(content)
    before = tree(copy)
    verdict = verified(copy, steps=1, seed=3)
    assert tree(copy) == before
    assert verdict.problems == [
        f"checkpoint of step 4: {shard.name} has changed since it was written"
    ]
    # The steps after it are reached from the one before.
    assert verified(copy, steps=100).equal == [8, 10]


def scale_one_matrix(world, folder, name):
    reader = dcp.FileSystemReader(folder)
    parts = reader.read_metadata().state_dict_metadata
    state = {
        key: torch.empty(part.size, dtype=part.properties.dtype) for key, part in parts.items()
    }
    dcp.load(state, storage_reader=reader)
    state[name] *= 1.5
    shutil.rmtree(folder)
    dcp.save(state, storage_writer=dcp.FileSystemWriter(folder))


def test_a_checkpoint_changed_together_with_its_marker_is_found(copy):
    folder = copy / "checkpoints" / "step-00000004"
    name = "model.model.layers.0.self_attn.q_proj.weight"
    run_ranks(scale_one_matrix, 1, folder, name)
    files = {
        path.name: {"size": path.stat().st_size, "crc32": crc32_of(path)}
        for path in folder.iterdir()
    }
    (folder / MARKER).write_text(json.dumps({"files": files}))
    verdict = verified(copy, steps=100)
    assert f"checkpoint of step 4: the repeated steps give other bits of {name}" in verdict.problems
    assert any(problem.startswith("step 5: ") for problem in verdict.problems)
    assert verdict.equal == [10]


def test_a_run_that_goes_on_may_prune_a_state_before_it_is_loaded(copy, capsys, monkeypatch):
    chosen = draw_replays

    def draw_and_prune(*arguments):
        replays = chosen(*arguments)
        shutil.rmtree(copy / "checkpoints" / "step-00000004")
        return replays

    monkeypatch.setattr("scripts.verify.draw_replays", draw_and_prune)
    with (copy / "metrics.jsonl").open("a") as log:
        log.write('{"step": 11, "loss_na')  # in the middle of a write
    verdict = verified(copy, steps=100)
    assert verdict.passed
    assert verdict.compared == 6
    assert "checkpoint of step 4 was pruned meanwhile" in capsys.readouterr().out


def test_a_run_without_steps_within_reach_is_refused(copy):
    shutil.rmtree(copy / "checkpoints")
    (copy / "metrics.jsonl").write_text("")
    with pytest.raises(ValueError, match="none of the 0 logged steps follows"):
        verified(copy)
    (copy / "environment.json").unlink()
    with pytest.raises(ValueError, match=r"no environment\.json"):
        verified(copy)


def run_program(*arguments):
    program = [sys.executable, "-m", "scripts.verify", *arguments]
    return subprocess.run(program, cwd=ROOT, capture_output=True, text=True, check=False)


def test_the_program_ends_as_the_verdict_says(copy):
    arguments = [f"run={copy}", "steps=2", "reach=3"]
    good = run_program(*arguments)
    assert good.returncode == 0, good.stderr
    assert "REPRODUCED: " in good.stdout
    for step in range(1, 11):
        edit_log(copy, step, loss_nats=lambda loss: loss * 1.00001)
    bad = run_program(*arguments)
    assert bad.returncode == 1
    assert "NOT REPRODUCED" in bad.stdout
    assert "Traceback" not in bad.stderr


def train_rank(overrides):
    train(configure(*overrides))


def verify_rank(run, output, asked):
    verdict = verify(VerifyConfig(run=str(run), **asked))
    output.with_name(f"{output.name}{verdict.passed}").write_text(str(verdict))


def test_two_processes_reproduce_each_other_exactly_and_one_process_nearly(sample, tmp_path):
    processes = start_ranks(train_rank, 2, two_stages(sample, tmp_path))
    wait_for_all(processes)
    run = tmp_path / "run"
    before = tree(run)
    wait_for_all(start_ranks(verify_rank, 2, run, tmp_path / "verdict", {"steps": 100}))
    text = (tmp_path / "verdictTrue").read_text()
    assert "loss_nats 0.0e+00, grad_norm 0.0e+00" in text
    assert text.count("bit for bit") == 3
    # Alone: another order of summation.
    verdict = verified(run, steps=100)
    print(verdict)
    assert verdict.passed
    assert 0 < max(verdict.largest.values()) < 1e-5
    assert tree(run) == before
    edit_log(run, 7, loss_nats=lambda loss: loss * 1.00002)
    wait_for_all(start_ranks(verify_rank, 2, run, tmp_path / "verdict", {"steps": 100}))
    assert "step 7: loss_nats" in (tmp_path / "verdictFalse").read_text()


@pytest.mark.parametrize(
    ("ranks", "rows", "differs"), [(1, 2, "micro_batch_rows 4 -> 2"), (2, 4, "ranks 2 -> 1")]
)
def test_a_run_continued_otherwise_is_held_to_the_tolerance(
    sample, tmp_path, capsys, ranks, rows, differs
):
    # Written at once, or the kill may come before step 4 is on the disk.
    at_once = "checkpoint.asynchronous=false"
    again = two_stages(sample, tmp_path, "logging.row_losses=true", at_once)
    assert run_training(again, ranks, ("train:train_step", 7, 0)) == -9
    assert run_training([*again, f"batch.micro_batch_rows={rows}"], 1) == 0
    run = tmp_path / "run"
    assert [start["step"] for start in read_starts(run)] == [0, 4]
    verdict = verified(run, steps=100)
    print(verdict)
    out = capsys.readouterr().out
    loose = out.split("tolerance: 1e-05 (")[1].splitlines()[0]
    assert differs in loose
    assert verdict.passed
    assert verdict.compared == 10
    # What it did after it had been continued, it did as this command does.
    assert "tolerance: exact equality (ranks 1, " in out
    assert verdict.equal == [8, 10]
    assert 0 < max(verdict.largest.values()) < 1e-5
    edit_log(run, 3, sources=change_source(loss_nats=lambda loss: loss * 1.0001, tokens=int))
    assert not verified(run, steps=100).passed


def test_a_run_that_does_not_tell_of_its_starts_is_held_to_the_tolerance(copy, capsys):
    (copy / "starts.jsonl").unlink()
    verdict = verified(copy, steps=1)
    assert verdict.passed
    assert verdict.equal == []
    assert "tolerance: 1e-05 (no starts.jsonl for these steps" in capsys.readouterr().out


def test_a_start_names_the_processor_and_what_its_libraries_are_told(copy, monkeypatch):
    """Steps of another processor are not held to equality; nor those of a run without the name."""
    (start,) = read_starts(copy)
    assert start["processor"] == describe_processor()
    assert torch.backends.cpu.get_cpu_capability() in start["processor"]
    here = {name: value for name, value in start.items() if name != "processor"}
    assert choose_tolerance(None, [start], here | {"processor": describe_processor()})[0] == 0
    assert choose_tolerance(None, [here], start)[0] == 1e-5
    other = "AVX2" if os.environ.get("MKL_CBWR") != "AVX2" else "COMPATIBLE"
    monkeypatch.setenv("MKL_CBWR", other)
    tolerance, why = choose_tolerance(None, [start], here | {"processor": describe_processor()})
    assert tolerance == 1e-5
    assert f"MKL_CBWR={other}" in why


def test_bfloat16_stays_within_its_tolerance_on_another_number_of_ranks(sample, tmp_path):
    again = two_stages(sample, tmp_path, "logging.row_losses=true", "parallel.dtype=bfloat16")
    assert run_training(again, 2) == 0
    verdict = verified(tmp_path / "run", steps=100)
    print(verdict)
    assert verdict.passed
    assert 1e-5 < max(verdict.largest.values()) < 2**-8


def test_a_moved_run_is_read_back_as_it_was(sample, copy, finished):
    config = load_run(copy)
    assert config.folder == copy
    assert config.digest == load_run(finished).digest
    text = (copy / "config.yaml").read_text()
    (copy / "config.yaml").write_text(text.replace("optim:", "optimum:"))
    with pytest.raises(ValueError, match=r"config\.yaml: .*optimum.*another version"):
        load_run(copy)
