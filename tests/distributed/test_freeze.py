"""Frozen weights and grown vocabularies on several ranks and in killed runs."""

import itertools
import json

import pytest
from safetensors.torch import load_file

from tests.distributed.test_parallelize import full_weights, relative
from tests.e2e.resume.test_resume import EXACT, assert_equal_bit_for_bit
from tests.helpers.kills import run_training
from tests.helpers.ranks import run_ranks
from tests.helpers.runs import configure, losses, starts, tiny
from tests.unit.training.test_freeze import (
    EMBEDDING,
    HEAD,
    NEW,
    OLD,
    PADDED,
    SHAPES,
    world,  # noqa: F401 fixture
)
from tests.unit.training.test_parallelize import FP32, one_split
from train import train, train_step
from training.distributed import World
from training.evaluate import HeldOutSet, after_bos, evaluate
from training.freeze import freeze

STAGES = ("new_rows", "embeddings", "all", "new_rows")


SPLITS = {  # world size: (settings, micro-batch rows)
    1: [(FP32, 4)],
    2: [(FP32 | {"checkpointing": "full"}, 1), (FP32 | {"strategy": "replicate"}, 3)],
    3: [(FP32, 2)],
}


def train_stages(world: World, shape, settings, micro):
    """Two steps in each stage: losses, norms, weights after each, and who has moments."""
    model, optimizer, batches, run = one_split(world, shape, settings, micro)
    results, weights, moments = [], [full_weights(model)], []
    for trains in STAGES:
        optimizer.state.clear()
        for _ in range(2):
            freeze(model, optimizer, trains)
            results.append(train_step(model, optimizer, batches, run, world))
        weights.append(full_weights(model))
        moments.append(sum(len(state) > 0 for state in optimizer.state.values()))
    return {
        "losses": [result.loss_nats for result in results],
        "norms": [result.grad_norm for result in results],
        "weights": weights,
        "moments": moments,
    }


def train_splits(world: World):
    return [
        [train_stages(world, shape, *split) for split in SPLITS[world.dp_size]] for shape in SHAPES
    ]


@pytest.fixture(scope="module")
def by_size():
    return {size: run_ranks(train_splits, size)[-1] for size in SPLITS}


def moved(before, after):
    """Rows of embedding and head that differ, and whether anything in the layers does."""
    rows = {
        name: (before[name] != after[name]).any(1) for name in before.keys() & {EMBEDDING, HEAD}
    }
    others = [not before[name].equal(after[name]) for name in before.keys() - rows.keys()]
    assert len(set(others)) == 1, "some layers move and some do not"
    return rows, others[0]


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("size", SPLITS)
def test_what_is_frozen_does_not_move_by_a_bit_and_moves_afterwards(by_size, size, tied):
    for result in by_size[size][tied]:
        for number, trains in enumerate(STAGES):
            tables, layers = moved(*result["weights"][number : number + 2])
            assert layers == (trains == "all")
            assert result["moments"][number] == len(tables) + (21 - 2) * layers
            assert len(tables) == 2 - tied
            for rows in tables.values():
                assert not rows[PADDED].any()
                assert rows[NEW].any()
                assert rows[OLD].any() == (trains != "new_rows")


@pytest.mark.parametrize("tied", [False, True])
def test_ranks_and_micro_batches_do_not_change_a_frozen_gradient(by_size, tied):
    expected = by_size[1][tied][0]
    assert min(expected["norms"]) > 1e-3
    assert len(set(expected["norms"])) == len(expected["norms"])
    worst = {"losses": 0.0, "norms": 0.0}
    for result in (result for size in by_size for result in by_size[size][tied]):
        for name in worst:
            worst[name] = max(worst[name], relative(result[name], expected[name]))
    print(f"largest relative differences: {worst}")
    assert max(worst.values()) < 1e-5


def begin_frozen(world: World, shape, look_first):
    """Weights after a frozen and a whole step in 16 bits, with or without an evaluation before."""
    model, optimizer, batches, run = one_split(world, shape, {"dtype": "bfloat16"}, 3)
    if look_first:
        held_out = [HeldOutSet("a", [after_bos([1, 5, 9, 2])], utf8_bytes=3)]
        evaluate(model, held_out, row_length=12, micro_batch_rows=1, world=world)
    for trains in ("embeddings", "all", "embeddings", "all"):
        freeze(model, optimizer, trains)
        train_step(model, optimizer, batches, run, world)
    return full_weights(model)


def begin_both_ways(world: World, shape):
    return [begin_frozen(world, shape, look_first) for look_first in (False, True)]


def test_gradients_of_layers_that_began_frozen_are_reduced_in_fp32():
    """A resumed run begins in the stage that it was in, a straight one with an evaluation."""
    for one, other in run_ranks(begin_both_ways, 2, SHAPES[0]):
        for name in one:
            assert one[name].equal(other[name]), name


# Whole runs: two stages of 2 steps, a checkpoint after each step; row 1901 is the first new one.
GROWING, SHRINKING = ("new_rows", "all"), ("embeddings", "new_rows")


def arguments(sample, folder, name, trains, *more):
    first, second = trains
    return [
        *tiny(sample, folder, *EXACT, "model.num_base_ids=1901"),
        "curriculum.stages.adaptation.tokens=1024",
        "curriculum.stages.specialization.tokens=1024",
        f"curriculum.stages.adaptation.trains={first}",
        f"curriculum.stages.specialization.trains={second}",
        *("checkpoint.every=1", "checkpoint.asynchronous=false"),
        *("evaluation.every=100", "evaluation.max_bytes=200"),
        f"name={name}",
        *more,
    ]


@pytest.fixture(scope="module")
def straight(sample, tmp_path_factory):
    """Uninterrupted runs of 2 ranks, by what their stages train."""
    folder = tmp_path_factory.mktemp("straight")
    for trains in (GROWING, SHRINKING):
        assert run_training(arguments(sample, folder, trains[0], trains), 2) == 0
    return folder


@pytest.mark.parametrize(("trains", "updates"), [(GROWING, [2, 2, 2]), (SHRINKING, [3])])
def test_a_killed_run_continues_bit_for_bit(sample, straight, tmp_path, trains, updates):
    """Inside the first stage, at the border and inside the second one; or at the border only."""
    again = arguments(sample, tmp_path, "run", trains)
    for update in updates:
        assert run_training(again, 2, ("torch.optim:AdamW.step", update, 1)) == -9
    assert run_training(again, 2) == 0
    assert starts(tmp_path / "run") == [0, *itertools.accumulate(n - 1 for n in updates)]
    assert_equal_bit_for_bit(tmp_path / "run", straight / trains[0])


def test_a_grown_run_goes_on_at_other_world_sizes(sample, straight, tmp_path):
    again = arguments(sample, tmp_path, "run", GROWING)
    assert run_training(again, 1, ("train:train_step", 2, 0)) == -9
    assert run_training(again, 3, ("train:train_step", 3, 0)) == -9
    assert run_training(again, 2) == 0
    assert starts(tmp_path / "run") == [0, 1, 3]
    found, expected = losses(tmp_path / "run"), losses(straight / GROWING[0])
    assert found.keys() == expected.keys() == set(range(1, 5))
    for step in found:
        assert found[step] == pytest.approx(expected[step], rel=1e-5)


def test_a_run_from_a_grown_folder_knows_which_rows_are_new(sample, straight, tmp_path):
    before = straight / GROWING[0]
    more = ["model=pretrained", f"init_from={before}", "curriculum.run=[adaptation]"]
    options = arguments(sample, tmp_path, "next", GROWING, *more)
    assert run_training([o for o in options if not o.startswith("model.")], 2) == 0
    one, other = (load_file(run / "model/model.safetensors") for run in (before, tmp_path / "next"))
    tables, layers = moved(one, other)
    assert not layers
    for rows in tables.values():
        assert rows[1901:2048].any()
        assert not rows[:1901].any()
        assert not rows[2048:].any()
    config = json.loads((tmp_path / "next/model/config.json").read_text())
    assert config["num_base_ids"] == 1901


def test_new_rows_of_a_model_that_was_not_grown_are_refused(sample, tmp_path):
    options = arguments(sample, tmp_path, "run", GROWING, "model.num_base_ids=null")
    with pytest.raises(ValueError, match=r"adaptation\.trains=new_rows, but model\.num_base_ids"):
        train(configure(*options))
    assert not (tmp_path / "run").exists()
