"""A run may be continued with other settings of `parallel`: the losses stay what they were."""

import shutil

import pytest

from tests.helpers.kills import run_training
from tests.helpers.runs import evaluations, losses, tiny
from training.run.folder import read_starts

STEPS, CHECKPOINT = 8, 4

# (ranks, overrides, what starts.jsonl then says).
CHANGES = [
    (1, ["parallel.checkpointing=full"], {"checkpointing": "full"}),
    (1, ["parallel.checkpointing=selective"], {"checkpointing": "selective"}),
    (
        1,
        ["parallel.checkpointing=full", "parallel.checkpointed_layers=1"],
        {"checkpointing": "full"},
    ),
    (1, ["parallel.attention=reference"], {"attention": "reference"}),
    (2, ["parallel.strategy=replicate"], {"strategy": "replicate"}),
    (2, ["parallel.strategy=hsdp", "parallel.shard_ranks=2"], {"strategy": "hsdp"}),
    pytest.param(1, ["parallel.compile=true"], {"compile": True}, marks=pytest.mark.slow),
    pytest.param(
        2,
        ["parallel.compile=true", "parallel.checkpointing=full", "parallel.strategy=replicate"],
        {"compile": True},
        marks=pytest.mark.slow,
    ),
]


def arguments(sample, folder, ranks):
    return [
        *tiny(sample, folder),
        "+experiment=tspt",
        "curriculum.stages.adaptation.tokens=3072",  # 6 steps
        "curriculum.stages.specialization.tokens=1024",  # 2 steps
        "batch.micro_batch_rows=2",
        "evaluation.every=6",
        "evaluation.max_bytes=500",
        f"checkpoint.every={CHECKPOINT}",
        f"name=ranks{ranks}",
    ]


@pytest.fixture(scope="module")
def straight(sample, tmp_path_factory):
    """An uninterrupted run of each world size, made when it is first asked for."""
    folder = tmp_path_factory.mktemp("straight")

    def run(ranks):
        if not (folder / f"ranks{ranks}").exists():
            assert run_training(arguments(sample, folder, ranks), ranks) == 0
        return folder / f"ranks{ranks}"

    return run


def as_if_killed(run, copy):
    """The run as it was after its first checkpoint; the log goes on, as it does before a kill."""
    shutil.copytree(run, copy)
    shutil.rmtree(copy / "model")
    shutil.rmtree(copy / "checkpoints" / f"step-{STEPS:08d}")


@pytest.mark.parametrize(("ranks", "change", "said"), CHANGES)
def test_harmless_settings_do_not_change_what_is_computed(
    sample, straight, tmp_path, ranks, change, said
):
    expected, run = straight(ranks), tmp_path / f"ranks{ranks}"
    as_if_killed(expected, run)
    assert run_training([*arguments(sample, tmp_path, ranks), *change], ranks) == 0
    before, after = read_starts(run)
    assert (before["step"], after["step"]) == (0, CHECKPOINT)
    for name, value in said.items():
        assert value == after[name] != before[name]
    found, known = losses(run), losses(expected)
    assert found.keys() == known.keys() == set(range(1, STEPS + 1))
    worst = max(abs(found[step][0] / known[step][0] - 1) for step in known)
    print(f"{' '.join(change)}: largest relative difference of a loss {worst:.1e}")
    assert worst <= 1e-5
    for step in known:
        assert found[step][1] == pytest.approx(known[step][1], rel=1e-4)
    asked = evaluations(run)
    first = min(asked)
    for step, sets in evaluations(expected).items():
        for name, result in sets.items():
            # The change since the start follows from two figures, each of which is held to 1e-5.
            moved = asked[step][name].pop("delta_bits_per_byte")
            del result["delta_bits_per_byte"]
            assert asked[step][name] == pytest.approx(result, rel=1e-5)
            figures = (asked[at][name]["bits_per_byte"] for at in (step, first))
            assert moved == pytest.approx(next(figures) - next(figures), abs=1e-12)
