"""Checkpoints of killed saves and of other world sizes."""

import shutil

from safetensors.torch import load_file

from tests.helpers.kills import count_file_operations
from tests.helpers.ranks import run_ranks, start_ranks, wait_for_all
from tests.unit.training.checkpoint.test_checkpoint import (
    assert_equal,
    build,
    checkpointer,
    everything,
    names,
    update,
    world,  # noqa: F401 fixture
)
from training.checkpoint.export import export
from training.distributed import start_world
from training.evaluate import HeldOutSet, after_bos, evaluate


def save_then_report(world, folder, steps):
    model, optimizer = build(world)
    keeper = checkpointer(folder, world)
    keeper.load_latest(model, optimizer)
    loaded = everything(model, optimizer)
    update(model, optimizer, steps)
    keeper.save(steps + (max(keeper.steps(), default=0)), model, optimizer)
    return loaded, everything(model, optimizer)


def state_after(world, folder, steps):
    """Weights and moments after some updates, and what has been saved on the way."""
    model, optimizer = build(world)
    states = {}
    for step in range(1, steps + 1):
        update(model, optimizer, 1)
        states[step] = everything(model, optimizer)
        checkpointer(folder, world, keep_last=1).save(step, model, optimizer)
    return states


def save_killed(world, folder, kill_at):
    """Continue after the newest checkpoint, and die in the next save; returns what it did."""
    model, optimizer = build(world)
    keeper = checkpointer(folder, world, asynchronous=True, keep_last=1)
    step = keeper.load_latest(model, optimizer)
    update(model, optimizer, 1)
    done = count_file_operations(folder / "checkpoints", kill_at)
    with keeper:
        keeper.save(step + 1, model, optimizer)
    return done


def load_and_save_again(world, folder):
    model, optimizer = build(world, seed=1)
    keeper = checkpointer(folder, world, keep_last=1)
    step = keeper.load_latest(model, optimizer)
    loaded = everything(model, optimizer)
    update(model, optimizer, 1)
    keeper.save(step + 1, model, optimizer)
    return step, loaded, names(folder)


def test_a_save_killed_before_any_file_operation_leaves_a_loadable_state(tmp_path):
    states = run_ranks(state_after, 1, tmp_path / "states", 3)[0]
    base = tmp_path / "base"
    run_ranks(state_after, 1, base, 2)
    shutil.copytree(base, tmp_path / "counted")
    (operations,) = run_ranks(save_killed, 1, tmp_path / "counted", None)
    # Shard metadata, marker, folder, and the old folder out of sight: four renames.
    assert sum(operation.startswith("os.rename") for operation in operations) == 4
    assert len(operations) > 15
    survived = []
    for number, operation in enumerate(operations):
        folder = tmp_path / f"killed-{number}"
        shutil.copytree(base, folder)
        processes = start_ranks(die_in_save, 1, folder, number)
        wait_for_all(processes)
        assert processes[0].exitcode == -9, operation
        ((step, loaded, left),) = run_ranks(load_and_save_again, 1, folder)
        assert_equal(loaded, states[step])
        assert left == [f"step-{step + 1:08d}"], operation
        survived.append(step)
    # Up to one instant it is the old one, from then on the new one.
    assert survived == sorted(survived)
    assert set(survived) == {2, 3}


def die_in_save(folder, kill_at):
    with start_world("cpu") as world:
        save_killed(world, folder, kill_at)


def evaluate_then_save(world, folder):
    """Mixed precision: an evaluation leaves gathered 16-bit copies behind."""
    model, optimizer = build(world, dtype="bfloat16")
    update(model, optimizer, 1)
    before = everything(model, optimizer)
    held_out = [HeldOutSet("a", [after_bos([1, 5, 9, 2])], utf8_bytes=3)]
    evaluate(model, held_out, row_length=12, micro_batch_rows=1, world=world)
    checkpointer(folder, world).save(1, model, optimizer)
    other, fresh = build(world, seed=1)
    checkpointer(folder, world).load_latest(other, fresh)
    export(model, folder / "model", None, "float32", world)
    return before, everything(model, optimizer), everything(other, fresh)


def test_an_evaluation_does_not_round_what_is_saved_after_it(tmp_path):
    before, after, loaded = run_ranks(evaluate_then_save, 2, tmp_path)[0]
    assert_equal(after, before)
    assert_equal(loaded, before)
    exported = load_file(tmp_path / "model" / "model.safetensors")
    assert_equal(exported, {name: before[name] for name in exported})


def test_another_world_size_loads_the_same_state(tmp_path):
    saved = run_ranks(save_then_report, 2, tmp_path, 2)[0][1]
    for size in (1, 3):
        loaded, after = run_ranks(save_then_report, size, tmp_path, 1)[size - 1]
        assert_equal(loaded, saved)
        saved = after
