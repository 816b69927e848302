"""A run that was killed and continued is the run that was not, bit for bit."""

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from safetensors.torch import load_file

from data.prepare.documents import PrepareConfig, prepare
from data.rows.shards import Source
from data.rows.trace import TraceConfig
from data.sample.build import HELD_OUT_FRACTION
from data.sample.corpus import SOURCES
from scripts.trace import trace
from scripts.verify import verify
from tests.helpers.kills import run_training
from tests.helpers.ranks import start_ranks, wait_for_all
from tests.helpers.runs import evaluations, losses, metrics, starts, tiny
from tests.unit.data.prepare.test_prepare import json_lines, make_texts
from tools.verification.replay import VerifyConfig
from training.run.folder import read_starts

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


def write_half(log, row):
    """What a kill in the middle of `MetricsLog.write` may leave on the disk."""
    line = json.dumps(row)
    log._file.write(line[: len(line) // 2])
    log._file.flush()


@dataclass(frozen=True)
class Instant:
    """When a run dies, and where the next start must go on.

    Attributes:
        function: whose call kills, as for `kill_at_call`.
        call: which one, of that rank at 2 ranks.
        continues: steps after which the next start may go on. One, but where a checkpoint may or
            may not be complete yet; never 0 where there is something to resume.
        waits: checkpoints are written at once, so that it is known which are there.
        partly: what that call has done before.
    """

    function: str
    call: int
    continues: set[int]
    rank: int = 0
    every: int = 4
    waits: bool = True
    partly: Callable[..., None] | None = None


# Evaluations are at 0, 5, 10 and 12, of five sets each; a step makes 2 * (2 / ranks) backward
# passes. Rows of the log: the evaluation at 0, steps 1 to 5, the evaluation at 5, steps 6, 7, ...
KILLS = {
    "before the first step": Instant("train:train_step", 1, {0}),
    "between checkpoints": Instant("train:train_step", 7, {4}),
    "at a checkpoint": Instant("train:train_step", 9, {8}, rank=1),
    # It is begun when the one before is complete.
    "while the checkpoint of the step before is written": Instant(
        "train:train_step", 9, {4, 8}, waits=False
    ),
    "inside accumulation": Instant("torch:Tensor.backward", 14, {4}, rank=1),
    "between gradient and update": Instant("torch.optim:AdamW.step", 6, {4}, rank=1),
    "inside an evaluation": Instant("training.evaluate:pack_pieces", 13, {8}),
    "inside a row of the log": Instant(
        "training.run.metrics:MetricsLog.write", 9, {4}, partly=write_half
    ),
    "at the stage border, on a checkpoint": Instant("train:train_step", 7, {6}, rank=1, every=6),
    "after the stage border": Instant("train:train_step", 8, {5}, every=5),
    "inside a save, before it is sealed": Instant(
        "training.checkpoint.checkpointer:write_manifest", 2, {4}, waits=False
    ),
    "inside a save, on one rank": Instant(
        "training.checkpoint.manifest:fsync_while_writing", 2, {4}, rank=1, waits=False
    ),
    "inside the last export": Instant(
        "pretrained.safetensors_folder:save_file", 1, {12}, waits=False
    ),
}


def arguments(sample, folder, name, every=4, waits=False):
    options = [f"checkpoint.every={every}", f"checkpoint.asynchronous={not waits}"]
    return [*tiny(sample, folder), *EXACT, f"name={name}", *options]


@pytest.fixture(scope="module")
def straight(sample, tmp_path_factory):
    """An uninterrupted run of each world size."""
    folder = tmp_path_factory.mktemp("straight")
    for ranks in (1, 2):
        assert run_training(arguments(sample, folder, f"ranks{ranks}"), ranks) == 0
    return folder


def figures(run):
    """Everything that a run logs and that does not depend on the clock."""
    clock = ("tokens_per_second", "mfu", "mfu_palm", "seconds")
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
    at, run = KILLS[instant], tmp_path / "run"
    call = at.call * 2 if ranks == 1 and at.function.endswith("backward") else at.call
    again = arguments(sample, tmp_path, "run", at.every, at.waits)
    kill = at.function, call, min(at.rank, ranks - 1)
    assert run_training(again, ranks, kill, partly=at.partly) == -9
    assert not (run / "model").exists()
    if at.partly is write_half:
        last = (run / "metrics.jsonl").read_text().splitlines(keepends=True)[-1]
        assert last.startswith('{"step": 7, ')
        assert not last.endswith("\n")
    assert run_training(again, ranks) == 0
    begun, continued = starts(run)
    assert begun == 0
    assert continued in at.continues
    assert_equal_bit_for_bit(run, straight / f"ranks{ranks}")


def test_a_run_killed_again_and_again_arrives(sample, straight, tmp_path):
    again = arguments(sample, tmp_path, "run", every=2, waits=True)
    for _ in range(4):
        assert run_training(again, 2, ("train:train_step", 4, 1)) == -9
    assert run_training(again, 2) == 0
    assert starts(tmp_path / "run") == [0, 2, 4, 6, 8]
    assert_equal_bit_for_bit(tmp_path / "run", straight / "ranks2")


def test_other_world_sizes_read_the_same_rows_and_reach_the_same_losses(sample, straight, tmp_path):
    again = arguments(sample, tmp_path, "run", waits=True)
    for ranks in (2, 1):
        assert run_training(again, ranks, ("train:train_step", 6, 0)) == -9
    assert run_training(again, 3) == 0
    run, alone = tmp_path / "run", straight / "ranks1"
    assert starts(run) == [0, 4, 8]
    assert [start["ranks"] for start in read_starts(run)] == [2, 1, 3]
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
    again = [*arguments(sample, tmp_path, "run", waits=True), "logging.wandb=offline"]
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
    again = arguments(root, tmp_path, "run", waits=True)
    assert run_training(again, 2, ("train:train_step", 7, 0)) == -9
    new = tmp_path / "new.jsonl"
    new.write_bytes(json_lines([f"new {text}" for text in make_texts(200)]))
    append = PrepareConfig(
        name="geo_en",
        inputs=[str(new)],
        out=str(root / "geo_en"),
        append=True,
        decontaminate_against=[
            str(root / name / "held_out.jsonl") for name in SOURCES if name != "geo_en"
        ],
        tokenizer=str(root / "tokenizer"),
        held_out_fraction=HELD_OUT_FRACTION,
        workers=1,
    )
    prepare(append, progress=False)
    assert run_training(again, 2, output=tmp_path / "output") == 0
    run = tmp_path / "run"
    assert starts(run) == [0, 4]
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
    from tests.helpers.runs import configure

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
    # Step 8 is saved when step 4 is on the disk, so there is a checkpoint to go on from.
    assert run_training(again, 1, ("train:train_step", 9, 0)) == -9
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    for change, difference in CHANGES.items():
        answer = tmp_path / "answer"
        wait_for_all(start_ranks(refused, 1, [*again, change], str(answer)))
        assert difference in answer.read_text()
        answer.unlink()
    assert before == {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert run_training([*again, *HARMLESS], 1) == 0
    assert starts(tmp_path / "run")[1:] in ([4], [8])
    assert max(losses(tmp_path / "run")) == 12
    assert json.loads((tmp_path / "run" / "environment.json").read_text())["world_size"] == 1
