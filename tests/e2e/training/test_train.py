"""Whole runs: what the folder holds, what a run does not depend on, what survives a kill."""

import io
import json
import shutil
import subprocess
import time
from dataclasses import replace
from types import SimpleNamespace

import pytest
import sentencepiece
import torch
from safetensors.torch import load_file, save_file

from model.transformer import Mistral
from model.weights import InitialWeights, fill
from pretrained.safetensors_folder import save_pretrained
from tests.helpers.runs import (
    ROOT,
    command,
    configure,
    evaluations,
    execute,
    kill_tree,
    losses,
    metrics,
    tiny,
)
from train import train

STAGE1 = "+experiment=tspt_stage1"
SHORT = "curriculum.stages.adaptation.tokens=6144"  # 12 steps


def run_here(*overrides):
    config = configure(*overrides)
    train(config)
    return config.folder


def test_a_run_leaves_everything_it_promises(sample, tmp_path, capsys):
    folder = run_here(STAGE1, SHORT, *tiny(sample, tmp_path, "checkpoint.export_every=5"))
    assert {path.name for path in folder.iterdir()} == {
        *("config.yaml", "environment.json", "metrics.jsonl", "loss.png", "checkpoints"),
        *("forgetting.png", "exports", "model", ".lock", "starts.jsonl"),
    }
    rows = [row for row in metrics(folder) if "loss_nats" in row]
    assert [row["step"] for row in rows] == list(range(1, 13))
    assert set(rows[0]) == {
        *("step", "stage", "tokens", "loss_nats", "lr", "grad_norm"),
        *("tokens_per_second", "mfu", "mfu_palm", "seconds", "sources"),
    }
    assert rows[-1]["tokens"] == 6144
    for row in rows:  # the loss is the mean over sources
        parts = row["sources"].values()
        total = sum(part["loss_nats"] * part["tokens"] for part in parts)
        count = sum(part["tokens"] for part in parts)
        assert total / count == pytest.approx(row["loss_nats"], rel=1e-9)
    assert sorted(evaluations(folder)) == [0, 5, 10, 12]
    assert set(evaluations(folder)[0]) == set(source_names(sample))
    assert sorted(path.name for path in (folder / "checkpoints").iterdir()) == [
        "step-00000008",
        "step-00000012",
    ]
    assert sorted(path.name for path in (folder / "exports").iterdir()) == [
        "step-00000005",
        "step-00000010",
    ]
    environment = json.loads((folder / "environment.json").read_text())
    assert set(environment["data_fingerprints"]) == {
        *source_names(sample),
        *(f"{name}/held_out" for name in source_names(sample)),
    }
    assert {path.name for path in (folder / "model").iterdir()} >= {
        *("config.json", "generation_config.json", "model.safetensors"),
        *("tokenizer.model", "tokenizer.json", "tokenizer_config.json"),
    }
    out = capsys.readouterr().out
    assert "attention banded" in out
    assert "row 0 begins:" in out
    # Rerunning says so and touches nothing.
    before = (folder / "metrics.jsonl").read_bytes()
    run_here(STAGE1, SHORT, *tiny(sample, tmp_path, "checkpoint.export_every=5"))
    assert "is finished" in capsys.readouterr().out
    assert (folder / "metrics.jsonl").read_bytes() == before


def source_names(sample):
    return [path.parent.name for path in sample.glob("*/manifest.json")]


def test_two_stages_in_one_run_equal_two_runs(sample, tmp_path):
    sizes = [SHORT, "curriculum.stages.specialization.tokens=4096"]
    both = run_here("+experiment=tspt", *sizes, *tiny(sample, tmp_path))
    first = run_here(STAGE1, *sizes, *tiny(sample, tmp_path))
    second = run_here(
        "+experiment=tspt_stage2", *sizes, f"init_from={first}", *tiny(sample, tmp_path)
    )
    together, alone = losses(both), losses(second)
    assert {step: together[step] for step in range(1, 13)} == losses(first)
    assert {step - 12: value for step, value in together.items() if step > 12} == alone
    assert any("replay" in row["sources"] for row in metrics(second) if "sources" in row)
    for name, tensor in load_file(both / "model" / "model.safetensors").items():
        torch.testing.assert_close(
            load_file(second / "model" / "model.safetensors")[name], tensor, rtol=0, atol=0
        )


def test_kept_moments_and_continued_rate_change_the_second_stage(sample, tmp_path):
    sizes = [SHORT, "curriculum.stages.specialization.tokens=2048"]
    border = "curriculum.stages.specialization"
    base = losses(run_here("+experiment=tspt", *sizes, *tiny(sample, tmp_path)))
    for change in (f"{border}.moments=kept", f"{border}.lr=continue"):
        other = losses(run_here("+experiment=tspt", *sizes, change, *tiny(sample, tmp_path)))
        # The schedule of a continued span differs from its start, moments from the border on.
        same_until = 12 if "moments" in change else 0
        assert {s: v for s, v in other.items() if s <= same_until} == {
            s: v for s, v in base.items() if s <= same_until
        }
        assert other[16] != base[16]


def test_ranks_do_not_change_a_run(sample, tmp_path):
    arguments = [STAGE1, SHORT, "model.num_padded_ids=0", *tiny(sample, tmp_path)]
    runs = []
    for ranks in (1, 2, 3):
        result = execute(*arguments, f"name=ranks{ranks}", ranks=ranks)
        assert result.returncode == 0, result.stderr
        runs.append(tmp_path / f"ranks{ranks}")
    alone = losses(runs[0])
    for run in runs[1:]:
        for step, values in losses(run).items():
            assert values == pytest.approx(alone[step], rel=1e-4)
        for name, result in evaluations(run)[12].items():
            expected = evaluations(runs[0])[12][name]
            assert result == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("ranks", [None, 2])
def test_a_killed_run_continues_as_if_nothing_had_happened(sample, tmp_path, ranks):
    size = "curriculum.stages.adaptation.tokens=15360"  # 30 steps
    asked = ["tasks.names=[sample_en]", "tasks.scoring=cloze", "tasks.shots=0", "tasks.limit=9"]
    # Checkpoints at once: one that is written meanwhile might not be there when the run is killed.
    asked += ["tasks.every=7", "checkpoint.asynchronous=false"]
    arguments = [STAGE1, size, *asked, *tiny(sample, tmp_path)]
    straight = execute(*arguments, "name=straight", ranks=ranks)
    assert straight.returncode == 0, straight.stderr
    process = subprocess.Popen(
        command(*arguments, "name=killed", ranks=ranks),
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    log = tmp_path / "killed" / "metrics.jsonl"
    wait_for(lambda: log.exists() and log.read_text().count('"grad_norm"') >= 6, process)
    kill_tree(process)
    reached = max(losses_until_torn(log))
    assert reached < 30
    again = execute(*arguments, "name=killed", ranks=ranks)
    assert again.returncode == 0, again.stderr
    assert "continuing after step" in again.stdout
    assert losses(tmp_path / "killed") == losses(tmp_path / "straight")
    assert evaluations(tmp_path / "killed") == evaluations(tmp_path / "straight")
    scores = answers(tmp_path / "straight")
    assert answers(tmp_path / "killed") == scores
    assert list(scores) == [0, 7, 14, 21, 28, 30]
    margins = [score["sample_en"]["margin"] for score in scores.values()]
    assert len(set(margins)) == 6, "the model that is asked is the one that is trained"
    assert all(0 <= score["sample_en"]["micro"] <= 1 for score in scores.values())


def answers(run):
    rows = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    return {row["step"]: row["tasks"] for row in rows if "tasks" in row}


def wait_for(condition, process, seconds=600):
    deadline = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, "the run ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.005)


def losses_until_torn(log):
    for line in log.read_text().splitlines(keepends=True):
        if line.endswith("\n"):
            yield json.loads(line)["step"]


def test_a_sweep_runs_every_point_in_one_process(sample, tmp_path):
    size = "curriculum.stages.adaptation.tokens=1024"
    result = execute("-m", STAGE1, size, "seed=0,1,2", *tiny(sample, tmp_path))
    assert result.returncode == 0, result.stderr
    runs = [path for path in tmp_path.iterdir() if (path / "model").is_dir()]
    assert len(runs) == 3
    assert len({losses(run)[2] for run in runs}) == 3


def test_a_sweep_inside_torchrun_is_refused(sample, tmp_path):
    result = execute("-m", STAGE1, "seed=0,1", *tiny(sample, tmp_path), ranks=2)
    assert result.returncode != 0
    assert "inside a multi-rank torchrun" in result.stderr
    assert not list(tmp_path.iterdir())


def refused(sample, tmp_path, *overrides):
    """The message of a run that ends before it began."""
    runs = tmp_path / "refused"
    with pytest.raises(ValueError, match=r".") as error:
        run_here(SHORT, *tiny(sample, runs), *overrides)
    assert not list(runs.glob("*/metrics.jsonl"))
    return str(error.value)


def test_bad_settings_end_before_the_run_folder_exists(sample, tmp_path):
    assert "no CUDA device" in refused(sample, tmp_path, STAGE1, "device=cuda")
    assert "attention=flash needs CUDA" in refused(
        sample, tmp_path, STAGE1, "parallel.attention=flash"
    )
    assert "model.num_padded_ids" in refused(sample, tmp_path, STAGE1, "model.vocab_size=4096")
    assert "rows have 32" in refused(
        sample, tmp_path, STAGE1, "batch.row_length=32", "evaluation.chunk_bytes=100"
    )
    assert "no config.json" in refused(sample, tmp_path, STAGE1, f"init_from={tmp_path}")
    assert not (tmp_path / "refused").exists()


def test_a_run_whose_checkpoints_do_not_fit_is_refused(sample, tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=1 << 20))
    assert "GiB are needed for checkpoints" in refused(sample, tmp_path, STAGE1)
    assert not list((tmp_path / "refused").glob("*/config.yaml"))


def test_weights_of_another_shape_are_refused(sample, tmp_path):
    first = run_here(STAGE1, "curriculum.stages.adaptation.tokens=512", *tiny(sample, tmp_path))
    message = refused(sample, tmp_path, STAGE1, f"init_from={first}", "model.rope_theta=500000")
    assert "rope_theta 10000.0 (configured 500000.0)" in message
    follow = run_here(
        STAGE1,
        "curriculum.stages.adaptation.tokens=512",
        f"init_from={first}",
        "name=follow",
        *[o for o in tiny(sample, tmp_path) if not o.startswith("model.")],
        "model=pretrained",
    )
    assert (follow / "model" / "config.json").exists()


def test_resume_required_and_never_mean_what_they_say(sample, tmp_path):
    fixed = [STAGE1, SHORT, "name=run", *tiny(sample, tmp_path)]
    with pytest.raises(ValueError, match=r"resume=required.* holds no checkpoint"):
        run_here(*fixed, "resume=required")
    assert not list(tmp_path.iterdir())
    folder = run_here(*fixed)
    for path in (folder / "model").iterdir():
        path.unlink()
    (folder / "model").rmdir()
    with pytest.raises(ValueError, match=r"resume=never.* up to step 12"):
        run_here(*fixed, "resume=never")
    with pytest.raises(ValueError, match=r"created with other settings .*seed: 0 -> 5"):
        run_here(*fixed, "seed=5")
    # How it is carried out may change.
    run_here(*fixed, "resume=required", "batch.micro_batch_rows=3", "checkpoint.every=7")
    assert (folder / "model").is_dir()


def test_a_damaged_newest_checkpoint_is_reported_and_skipped(sample, tmp_path, capsys):
    fixed = [STAGE1, SHORT, "name=run", *tiny(sample, tmp_path)]
    folder = run_here(*fixed)
    expected = losses(folder)
    for path in (folder / "model").iterdir():
        path.unlink()
    (folder / "model").rmdir()
    shard = next((folder / "checkpoints" / "step-00000012").glob("*.distcp"))
    shard.write_bytes(shard.read_bytes()[:-100])
    run_here(*fixed)
    out = capsys.readouterr().out
    assert "step-00000012 is damaged" in out
    assert (folder / "checkpoints" / "step-00000012.damaged").is_dir()
    assert "continuing after step 8" in out
    assert losses(folder) == expected


def test_data_that_changed_under_a_run_is_refused(sample, tmp_path):
    root = tmp_path / "sample"
    shutil.copytree(sample, root)
    fixed = [STAGE1, SHORT, "name=run", *tiny(root, tmp_path)]
    folder = run_here(*fixed)
    shutil.rmtree(folder / "model")
    shutil.rmtree(root / "general_en")
    shutil.copytree(root / "geo_en", root / "general_en")
    before = (folder / "environment.json").read_text()
    with pytest.raises(ValueError, match=r"data\.sources general_en, .*/held_out changed since"):
        run_here(*fixed)
    assert (folder / "environment.json").read_text() == before


def test_a_finished_folder_is_not_taken_for_another_run(sample, tmp_path):
    fixed = [STAGE1, "curriculum.stages.adaptation.tokens=512", "name=run"]
    run_here(*fixed, *tiny(sample, tmp_path))
    with pytest.raises(ValueError, match=r"optim\.lr: 0\.003 -> 0\.0001"):
        run_here(*fixed, *tiny(sample, tmp_path), "optim.lr=1e-4")


def test_a_tokenizer_that_cannot_be_exported_is_refused_before_training(sample, tmp_path):
    tokenizer = tmp_path / "tokenizer.model"
    writer = io.BytesIO()
    words = (f"{a}{b}" for a in "bcdfghklm" for b in "aeiou" for _ in range(9))
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=words,
        model_writer=writer,
        vocab_size=20,
        model_type="unigram",
        minloglevel=2,
    )
    tokenizer.write_bytes(writer.getvalue())
    message = refused(sample, tmp_path, STAGE1, f"data.tokenizer={tokenizer}")
    assert message.startswith("data.tokenizer=")
    assert "BPE" in message


def test_a_padded_pretrained_vocabulary_is_trained_without_its_padding(sample, tmp_path):
    shape = configure(STAGE1, *tiny(sample, tmp_path)).model
    model = Mistral(replace(shape, vocab_size=shape.vocab_size + 8))
    fill(model, InitialWeights(model, seed=0))
    save_pretrained(model, tmp_path / "padded")
    before = model.lm_head.weight.detach()[-8:].clone()
    folder = run_here(
        STAGE1,
        SHORT,
        *[o for o in tiny(sample, tmp_path) if not o.startswith("model.")],
        *(f"init_from={tmp_path / 'padded'}", "model=pretrained"),
        *("optim.weight_decay=0", "name=run"),
    )
    after = load_file(folder / "model" / "model.safetensors")["lm_head.weight"]
    assert len(after) == shape.vocab_size + 8
    assert torch.equal(after[-8:], before)
    generation = json.loads((folder / "model" / "generation_config.json").read_text())
    assert len(generation["suppress_tokens"]) == 8


def test_a_gradient_that_is_not_finite_updates_nothing(sample, tmp_path):
    first = run_here(STAGE1, "curriculum.stages.adaptation.tokens=512", *tiny(sample, tmp_path))
    weights = first / "model" / "model.safetensors"
    tensors = load_file(weights)
    tensors["model.norm.weight"][:] = 3e38  # finite, and what is computed with them is not
    save_file(tensors, weights, metadata={"format": "pt"})
    with pytest.raises(FloatingPointError, match=r"at rows \[0, 1, .*nothing was updated"):
        run_here(STAGE1, SHORT, f"init_from={first}", "name=bad", *tiny(sample, tmp_path))
