"""Checkpoints of two ranks. A save, one of them killed before one of its file operations: old or
new state. A part of either rank damaged: both go on from the one before."""

import shutil
from contextlib import redirect_stdout
from io import StringIO

import pytest

from tests.distributed.test_checkpoint import load_and_save_again, state_after
from tests.helpers.kills import count_file_operations
from tests.helpers.ranks import run_ranks, start_ranks, wait_for_all
from tests.unit.training.checkpoint.test_checkpoint import assert_equal, build, checkpointer, update
from training.distributed import start_world

RANKS = 2


def save_and_die(world, folder, rank, kill_at):
    """Continue after step 2; one rank dies in the save of step 3; returns what each rank did."""
    model, optimizer = build(world)
    keeper = checkpointer(folder, world, asynchronous=True, keep_last=1)
    assert keeper.load_latest(model, optimizer) == 2
    update(model, optimizer, 1)
    done = count_file_operations(folder / "checkpoints", kill_at if world.rank == rank else None)
    with keeper:
        keeper.save(3, model, optimizer)
    return done


def die(folder, rank, kill_at):
    with start_world("cpu") as world:
        save_and_die(world, folder, rank, kill_at)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """What each step's state is, a folder with that of step 2, and what each rank does to save."""
    folder = tmp_path_factory.mktemp("ranks")
    states = run_ranks(state_after, RANKS, folder / "states", 3)[0]
    run_ranks(state_after, RANKS, folder / "base", 2)
    shutil.copytree(folder / "base", folder / "counted")
    operations = run_ranks(save_and_die, RANKS, folder / "counted", None, None)
    # Both write shards; one of them also seals, renames and prunes.
    assert all(any(".distcp" in operation for operation in done) for done in operations)
    assert [sum(x.startswith("os.rename") for x in done) > 1 for done in operations] == [
        True,
        False,
    ]
    return states, folder / "base", operations


@pytest.mark.parametrize(
    ("rank", "every"),
    [
        (0, 5),
        (1, 5),
        pytest.param(0, 1, marks=pytest.mark.slow),
        pytest.param(1, 1, marks=pytest.mark.slow),
    ],
)
def test_a_save_of_two_ranks_of_which_one_is_killed_leaves_a_loadable_state(
    saved, tmp_path, rank, every
):
    states, base, operations = saved
    last = len(operations[rank]) - 1
    survived = []
    for number in sorted({*range(0, last, every), last}):
        folder = tmp_path / f"killed-{number}"
        shutil.copytree(base, folder)
        processes = start_ranks(die, RANKS, folder, rank, number)
        wait_for_all(processes)
        assert processes[rank].exitcode == -9, operations[rank][number]
        steps = set()
        for step, loaded, left in run_ranks(load_and_save_again, RANKS, folder):
            assert_equal(loaded, states[step])
            assert left == [f"step-{step + 1:08d}"], operations[rank][number]
            steps.add(step)
        survived += steps
        assert len(steps) == 1  # all ranks go on from the same
    assert survived == sorted(survived)
    # What makes the checkpoint appear is the business of rank 0.
    assert set(survived) == ({2, 3} if rank == 0 else {2})


def load_and_listen(world, folder):
    with redirect_stdout(StringIO()) as said:
        step, loaded, left = load_and_save_again(world, folder)
    return step, loaded, left, said.getvalue()


@pytest.mark.parametrize("part", ["__0_0.distcp", "__1_0.distcp"])
def test_a_damaged_part_of_one_rank_sends_both_to_the_checkpoint_before(saved, tmp_path, part):
    """Each rank looks at some of the files only: what one finds, all must hear."""
    states, base, _ = saved
    newest = tmp_path / "checkpoints" / "step-00000003"
    shutil.copytree(base, tmp_path, dirs_exist_ok=True)
    shutil.copytree(base.parent / "states" / "checkpoints" / newest.name, newest)
    content = bytearray((newest / part).read_bytes())
    content[len(content) // 2] ^= 1
    (newest / part).write_bytes(content)
    results = run_ranks(load_and_listen, RANKS, tmp_path)
    for step, loaded, left, _ in results:
        assert step == 2
        assert_equal(loaded, states[2])
        assert left == ["step-00000003", "step-00000003.damaged"]  # and 2 is pruned
    assert f"step-00000003 is damaged ({part} has changed" in results[0][-1]
