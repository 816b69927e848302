import errno
import hashlib
import json
import os
import resource
import shutil
import threading
import zlib
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.tensor import DTensor

import training.checkpoint.checkpointer
import training.checkpoint.manifest
from model.transformer import Mistral
from model.weights import InitialWeights
from tests.helpers.toy import toy_config
from training.checkpoint.checkpointer import CheckpointConfig, Checkpointer
from training.checkpoint.manifest import MARKER, _DigestedFile, _DigestedFiles
from training.checkpoint.state import checkpoint_bytes
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


def build(world: World, seed=0, dtype="float32"):
    with torch.device("meta"):
        model = Mistral(toy_config(**SHAPE))
    source = InitialWeights(model, seed)
    config = ParallelConfig(dtype=dtype)
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


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_what_one_of_the_writing_threads_cannot_write_fails_the_save(world, tmp_path, monkeypatch):
    """torch's writer keeps silent about it, and would leave a checkpoint with holes."""
    model, optimizer = build(world)
    saver = checkpointer(tmp_path, world, keep_last=1)
    saver.save(1, model, optimizer)
    caller_waits, create = threading.Event(), _DigestedFiles.create_stream

    def create_unless_full(self, path, mode):
        if threading.current_thread().name.startswith("Thread-"):
            caller_waits.set()
            raise OSError(errno.ENOSPC, "No space left on device")
        assert caller_waits.wait(60)  # or it might write all files before the others begin
        return create(self, path, mode)

    monkeypatch.setattr(_DigestedFiles, "create_stream", create_unless_full)
    with pytest.raises(ValueError, match=r"(?s)step 2 could .*tensors could not be written"):
        saver.save(2, model, optimizer)
    monkeypatch.undo()
    assert saver.steps() == [1]
    assert saver.load_latest(model, optimizer) == 1
    saver.save(3, model, optimizer)
    assert saver.steps() == [3]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_full_disk_is_called_so(world, tmp_path):
    """A limit of file sizes stands for it: torch, whose archive is cut off, speaks of positions."""
    model, optimizer = build(world)
    saver = checkpointer(tmp_path, world, keep_last=1)
    saver.save(1, model, optimizer)
    largest = max(path.stat().st_size for path in tmp_path.rglob("*.distcp"))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (largest // 2, hard))
    try:
        with pytest.raises(ValueError, match=r"\(process 0: .*File too large.*\)\. Fix the cause"):
            saver.save(2, model, optimizer)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert saver.steps() == [1]
    saver.save(2, model, optimizer)
    assert saver.steps() == [2]


def test_torch_makes_no_checksums_beside_ours(world, tmp_path, monkeypatch):
    """They would cost as much time as the writing; the option counts for one thread."""
    computed, write = [], _DigestedFile.write

    def recorded(file, content):
        computed.append(torch.serialization.get_crc32_options())
        return write(file, content)

    monkeypatch.setattr(_DigestedFile, "write", recorded)
    checkpointer(tmp_path, world).save(1, *build(world))
    assert computed
    assert not any(computed)


def test_an_optimizer_that_has_not_stepped_can_be_saved(world, tmp_path):
    """Saving must not take a step to create the moments, as torch's own helper does, nor invent
    any: what is not there stays away."""
    model, optimizer = build(world)
    checkpointer(tmp_path, world).save(0, model, optimizer)
    other, fresh = build(world, seed=1)
    update(other, fresh, 1)  # moments that the checkpoint does not have
    checkpointer(tmp_path, world).load_latest(other, fresh)
    assert not fresh.state
    straight, its = build(world)
    update(straight, its, 2)
    update(other, fresh, 2)
    assert_equal(everything(other, fresh), everything(straight, its))


def test_moments_are_saved_and_restored_of_what_has_some(world, tmp_path):
    """As where a stage has frozen the rest: what had moments before has none after loading."""
    model, optimizer = build(world)
    model.model.layers.requires_grad_(False)
    update(model, optimizer, 1)
    keeper = checkpointer(tmp_path, world)
    keeper.save(1, model, optimizer)
    expected = everything(model, optimizer)
    assert sum(name.endswith("exp_avg_sq") for name in expected) == 3  # embedding, norm, head
    assert keeper.differences(1, model, optimizer) == []
    other, fresh = build(world, seed=1)
    update(other, fresh, 2)
    name = "model.layers.0.mlp.down_proj.weight.exp_avg"
    assert f"optimizer.{name}" in keeper.differences(1, other, fresh)
    keeper.load_latest(other, fresh)
    assert_equal(everything(other, fresh), expected)
    fresh.state.clear()
    moments = [name for name in expected if ".weight." in name]
    assert keeper.differences(1, other, fresh) == sorted(f"optimizer.{name}" for name in moments)


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


MARKERS = ["null", "[]", '{"files": null}', '{"files": {"a": null}}', "{", "", "directory", "key"]


@pytest.mark.parametrize("damage", ["truncate", "remove", "no marker", "bits", *MARKERS])
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
    elif damage == "directory":
        (folder / MARKER).unlink()
        (folder / MARKER).mkdir()
    elif damage == "key":  # one bit
        marker = (folder / MARKER).read_text()
        (folder / MARKER).write_text(marker.replace("crc32", "crc33", 1))
    elif damage in MARKERS:
        (folder / MARKER).write_text(damage)
    else:
        content = bytearray(shard.read_bytes())
        content[len(content) // 2] ^= 1
        shard.write_bytes(content)
    other, fresh = build(world, seed=1)
    assert keeper.load_latest(other, fresh) == 1
    assert "step-00000002 is damaged" in capsys.readouterr().out
    assert_equal(everything(other, fresh), before)
    assert names(tmp_path) == ["step-00000001", "step-00000002.damaged"]


def two_checkpoints(world, tmp_path):
    model, optimizer = build(world)
    keeper = checkpointer(tmp_path, world)
    keeper.save(1, model, optimizer)
    keeper.save(2, model, optimizer)
    return keeper, model, optimizer


def test_a_run_whose_checkpoints_are_all_damaged_does_not_start_anew(world, tmp_path):
    """Nor at the second try: from step 0 it would overwrite its log."""
    keeper, model, optimizer = two_checkpoints(world, tmp_path)
    for folder in (tmp_path / "checkpoints").iterdir():
        (folder / MARKER).unlink()
    for _ in range(2):
        with pytest.raises(ValueError, match="every checkpoint is damaged; restore one"):
            keeper.load_latest(model, optimizer)
        assert names(tmp_path) == ["step-00000001", "step-00000002"]
    for folder in (tmp_path / "checkpoints").iterdir():
        folder.rename(folder.with_name(folder.name + ".damaged"))
    with pytest.raises(ValueError, match="every checkpoint is damaged"):
        keeper.load_latest(model, optimizer)


@pytest.mark.parametrize("fails", ["digest", "load"])
def test_a_disk_that_cannot_be_read_condemns_no_checkpoint(world, tmp_path, monkeypatch, fails):
    keeper, model, optimizer = two_checkpoints(world, tmp_path)

    def fail(*_, **__):
        raise OSError(5, "Input/output error")

    def fail_in_dcp(*_, **__):
        raise CheckpointException("", {0: (OSError(5, "Input/output error"), None)})

    with monkeypatch.context() as patched:
        if fails == "digest":
            patched.setattr(training.checkpoint.manifest, "crc32_of", fail)
        else:
            patched.setattr(training.checkpoint.checkpointer.dcp, "load", fail_in_dcp)
        with pytest.raises(ValueError, match="Input/output error"):
            keeper.load_latest(model, optimizer)
    assert names(tmp_path) == ["step-00000001", "step-00000002"]
    assert keeper.load_latest(model, optimizer) == 2


def test_a_stray_file_is_no_checkpoint(world, tmp_path):
    keeper, model, optimizer = two_checkpoints(world, tmp_path)
    (tmp_path / "checkpoints" / "step-00000100").write_text("")
    assert keeper.load_latest(model, optimizer) == 2


def test_a_checkpoint_is_on_disk_before_it_has_its_name(world, tmp_path, monkeypatch):
    """Files, then the marker, then their folder, then the name, then the folder of that."""
    events = []
    fsync, rename = os.fsync, Path.rename

    def recorded_fsync(descriptor):
        events.append(Path(f"/proc/self/fd/{descriptor}").readlink())
        fsync(descriptor)

    def recorded_rename(path, target):
        events.append(f"{path.name} -> {target.name}")
        return rename(path, target)

    monkeypatch.setattr(os, "fsync", recorded_fsync)
    monkeypatch.setattr(Path, "rename", recorded_rename)
    model, optimizer = build(world)
    checkpointer(tmp_path, world).save(1, model, optimizer)
    folder = tmp_path / "checkpoints"
    partial = folder / "step-00000001.tmp"
    files = {path.name for path in (folder / "step-00000001").iterdir()} - {MARKER}
    last = {event: place for place, event in enumerate(events)}
    sealed = max(place for event, place in last.items() if Path(event).name.startswith(MARKER))
    assert all(last[partial / name] < sealed for name in files)
    named = last["step-00000001.tmp -> step-00000001"]
    assert sealed < last[partial] < named < last[folder]


def test_the_old_checkpoint_goes_when_the_name_of_the_new_one_is_on_disk(
    world, tmp_path, monkeypatch
):
    """A loss of power may undo a rename that is not, and would then leave neither."""
    model, optimizer = build(world)
    keeper = checkpointer(tmp_path, world, keep_last=1)
    keeper.save(1, model, optimizer)
    folder, fsync, forced = tmp_path / "checkpoints", os.fsync, []

    def recorded_fsync(descriptor):
        fsync(descriptor)
        if Path(f"/proc/self/fd/{descriptor}").readlink() == folder:
            forced.append(names(tmp_path))

    monkeypatch.setattr(os, "fsync", recorded_fsync)
    keeper.save(2, model, optimizer)
    assert ["step-00000001", "step-00000002"] in forced
    assert names(tmp_path) == ["step-00000002"]


def test_the_marker_lists_every_file(world, tmp_path):
    model, optimizer = build(world)
    checkpointer(tmp_path, world).save(1, model, optimizer)
    folder = tmp_path / "checkpoints" / "step-00000001"
    files = json.loads((folder / MARKER).read_text())["files"]
    assert set(files) == {path.name for path in folder.iterdir()} - {MARKER}
    for name, entry in files.items():
        content = (folder / name).read_bytes()
        assert entry == {"size": len(content), "crc32": f"{zlib.crc32(content):08x}"}


def test_a_marker_of_earlier_versions_is_understood(world, tmp_path):
    """Theirs held SHA-256."""
    keeper, *_ = two_checkpoints(world, tmp_path)
    for step in (1, 2):
        folder = tmp_path / "checkpoints" / f"step-{step:08d}"
        files = json.loads((folder / MARKER).read_text())["files"]
        earlier = {
            name: {
                "size": entry["size"],
                "sha256": hashlib.sha256((folder / name).read_bytes()).hexdigest(),
            }
            for name, entry in files.items()
        }
        (folder / MARKER).write_text(json.dumps({"files": earlier}))
    shard = next(folder.glob("*.distcp"))
    content = bytearray(shard.read_bytes())
    content[-1] ^= 1
    shard.write_bytes(content)
    assert keeper.damage(1) is None
    assert keeper.damage(2) == f"{shard.name} has changed since it was written"


def test_training_goes_on_while_a_checkpoint_is_written(world, tmp_path, monkeypatch):
    """What is saved is the state at the time of `save`, whatever happens to it afterwards."""
    model, optimizer = build(world)
    update(model, optimizer, 1)
    expected = everything(model, optimizer)
    may_write, written = threading.Event(), []

    def slow(*arguments, **options):
        assert may_write.wait(60)
        written.append(dcp_save(*arguments, **options))

    dcp_save = training.checkpoint.checkpointer.dcp.save
    monkeypatch.setattr(training.checkpoint.checkpointer.dcp, "save", slow)
    with checkpointer(tmp_path, world, asynchronous=True) as keeper:
        keeper.save(1, model, optimizer)
        update(model, optimizer, 2)  # returns although nothing is written yet
        assert not written
        assert keeper.steps() == []
        threading.Timer(0.2, may_write.set).start()
        keeper.save(3, model, optimizer)  # one in flight: waits for the first
        assert keeper.steps()[:1] == [1]
    assert keeper.steps() == [1, 3]
    shutil.rmtree(tmp_path / "checkpoints" / "step-00000003")
    other, fresh = build(world, seed=1)
    assert keeper.load_latest(other, fresh) == 1
    assert_equal(everything(other, fresh), expected)


def test_a_checkpoint_that_cannot_be_written_is_reported_and_costs_no_other(
    world, tmp_path, monkeypatch
):
    model, optimizer = build(world)
    keeper = checkpointer(tmp_path, world, asynchronous=True, keep_last=1)
    keeper.save(1, model, optimizer)
    keeper.wait()

    def full(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        keeper.save(2, model, optimizer)
        with pytest.raises(
            ValueError,
            match=r"written .*\(process 0: .*No space left on device\)\. Fix the cause",
        ):
            keeper.wait()
    assert keeper.steps() == [1]
    keeper.save(2, model, optimizer)
    keeper.wait()
    assert names(tmp_path) == ["step-00000002"]


def test_room_is_checked_before_anything_is_written(world, tmp_path, monkeypatch):
    model, optimizer = build(world)
    update(model, optimizer, 1)
    keeper = checkpointer(tmp_path, world, keep_last=2)
    keeper.save(1, model, optimizer)
    size = sum(path.stat().st_size for path in (tmp_path / "checkpoints").rglob("*.distcp"))
    needed = checkpoint_bytes(model, optimizer)
    assert needed == pytest.approx(size, rel=0.5)  # of toy tensors, file headers are a good part
    usage = SimpleNamespace(free=needed - 1)
    monkeypatch.setattr(training.checkpoint.checkpointer.shutil, "disk_usage", lambda _: usage)
    with pytest.raises(ValueError, match=r"GiB are needed .* are free; make room"):
        keeper.save(2, model, optimizer)
    assert names(tmp_path) == ["step-00000001"]
    # At the start of a run: as many as will exist at a time, less those that do already.
    usage.free = 2 * needed
    keeper.check_space(model, optimizer, 100 * 500)
    usage.free -= 1
    with pytest.raises(ValueError, match="are needed"):
        keeper.check_space(model, optimizer, 100 * 500)
    keeper.check_space(model, optimizer, 2 * 500)
    # What `keep_every` keeps counts as well: steps 4, 8, 12, ... of a save every 2 steps.
    usage.free = (2 + 1 + 50 - 1) * needed
    keeper.config = CheckpointConfig(every=2, keep_last=2, keep_every=4)
    keeper.check_space(model, optimizer, 100 * 2)
    usage.free -= 1
    with pytest.raises(ValueError, match="keep fewer"):
        keeper.check_space(model, optimizer, 100 * 2)
