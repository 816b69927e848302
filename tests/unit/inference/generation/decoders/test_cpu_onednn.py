"""The packed decode step computes the network's logits, for every shape, dtype and thread."""

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from inference.generation.decoders.cpu_onednn import OneDnnDecoder, supports_onednn
from inference.generation.engine import Engine
from model.adapters import add_lora
from model.lora.layer import LoraConfig
from tests.helpers.toy import random_tokens, randomize, toy_config, toy_model

needs_libraries = pytest.mark.skipif(
    not (torch.backends.mkldnn.is_available() and torch.backends.mkl.is_available()),
    reason="needs a PyTorch with MKL and oneDNN",
)


def compare(model, lengths, steps=5, threads=2, packed=True):
    """Largest difference from the network in fp64, relative to its largest logit.

    Args:
        packed: decode with the packed step; else with the network.
    """
    ours = Engine(model, decoder="plain")
    ours.decoder = OneDnnDecoder(model) if packed else None
    exact = Engine(toy_model(model.config).double(), decoder="plain")
    exact.model.load_state_dict({k: v.double() for k, v in model.state_dict().items()})
    prompts = [random_tokens(model.config, 1, n, seed=n)[0].tolist() for n in lengths]
    caches = [engine.new_cache(len(lengths), 0) for engine in (ours, exact)]
    for engine, cache in zip((ours, exact), caches, strict=True):
        engine.prefill(prompts, cache)
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


@needs_libraries
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("lengths", [[1], [5, 30], list(range(1, 8)), list(range(3, 22))], ids=len)
def test_the_packed_step_is_the_network(shape, lengths):
    model = toy_model(toy_config(**shape))
    for threads in (1, 3):
        assert compare(model, lengths, threads=threads) < 1e-5
    model.bfloat16()
    assert compare(model, lengths) < 2 * compare(model, lengths, packed=False)


@needs_libraries
def test_across_the_window_and_as_rings_grow():
    model = toy_model(toy_config(sliding_window=8))
    assert compare(model, [1, 6, 7, 12], steps=20) < 1e-5
    model = toy_model(toy_config(sliding_window=None))
    assert compare(model, [3, 250], steps=12) < 1e-5


@needs_libraries
def test_an_adapter_is_merged():
    model = toy_model(toy_config())
    add_lora(model, LoraConfig(rank=3, alpha=5.0))
    randomize(model, 0.3)
    tokens = random_tokens(model.config, 2, 9)
    engine = Engine(model)
    assert isinstance(engine.decoder, OneDnnDecoder)
    cache = engine.new_cache(2, 0)
    engine.prefill(tokens[:, :8].tolist(), cache)
    with torch.no_grad():
        torch.testing.assert_close(
            engine.decode(tokens[:, 8], cache), model(tokens)[:, -1], rtol=0, atol=1e-4
        )
    assert not supports_onednn(model.bfloat16())  # rounding would lose a small merged update


@needs_libraries
def test_large_numbers_stay_finite():
    """Scores and gates whose exponentials overflow fp32."""
    model = toy_model(toy_config())
    randomize(model, 30.0)
    assert compare(model, [5, 9]) < 1e-3


@needs_libraries
def test_threads_with_separate_caches_do_not_interfere():
    """As the server's slots decode: one step, several sequences of unequal length at once."""
    engine = Engine(toy_model(toy_config(sliding_window=None)))
    assert isinstance(engine.decoder, OneDnnDecoder)

    def decoded(length):
        cache = engine.new_cache(1, 0)
        engine.prefill([random_tokens(engine.model.config, 1, length)[0].tolist()], cache)
        return torch.cat([engine.decode(torch.tensor([n]), cache) for n in range(40)])

    lengths = [3, 300, 40, 7]
    alone = [decoded(length) for length in lengths]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(decoded, lengths))
    assert all(torch.equal(one, other) for one, other in zip(alone, together, strict=True))


@pytest.mark.parametrize("decoder", ["auto", "plain"])
@pytest.mark.parametrize("id", [-1, 64])
def test_an_id_beyond_the_vocabulary_is_refused(id, decoder):
    engine = Engine(toy_model(toy_config(vocab_size=64)), decoder=decoder)
    cache = engine.new_cache(1, 0)
    engine.prefill([[1, 2]], cache)
    with pytest.raises(IndexError, match="out of range"):
        engine.decode(torch.tensor([id]), cache)
    assert cache.lengths == [2]


@needs_libraries
def test_under_another_default_dtype():
    model = toy_model(toy_config())
    torch.set_default_dtype(torch.bfloat16)
    try:
        assert compare_one(model) < 1e-5
    finally:
        torch.set_default_dtype(torch.float32)


def compare_one(model):
    """Largest difference of one step from the network."""
    engine, tokens = Engine(model), random_tokens(model.config, 1, 6)
    assert isinstance(engine.decoder, OneDnnDecoder)
    cache = engine.new_cache(1, 0)
    engine.prefill(tokens[:, :5].tolist(), cache)
    with torch.no_grad():
        return float((engine.decode(tokens[:, 5], cache) - model(tokens)[:, -1]).abs().max())
