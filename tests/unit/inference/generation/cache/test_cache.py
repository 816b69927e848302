"""Decoding with a cache gives what the network gives without one."""

import pytest
import torch

from inference.generation.cache.cache import Cache, extend
from inference.generation.cache.kv_storage import GROWTH
from inference.generation.decoders.cpu_onednn import OneDnnDecoder, supports_onednn
from inference.generation.engine import Engine, _passes
from model.adapters import add_lora
from model.documents import Documents
from model.lora.layer import LoraConfig
from tests.helpers.toy import random_tokens, randomize, toy_config, toy_model

LENGTHS = (5, 12, 1, 8)
STEPS = 21


def texts_of(config, lengths=LENGTHS, steps=STEPS):
    return [random_tokens(config, 1, n + steps, seed=n)[0] for n in lengths]


def largest_error(engine, texts, lengths, pass_tokens=4096, cache=None):
    """Largest difference of cached logits from those of the whole texts, in all passes."""
    model = engine.model
    with torch.inference_mode():
        whole = [model(text[None])[0] for text in texts]
        cache = cache or engine.new_cache(len(texts), 0)
        prompts = [text[:n].tolist() for text, n in zip(texts, lengths, strict=True)]
        logits = engine.prefill(prompts, cache, pass_tokens)
        worst = 0.0
        for step in range(STEPS):
            for row, full, n in zip(logits, whole, lengths, strict=True):
                worst = max(worst, float((row - full[n + step - 1]).abs().max() / full.abs().max()))
            ids = torch.stack([text[n + step] for text, n in zip(texts, lengths, strict=True)])
            logits = engine.decode(ids, cache)
    assert cache.lengths == [n + STEPS for n in lengths]
    return worst


@pytest.mark.parametrize("decoder", ["plain", "cpu_onednn"])
@pytest.mark.parametrize("pass_tokens", [4096, 13, 4, 1])
@pytest.mark.parametrize("window", [1, 3, 5, 8, 12, 100, None])
def test_decode_equals_the_whole_text(window, pass_tokens, decoder):
    """Windows shorter than, equal to and longer than prompts; several wraps; chunks of any size."""
    config = toy_config(sliding_window=window)
    engine = Engine(toy_model(config), decoder=decoder)
    assert largest_error(engine, texts_of(config), LENGTHS, pass_tokens) < 1e-5


@pytest.mark.parametrize("backend", ["reference", "banded"])
@pytest.mark.parametrize("pass_tokens", [4096, 4])
def test_hooks_of_layers_see_all_tokens_and_the_head_the_last_ones(pass_tokens, backend):
    config = toy_config(num_hidden_layers=3, sliding_window=6)
    engine, seen, headed = Engine(toy_model(config, backend=backend), decoder="plain"), [], []
    for layer in engine.model.model.layers:
        layer.register_forward_hook(lambda _, inputs, output: seen.append(output.shape[:2]))
    engine.model.lm_head.register_forward_pre_hook(lambda _, x: headed.append(x[0].shape[:2]))
    assert largest_error(engine, texts_of(config), LENGTHS, pass_tokens) < 1e-5
    seen.clear()
    headed.clear()
    cache = engine.new_cache(2, 0)
    engine.prefill([[1, 2, 3], [4, 5]], cache, pass_tokens)
    passes = [(5, 2)] if pass_tokens > 4 else [(3, 1), (2, 1)]
    assert seen == [(1, tokens) for tokens, _ in passes for _ in range(3)]
    assert headed == [(1, sequences) for _, sequences in passes]
    seen.clear()
    engine.decode(torch.tensor([7, 8]), cache)
    assert seen == [(2, 1)] * 3


@pytest.mark.parametrize("backend", ["reference", "banded"])
@pytest.mark.parametrize("key_heads", [1, 2, 4])
def test_heads_that_share_keys(key_heads, backend):
    config = toy_config(num_key_value_heads=key_heads, head_dim=6)
    engine = Engine(toy_model(config, backend=backend))
    assert largest_error(engine, texts_of(config), LENGTHS) < 1e-5


@pytest.mark.parametrize("decoder", ["plain", "cpu_onednn"])
def test_one_sequence(decoder):
    config = toy_config(tie_word_embeddings=True)
    engine = Engine(toy_model(config), decoder=decoder)
    assert largest_error(engine, texts_of(config, (9,)), (9,)) < 1e-5


@pytest.mark.parametrize("decoder", ["plain", "cpu_onednn"])
@pytest.mark.parametrize("sequences", [1, 3])
def test_bfloat16(decoder, sequences):
    config = toy_config()
    model = toy_model(config)
    randomize(model, 0.1)
    engine = Engine(model.bfloat16(), decoder=decoder)
    lengths = LENGTHS[:sequences]
    assert largest_error(engine, texts_of(config, lengths), lengths) < 0.05


@pytest.mark.parametrize("decoder", ["plain", "cpu_onednn"])
@pytest.mark.parametrize("sequences", [1, 3])
def test_low_rank_updates_take_part(decoder, sequences):
    config = toy_config()
    model = toy_model(config)
    before = model(random_tokens(config, 1, 6))
    add_lora(model, LoraConfig(rank=2, alpha=4.0))
    randomize(model, 0.3, seed=0)
    assert not torch.allclose(model(random_tokens(config, 1, 6)), before, atol=0.1)
    lengths = LENGTHS[:sequences]
    assert largest_error(Engine(model, decoder=decoder), texts_of(config, lengths), lengths) < 1e-5


def test_a_wrapped_network_is_called_and_not_copied():
    config = toy_config()
    model = toy_model(config)
    model.model.layers[0].mlp.up_proj = type("Other", (torch.nn.Linear,), {})(32, 48, bias=False)
    assert not supports_onednn(model)
    assert Engine(model).decoder is None
    assert largest_error(Engine(model), texts_of(config), LENGTHS) < 1e-5
    with pytest.raises(ValueError, match=r"decoder=cpu_onednn: model\.layers\.0\.mlp\.up_proj has"):
        Engine(model, decoder="cpu_onednn")


def test_the_ring_never_outgrows_the_window():
    cache = Cache(toy_config(), 2, dtype=torch.float32, capacity=1000)
    assert cache.storage.slots == 8
    assert {x.shape for x in cache.storage.keys} == {(2, 2, 8, 8)}


def test_the_ring_grows_when_it_must():
    config = toy_config(sliding_window=None)
    engine = Engine(toy_model(config))
    cache = engine.new_cache(2, 3)
    texts = texts_of(config, (3, GROWTH - 10))
    assert largest_error(engine, texts, (3, GROWTH - 10), cache=cache) < 1e-5
    assert GROWTH < cache.storage.slots <= 3 * GROWTH


@pytest.mark.parametrize("window", [3, 8, None])
def test_sequences_can_leave(window):
    """What stays goes on as if it had been alone."""
    config = toy_config(sliding_window=window)
    engine = Engine(toy_model(config))
    texts = texts_of(config)
    cache = engine.new_cache(4, 0)
    engine.prefill([text[:n].tolist() for text, n in zip(texts, LENGTHS, strict=True)], cache)
    cache.keep([3, 1])
    assert cache.lengths == [8, 12]
    for step in range(STEPS - 1):
        logits = engine.decode(torch.stack([texts[3][8 + step], texts[1][12 + step]]), cache)
    for row, (n, length) in zip(logits, ((3, 8), (1, 12)), strict=True):
        whole = engine.model(texts[n][None, : length + STEPS - 1])[0, -1]
        torch.testing.assert_close(row, whole, rtol=0, atol=1e-4)


def test_rows_without_documents_are_sequences():
    config = toy_config()
    model = toy_model(config)
    tokens = random_tokens(config, 3, 30)
    cache = Cache(config, 3, dtype=torch.float32)
    with torch.inference_mode():
        for part in tokens.split((11, 1, 7, 11), 1):
            logits = extend(model, part, cache)
        torch.testing.assert_close(logits, model(tokens)[:, -1], rtol=0, atol=1e-4)


@pytest.mark.parametrize("rows", [1, 3])
def test_packed_and_unpacked_steps_agree(rows):
    config = toy_config()
    model = toy_model(config)
    packed = OneDnnDecoder(model)
    one, two = (Cache(config, rows, dtype=torch.float32) for _ in range(2))
    with torch.inference_mode():
        for step in range(12):
            ids = random_tokens(config, rows, 1, seed=step)
            expected = extend(model, ids, two)
            torch.testing.assert_close(packed(ids[:, 0], one), expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("lengths", [[3], [3, 4, 1], [9, 1, 30, 2, 2], [10, 10, 10]])
def test_passes_cover_every_token_once(lengths):
    passes = list(_passes(lengths, 10))
    seen = [[] for _ in lengths]
    for pieces in passes:
        assert sum(place.stop - place.start for _, place in pieces) <= 10
        assert len(pieces) == 1 or all(place.start == 0 for _, place in pieces)
        for n, place in pieces:
            seen[n] += range(place.start, place.stop)
    assert seen == [list(range(length)) for length in lengths]


def test_a_cache_needs_one_document_per_sequence():
    config = toy_config()
    cache = Cache(config, 3, dtype=torch.float32)
    with pytest.raises(AssertionError, match="one document per sequence"):
        extend(
            toy_model(config),
            torch.zeros(1, 4, dtype=torch.long),
            cache,
            Documents.from_segments(torch.tensor([[1, 1, 2, 2]])),
        )
