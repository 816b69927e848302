import json

import pytest
import torch
from torch.distributed.tensor import DTensor

from model.transformer import Mistral
from model.weights import InitialWeights
from tests.ranks import run_ranks
from tests.toy import toy_config
from training.checkpoint import MARKER, CheckpointConfig, Checkpointer
from training.distributed import World, start_world
from training.optim import OptimConfig, build_optimizer
from training.parallelize import (
    ParallelConfig,
    build_mesh,
    clean_named_parameters,
    materialize,
    parallelize,
)

# 37 ids, 3 layers: what 2 or 3 ranks keep is uneven.
SHAPE = {"vocab_size": 37, "num_hidden_layers": 3}


def build(world: World, seed=0):
    with torch.device("meta"):
        model = Mistral(toy_config(**SHAPE))
    source = InitialWeights(model, seed)
    config = ParallelConfig(dtype="float32")
    parallelize(model, config, build_mesh(config, world))
    materialize(model, source, world.device)
    return model, build_optimizer(model, OptimConfig(lr=1e-2))


def update(model, optimizer, steps):
    for step in range(steps):
        tokens = (torch.arange(24).view(2, 12) * (step + 3)) % 37
        (model(tokens, labels=tokens).total / 24).backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)


def full(tensor):
    tensor = tensor.detach()
    return (tensor.full_tensor() if isinstance(tensor, DTensor) else tensor).clone()


def everything(model, optimizer):
    state = {}
    for name, parameter in clean_named_parameters(model):
        state[name] = full(parameter)
        for key, value in optimizer.state[parameter].items():
            state[f"{name}.{key}"] = full(value)
    return state


def assert_equal(left, right):
    assert left.keys() == right.keys()
    for name in left:
        torch.testing.assert_close(left[name], right[name], rtol=0, atol=0, msg=name)


@pytest.fixture
def world():
    with start_world("cpu") as world:
        yield world


def checkpointer(folder, world, asynchronous=False, **config):
    config = CheckpointConfig(asynchronous=asynchronous, **config)
    return Checkpointer(folder / "checkpoints", config, world)


def test_what_was_saved_comes_back_bit_for_bit(world, tmp_path):
    model, optimizer = build(world)
    update(model, optimizer, 2)
    expected = everything(model, optimizer)
    checkpointer(tmp_path, world).save(2, model, optimizer)
    other, fresh = build(world, seed=1)
    assert checkpointer(tmp_path, world).load_latest(other, fresh) == 2
    assert_equal(everything(other, fresh), expected)
    update(model, optimizer, 1)
    update(other, fresh, 1)
    assert_equal(everything(other, fresh), everything(model, optimizer))


def test_an_optimizer_that_has_not_stepped_can_be_saved(world, tmp_path):
    """Saving must not take a step to create the moments, as torch's own helper does."""
    model, optimizer = build(world)
    checkpointer(tmp_path, world).save(0, model, optimizer)
    other, fresh = build(world, seed=1)
    checkpointer(tmp_path, world).load_latest(other, fresh)
    for _, parameter in clean_named_parameters(other):
        assert float(fresh.state[parameter]["step"]) == 0
    straight, its = build(world)
    update(straight, its, 2)
    update(other, fresh, 2)
    assert_equal(everything(other, fresh), everything(straight, its))


def test_nothing_to_load(world, tmp_path):
    assert checkpointer(tmp_path, world).load_latest(*build(world)) is None


def names(folder):
    return sorted(path.name for path in (folder / "checkpoints").iterdir())


def test_retention(world, tmp_path):
    model, optimizer = build(world)
    keeper = checkpointer(tmp_path, world, keep_last=2, keep_every=20)
    for step in (10, 20, 30, 40, 50):
        keeper.save(step, model, optimizer)
    assert names(tmp_path) == [f"step-{step:08d}" for step in (20, 40, 50)]
    assert keeper.steps() == [20, 40, 50]


def test_an_interrupted_save_is_never_read_and_does_not_stand_in_the_way(world, tmp_path):
    model, optimizer = build(world)
    keeper = checkpointer(tmp_path, world)
    keeper.save(1, model, optimizer)
    partial = tmp_path / "checkpoints" / "step-00000002.tmp"
    partial.mkdir()
    (partial / "__0_0.distcp").write_bytes(b"half")
    assert keeper.load_latest(model, optimizer) == 1
    keeper.save(2, model, optimizer)
    assert names(tmp_path) == ["step-00000001", "step-00000002"]


@pytest.mark.parametrize("damage", ["truncate", "remove", "no marker", "bits"])
def test_damage_is_reported_and_the_one_before_is_used(world, tmp_path, capsys, damage):
    model, optimizer = build(world)
    keeper = checkpointer(tmp_path, world)
    keeper.save(1, model, optimizer)
    before = everything(model, optimizer)
    update(model, optimizer, 1)
    keeper.save(2, model, optimizer)
    folder = tmp_path / "checkpoints" / "step-00000002"
    shard = next(folder.glob("*.distcp"))
    if damage == "truncate":
        shard.write_bytes(shard.read_bytes()[:-1])
    elif damage == "remove":
        shard.unlink()
    elif damage == "no marker":
        (folder / MARKER).unlink()
    else:
        content = bytearray(shard.read_bytes())
        content[len(content) // 2] ^= 1
        shard.write_bytes(content)
    other, fresh = build(world, seed=1)
    assert keeper.load_latest(other, fresh) == 1
    assert "step-00000002 is damaged" in capsys.readouterr().out
    assert_equal(everything(other, fresh), before)


def test_the_marker_lists_every_file(world, tmp_path):
    model, optimizer = build(world)
    checkpointer(tmp_path, world).save(1, model, optimizer)
    folder = tmp_path / "checkpoints" / "step-00000001"
    files = json.loads((folder / MARKER).read_text())["files"]
    assert set(files) == {path.name for path in folder.iterdir()} - {MARKER}
    for name, entry in files.items():
        assert entry["size"] == (folder / name).stat().st_size


def save_then_report(world, folder, steps):
    model, optimizer = build(world)
    keeper = checkpointer(folder, world)
    keeper.load_latest(model, optimizer)
    loaded = everything(model, optimizer)
    update(model, optimizer, steps)
    keeper.save(steps + (max(keeper.steps(), default=0)), model, optimizer)
    return loaded, everything(model, optimizer)


@pytest.mark.distributed
def test_another_world_size_loads_the_same_state(tmp_path):
    saved = run_ranks(save_then_report, 2, tmp_path, 2)[0][1]
    for size in (1, 3):
        loaded, after = run_ranks(save_then_report, size, tmp_path, 1)[size - 1]
        assert_equal(loaded, saved)
        saved = after
