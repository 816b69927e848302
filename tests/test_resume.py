"""A run that was killed and continued is the run that was not, bit for bit."""

import json
import shutil
from pathlib import Path

import pytest
from safetensors.torch import load_file

from data.prepare import PrepareConfig, prepare
from data.sample.build import HELD_OUT_FRACTION
from data.sample.corpus import SOURCES
from data.shards import Source
from data.trace import TraceConfig
from scripts.trace import trace
from scripts.verify import verify
from tests.kills import run_training
from tests.ranks import start_ranks, wait_for_all
from tests.runs import evaluations, losses, metrics, tiny
from tests.test_prepare import json_lines, make_texts
from training.reproduce import VerifyConfig

pytestmark = pytest.mark.distributed

# Two stages of 6 steps; two micro-batches a step on 2 ranks, four on 1; sizes that neither 2 nor 3
# divides; per-row losses show which rows a step has read.
EXACT = [
    "+experiment=tspt",
    "curriculum.stages.adaptation.tokens=3072",
    "curriculum.stages.specialization.tokens=3072",
    "batch.micro_batch_rows=2",
    "model.vocab_size=2051",
    "model.num_padded_ids=3",
    "model.hidden_size=43",
    "model.head_dim=10",
    "model.intermediate_size=67",
    "logging.row_losses=true",
]

# name: (function, n-th call, rank, steps between checkpoints). Evaluations are at 0, 5, 10 and 12,
# of five sets each; a step makes 2 * (2 / ranks) backward passes.
KILLS = {
    "before the first step": ("train:train_step", 1, 0, 4),
    "between checkpoints": ("train:train_step", 7, 0, 4),
    "while the checkpoint of the step before is written": ("train:train_step", 5, 0, 4),
    "inside accumulation": ("torch:Tensor.backward", 14, 1, 4),
    "between gradient and update": ("torch.optim:AdamW.step", 6, 1, 4),
    "inside an evaluation": ("training.evaluate:pack_pieces", 13, 0, 4),
    "inside the log": ("training.metrics:json.dumps", 7, 0, 4),
    "at the stage border, on a checkpoint": ("train:train_step", 7, 1, 6),
    "after the stage border": ("train:train_step", 8, 0, 5),
    "inside a save, before it is sealed": ("training.checkpoint:seal", 2, 0, 4),
    "inside a save, on one rank": ("training.checkpoint:digests", 2, 1, 4),
    "inside the last export": ("training.export:write_folder", 1, 0, 4),
    "before the curves": ("train:plot_run", 1, 0, 4),
}


def arguments(sample, folder, name, every=4):
    return [*tiny(sample, folder), *EXACT, f"name={name}", f"checkpoint.every={every}"]


@pytest.fixture(scope="module")
def straight(sample, tmp_path_factory):
    """An uninterrupted run of each world size."""
    folder = tmp_path_factory.mktemp("straight")
    for ranks in (1, 2):
        assert run_training(arguments(sample, folder, f"ranks{ranks}"), ranks) == 0
    return folder


def figures(run):
    """Everything that a run logs and that does not depend on the clock."""
    clock = ("tokens_per_second", "mfu", "mfu_customary", "seconds")
    rows = [{key: row[key] for key in row if key not in clock} for row in metrics(run)]
    assert len({(row["step"], "eval" in row) for row in rows}) == len(rows), "a step stands twice"
    return sorted(rows, key=lambda row: (row["step"], "eval" in row))


def assert_equal_bit_for_bit(run, expected):
    assert figures(run) == figures(expected)
    weights, others = (load_file(x / "model" / "model.safetensors") for x in (run, expected))
    assert weights.keys() == others.keys()
    for name, tensor in weights.items():
        assert tensor.equal(others[name]), name


@pytest.mark.parametrize("ranks", [1, 2])
@pytest.mark.parametrize("instant", KILLS)
def test_a_run_killed_at_any_instant_continues_as_if_nothing_had_happened(
    sample, straight, tmp_path, instant, ranks
):
    function, count, rank, every = KILLS[instant]
    if ranks == 1 and function.endswith("backward"):
        count *= 2
    again = arguments(sample, tmp_path, "run", every)
    assert run_training(again, ranks, (function, count, min(rank, ranks - 1))) == -9
    assert not (tmp_path / "run" / "model").exists() or instant == "before the curves"
    assert run_training(again, ranks) == 0
    assert_equal_bit_for_bit(tmp_path / "run", straight / f"ranks{ranks}")


def test_a_run_killed_again_and_again_arrives(sample, straight, tmp_path):
    again = arguments(sample, tmp_path, "run", every=2)
    for _ in range(4):
        assert run_training(again, 2, ("train:train_step", 4, 1)) == -9
    assert run_training(again, 2) == 0
    assert_equal_bit_for_bit(tmp_path / "run", straight / "ranks2")


def test_other_world_sizes_read_the_same_rows_and_reach_the_same_losses(sample, straight, tmp_path):
    # Written at once, or a kill may come before the checkpoint is on the disk.
    again = [*arguments(sample, tmp_path, "run"), "checkpoint.asynchronous=false"]
    assert run_training(again, 2, ("train:train_step", 6, 0)) == -9  # continues after step 4
    assert run_training(again, 1, ("train:train_step", 6, 0)) == -9  # continues after step 8
    assert run_training(again, 3) == 0
    run, alone = tmp_path / "run", straight / "ranks1"
    found, expected = (
        {row["step"]: row for row in figures(x) if "rows" in row} for x in (run, alone)
    )
    assert found.keys() == expected.keys() == set(range(1, 13))
    worst = 0.0
    for step, row in found.items():
        assert [n for n, _ in row["rows"]] == [n for n, _ in expected[step]["rows"]]
        assert [n for n, _ in row["rows"]] == list(range((step - 1) * 8, step * 8))
        worst = max(worst, abs(row["loss_nats"] / expected[step]["loss_nats"] - 1))
        assert row["loss_nats"] == pytest.approx(expected[step]["loss_nats"], rel=1e-5)
        for (_, one), (_, other) in zip(row["rows"], expected[step]["rows"], strict=True):
            assert one == pytest.approx(other, rel=1e-4)
    print(f"2 -> 1 -> 3 ranks: largest relative difference of a loss {worst:.1e}")
    for step, sets in evaluations(alone).items():
        for name, result in sets.items():
            assert evaluations(run)[step][name] == pytest.approx(result, rel=1e-5)


def test_a_resumed_run_says_where_and_continues_its_wandb_run(sample, tmp_path):
    again = [*arguments(sample, tmp_path, "run"), "logging.wandb=offline"]
    again.append("checkpoint.asynchronous=false")  # the kill comes after step 4 is on the disk
    assert run_training(again, 1, ("train:train_step", 7, 0)) == -9
    assert run_training(again, 1, output=tmp_path / "output") == 0
    assert "continuing after step 4" in (tmp_path / "output").read_text()
    identity = (tmp_path / "run" / "wandb_id").read_text()
    starts = list((tmp_path / "run" / "wandb").glob("offline-run-*"))
    assert len(starts) == 2
    assert all(start.name.endswith(f"-{identity}") for start in starts)


def test_a_source_may_grow_while_a_run_reads_it(sample, straight, tmp_path, capsys):
    root = tmp_path / "sample"
    shutil.copytree(sample, root)
    again = arguments(root, tmp_path, "run")
    assert run_training(again, 2, ("train:train_step", 7, 0)) == -9
    new = tmp_path / "new.jsonl"
    new.write_bytes(json_lines([f"new {text}" for text in make_texts(200)]))
    append = PrepareConfig(
        name="geo_en",
        inputs=[str(new)],
        out=str(root / "geo_en"),
        append=True,
        avoid=[str(root / name / "held_out.jsonl") for name in SOURCES if name != "geo_en"],
        tokenizer=str(root / "tokenizer"),
        held_out_fraction=HELD_OUT_FRACTION,
        workers=1,
    )
    prepare(append, progress=False)
    assert run_training(again, 2, output=tmp_path / "output") == 0
    run = tmp_path / "run"
    assert_equal_bit_for_bit(run, straight / "ranks2")
    said = (tmp_path / "output").read_text()
    assert said.count("source geo_en is read as it was when this run began, without the") == 1

    traces = []
    for folder in (run, straight / "ranks2"):
        trace(TraceConfig(run=str(folder), step=12, full=True))
        traces.append(capsys.readouterr().out)
    assert " of geo_en" in traces[0]
    assert traces[0] == traces[1]
    assert verify(VerifyConfig(run=str(run), steps=2)).passed

    # A new run reads all of it.
    fresh = [*again, "name=fresh"]
    assert run_training(fresh, 2, ("train:train_step", 1, 0)) == -9
    fingerprint, grown = (
        json.loads((folder / "environment.json").read_text())["data_fingerprints"]["geo_en"]
        for folder in (run, tmp_path / "fresh")
    )
    assert grown == Source(root / "geo_en").fingerprint != fingerprint


def hold_the_folder(arguments, reached):
    import train

    def stop(*_):
        Path(reached).touch()
        while True:
            pass

    train.train_step = stop
    train.train(configure_here(arguments))


def configure_here(arguments):
    from tests.runs import configure

    return configure(*arguments)


def refused(arguments, answer):
    import train

    try:
        train.train(configure_here(arguments))
    except ValueError as error:
        Path(answer).write_text(str(error))


def test_a_second_process_on_a_run_folder_is_refused_until_the_first_is_gone(sample, tmp_path):
    again = arguments(sample, tmp_path, "run")
    reached, answer = tmp_path / "reached", tmp_path / "answer"
    holder = start_ranks(hold_the_folder, 1, again, str(reached))
    while not reached.exists():
        assert holder[0].is_alive()
    before = (tmp_path / "run" / "metrics.jsonl").read_bytes()
    wait_for_all(start_ranks(refused, 1, again, str(answer)))
    assert "another run is working in this folder" in answer.read_text()
    assert (tmp_path / "run" / "metrics.jsonl").read_bytes() == before
    holder[0].kill()  # -9: nothing is left to clean up
    holder[0].join()
    assert run_training(again, 1) == 0


CHANGES = {
    "seed=1": "seed: 0 -> 1",
    "schedule.kind=wsd": "schedule.kind: cosine -> wsd",
    "optim.lr=1e-3": "optim.lr: 0.003 -> 0.001",
    "model.num_hidden_layers=3": "model.num_hidden_layers: 2 -> 3",
    "batch.row_length=128": "batch.row_length: 64 -> 128",
    "batch.tokens_per_step=1024": "batch.tokens_per_step: 512 -> 1024",
    "curriculum.stages.adaptation.tokens=4096": "curriculum.stages.adaptation.tokens: 3072 -> 4096",
    "evaluation.chunk_bytes=40": "evaluation.chunk_bytes: 48 -> 40",
}
HARMLESS = [
    *("logging.every=2", "evaluation.every=3", "checkpoint.every=3", "checkpoint.keep_last=1"),
    *("checkpoint.asynchronous=false", "batch.micro_batch_rows=8", "batch.prefetch=0"),
    *("logging.row_losses=false", "parallel.checkpointing=full"),
]


def test_only_harmless_settings_may_change_when_a_run_is_continued(sample, tmp_path):
    again = arguments(sample, tmp_path, "run")
    assert run_training(again, 1, ("train:train_step", 7, 0)) == -9
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    for change, difference in CHANGES.items():
        answer = tmp_path / "answer"
        wait_for_all(start_ranks(refused, 1, [*again, change], str(answer)))
        assert difference in answer.read_text()
        answer.unlink()
    assert before == {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert run_training([*again, *HARMLESS], 1) == 0
    assert max(losses(tmp_path / "run")) == 12
    assert json.loads((tmp_path / "run" / "environment.json").read_text())["world_size"] == 1
