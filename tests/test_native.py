"""The decode step in C is the network's own, of any shape, and is done without where it must be."""

import shutil
import stat
import subprocess
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from pathlib import Path

import pytest
import torch

from model import native
from model.lora import LoraConfig, add_lora
from model.native import NativeMistral, can_compile, library
from model.packed import PackedMistral
from model.runner import Runner
from tests.toy import random_tokens, randomize, toy_config, toy_model

CPUINFO = Path("/proc/cpuinfo")
# Not `library() is None`: a step that no longer compiles must fail here, not be skipped.
needs_compiler = pytest.mark.skipif(
    shutil.which("gcc") is None or not CPUINFO.exists() or "avx512f" not in CPUINFO.read_text(),
    reason="needs GCC with OpenMP and a processor with AVX-512",
)


def compare(model, lengths, steps=5, threads=2, own=True):
    """The largest difference from the network in fp64, by its largest logit, over some steps.

    Args:
        own: by the step in C; else by the network.
    """
    ours = Runner(model, pack=False)
    ours.packed = NativeMistral(model) if own else None
    exact = Runner(toy_model(model.config).double(), pack=False)
    exact.model.load_state_dict({k: v.double() for k, v in model.state_dict().items()})
    prompts = [random_tokens(model.config, 1, n, seed=n)[0].tolist() for n in lengths]
    caches = [runner.new_cache(len(lengths), 0) for runner in (ours, exact)]
    for runner, cache in zip((ours, exact), caches, strict=True):
        runner.prefill(prompts, cache)
    worst, before = 0.0, torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        for step in range(steps):
            ids = random_tokens(model.config, len(lengths), 1, seed=99 + step)[:, 0]
            one, other = ours.decode(ids, caches[0]), exact.decode(ids, caches[1])
            assert one.dtype == model.lm_head.weight.dtype
            worst = max(worst, float((one.double() - other).abs().max() / other.abs().max()))
    finally:
        torch.set_num_threads(before)
    assert caches[0].lengths == caches[1].lengths
    return worst


SHAPES = {
    "toy": {},
    "tiles": {"hidden_size": 64, "intermediate_size": 96, "head_dim": 32, "vocab_size": 80},
    "odd": {"hidden_size": 43, "intermediate_size": 67, "head_dim": 10, "vocab_size": 51},
    "one key head": {"num_attention_heads": 6, "num_key_value_heads": 1, "head_dim": 20},
    "all key heads": {"num_attention_heads": 3, "num_key_value_heads": 3, "head_dim": 48},
    "tied, no window": {"tie_word_embeddings": True, "sliding_window": None},
    "padded": {"vocab_size": 67, "num_padded_ids": 3},
}


@needs_compiler
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("lengths", [[1], [5, 30], list(range(1, 8)), list(range(3, 22))], ids=len)
def test_it_is_the_network(shape, lengths):
    model = toy_model(toy_config(**shape))
    for threads in (1, 3):
        assert compare(model, lengths, threads=threads) < 1e-5
    model.bfloat16()
    assert compare(model, lengths) < 2 * compare(model, lengths, own=False)


@needs_compiler
def test_across_the_window_and_as_rings_grow():
    model = toy_model(toy_config(sliding_window=8))
    assert compare(model, [1, 6, 7, 12], steps=20) < 1e-5
    model = toy_model(toy_config(sliding_window=None))
    assert compare(model, [3, 250], steps=12) < 1e-5


@needs_compiler
def test_an_adapter_is_merged():
    model = toy_model(toy_config())
    add_lora(model, LoraConfig(rank=3, alpha=5.0))
    randomize(model, 0.3)
    tokens = random_tokens(model.config, 2, 9)
    runner = Runner(model)
    assert isinstance(runner.packed, NativeMistral)
    cache = runner.new_cache(2, 0)
    runner.prefill(tokens[:, :8].tolist(), cache)
    with torch.no_grad():
        torch.testing.assert_close(
            runner.decode(tokens[:, 8], cache), model(tokens)[:, -1], rtol=0, atol=1e-4
        )
    assert not can_compile(model.bfloat16())  # where a merged update would be rounded away


@needs_compiler
def test_large_numbers_stay_finite():
    """Scores and gates whose exponentials no float holds."""
    model = toy_model(toy_config())
    randomize(model, 30.0)
    assert compare(model, [5, 9]) < 1e-3


@needs_compiler
def test_many_sequences_go_the_other_way(monkeypatch):
    monkeypatch.setattr(native, "MOST_ROWS", 2)
    step = NativeMistral(toy_model(toy_config()))
    asked, real = [], step.many or step.model
    step.many = lambda tokens, cache: (asked.append(len(tokens)), real(tokens, cache=cache))[1]
    runner = Runner(toy_model(toy_config()), pack=False)
    runner.packed = step
    for rows in (2, 3):
        cache = runner.new_cache(rows, 0)
        runner.prefill([[1, 2]] * rows, cache)
        runner.decode(torch.ones(rows, dtype=torch.long), cache)
    assert asked == [3]


@needs_compiler
def test_threads_with_caches_of_their_own_do_not_meet():
    """As the server's slots decode: one step, several sequences of unlike length at once."""
    runner = Runner(toy_model(toy_config(sliding_window=None)))
    assert isinstance(runner.packed, NativeMistral)

    def decoded(length):
        cache = runner.new_cache(1, 0)
        runner.prefill([random_tokens(runner.model.config, 1, length)[0].tolist()], cache)
        return torch.cat([runner.decode(torch.tensor([n]), cache) for n in range(40)])

    lengths = [3, 300, 40, 7]
    alone = [decoded(length) for length in lengths]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(decoded, lengths))
    assert all(torch.equal(one, other) for one, other in zip(alone, together, strict=True))


@needs_compiler
@pytest.mark.parametrize("id", [-1, 64])
def test_an_id_beyond_the_vocabulary_is_refused(id):
    runner = Runner(toy_model(toy_config(vocab_size=64)))
    cache = runner.new_cache(1, 0)
    runner.prefill([[1, 2]], cache)
    with pytest.raises(IndexError, match="is not below 64"):
        runner.decode(torch.tensor([id]), cache)
    assert cache.lengths == [2]


@needs_compiler
def test_under_another_default_dtype(monkeypatch):
    model = toy_model(toy_config())
    torch.set_default_dtype(torch.bfloat16)
    try:
        assert compare_one(model) < 1e-5
    finally:
        torch.set_default_dtype(torch.float32)


def compare_one(model):
    """One step's difference from the network."""
    runner, tokens = Runner(model), random_tokens(model.config, 1, 6)
    cache = runner.new_cache(1, 0)
    runner.prefill(tokens[:, :5].tolist(), cache)
    with torch.no_grad():
        return float((runner.decode(tokens[:, 5], cache) - model(tokens)[:, -1]).abs().max())


@pytest.fixture
def fresh(tmp_path, monkeypatch):
    """No library has been built, and the cache is a folder of this test."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    library.cache_clear()
    yield tmp_path / "jiuzhou"
    library.cache_clear()


@needs_compiler
def test_it_is_built_once(fresh, monkeypatch):
    calls = count()
    real = subprocess.run
    monkeypatch.setattr(
        subprocess, "run", lambda command, **more: (next(calls), real(command, **more))[1]
    )
    assert library() is not None
    (built,) = fresh.iterdir()
    library.cache_clear()
    assert library() is not None
    assert list(fresh.iterdir()) == [built]
    assert next(calls) == 3  # the version, the build, the version


@needs_compiler
@pytest.mark.parametrize("damage", [b"", b"cut off"])
def test_a_damaged_library_is_built_anew(fresh, damage):
    assert library() is not None
    (built,) = fresh.iterdir()
    whole = built.read_bytes()
    built.unlink()  # what has been loaded is not written into
    built.write_bytes(damage)
    library.cache_clear()
    assert library() is not None
    (again,) = fresh.iterdir()
    assert again.read_bytes() == whole or again.name != built.name


@pytest.mark.parametrize("compiler", ["false", "nothing-of-this-name"])
def test_without_a_compiler_another_step_decodes(fresh, monkeypatch, compiler):
    monkeypatch.setenv("CC", compiler)
    model = toy_model(toy_config())
    assert library() is None
    assert not can_compile(model)
    assert isinstance(Runner(model).packed, PackedMistral | None)
    assert not fresh.exists() or not list(fresh.iterdir())


def test_a_failing_build_leaves_nothing(fresh, monkeypatch):
    compiler = fresh.parent / "cc"
    compiler.write_text('#!/bin/sh\n[ "$1" = --version ] && exit 0\nexit 1\n')
    compiler.chmod(compiler.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("CC", str(compiler))
    assert library() is None
    assert list(fresh.iterdir()) == []


@needs_compiler
def test_a_cache_that_cannot_be_written_is_done_without(fresh, monkeypatch):
    fresh.parent.joinpath("jiuzhou").write_text("a file where the folder would be")
    assert library() is not None
    assert fresh.read_text().startswith("a file")
