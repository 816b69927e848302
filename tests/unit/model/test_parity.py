"""Logits and gradients are those of transformers, which is an independent implementation."""

import pytest
import torch
import torch.nn.functional as F

from model.labels import IGNORE_INDEX
from tests.helpers.toy import (
    documents_of,
    hf_logits,
    hf_twin,
    random_segments,
    random_tokens,
    small_bands,
    toy_config,
    toy_model,
)

WINDOW = 8
LENGTHS = (1, WINDOW - 1, WINDOW, WINDOW + 1, 2 * WINDOW + 3)
SHAPES = {
    "grouped": toy_config(),
    "grouped, tied, given head width": toy_config(head_dim=12, tie_word_embeddings=True),
    "one key head, deep, steep rope": toy_config(
        num_key_value_heads=1, num_hidden_layers=4, rope_theta=1e6
    ),
    "key head per head, no window": toy_config(num_key_value_heads=4, sliding_window=None),
    "llama": toy_config(model_type="llama", sliding_window=None, rms_norm_eps=1e-6),
    "llama, tied, given head width": toy_config(
        model_type="llama", sliding_window=None, head_dim=6, tie_word_embeddings=True
    ),
}
every_shape = pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
every_backend = pytest.mark.parametrize("backend", ["banded", "reference"])


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    """Toy rows cross the borders of query blocks."""
    small_bands(monkeypatch, 5)


def assert_close(ours, theirs, tolerance):
    """Within `tolerance` of the largest entry."""
    assert ours.shape == theirs.shape
    assert (ours - theirs).abs().max() <= tolerance * theirs.abs().max()


def batches(shape, length):
    """(tokens, segments) of single and packed rows."""
    yield random_tokens(shape, 2, length), None
    yield random_tokens(shape, 4, length, seed=1), random_segments(4, length, seed=length)


@every_shape
@every_backend
@pytest.mark.parametrize("length", LENGTHS)
@torch.no_grad()
def test_logits(shape, backend, length):
    model = toy_model(shape, backend=backend)
    twin = hf_twin(model)
    for tokens, segments in batches(shape, length):
        ours = model(tokens, documents=documents_of(segments))
        assert_close(ours, hf_logits(twin, tokens, segments), 1e-5)


@every_backend
@torch.no_grad()
def test_window_of_one(backend):
    model = toy_model(toy_config(sliding_window=1), backend=backend)
    for tokens, segments in batches(model.config, 19):
        ours = model(tokens, documents=documents_of(segments))
        assert_close(ours, hf_logits(hf_twin(model), tokens, segments), 1e-5)


@every_shape
@every_backend
def test_gradients(shape, backend):
    model = toy_model(shape, backend=backend)
    twin = hf_twin(model)
    for tokens, segments in batches(shape, LENGTHS[-1]):
        labels = random_tokens(shape, *tokens.shape, seed=2)
        labels[:, ::3] = IGNORE_INDEX
        model.zero_grad()
        model(tokens, documents=documents_of(segments), labels=labels).total.backward()
        twin.zero_grad()
        theirs = hf_logits(twin, tokens, segments).flatten(0, 1)
        F.cross_entropy(theirs, labels.flatten(), reduction="sum").backward()
        expected = dict(twin.named_parameters())
        for name, parameter in model.named_parameters():
            assert_close(parameter.grad, expected.pop(name).grad, 5e-5)
        assert not expected


def rounding_errors(shape, backend, seeds, length=LENGTHS[-1]):
    """RMS distance of (our, HF's) bf16 logits from the fp32 logits of the same weights."""
    errors = torch.zeros(2, dtype=torch.float64)
    for seed in seeds:
        model = toy_model(shape, backend=backend, seed=seed).to(torch.bfloat16)
        twin = hf_twin(model)
        tokens = random_tokens(shape, 4, length, seed=seed)
        segments = random_segments(4, length, seed=seed)
        exact = hf_logits(hf_twin(model.float()), tokens, segments)
        model.to(torch.bfloat16)
        ours = model(tokens, documents=documents_of(segments))
        theirs = hf_logits(twin, tokens, segments)
        errors += torch.stack([(x.double() - exact).square().mean() for x in (ours, theirs)])
    return errors.sqrt().tolist()


@every_shape
@every_backend
@torch.no_grad()
def test_bfloat16_is_no_farther_from_fp32_than_hf(shape, backend):
    # One network's largest error is a matter of luck, of HF's as much as of ours. The RMS over all
    # logits of several networks is the size of the rounding itself, and stays put.
    ours, theirs = rounding_errors(shape, backend, range(8))
    assert 0 < ours <= 1.1 * theirs


@pytest.mark.parametrize("window", [64, None])
@torch.no_grad()
def test_positions_beyond_8k(monkeypatch, window):
    monkeypatch.undo()  # blocks of the size that is used in earnest
    one_head = {"num_attention_heads": 1, "num_key_value_heads": 1, "hidden_size": 16}
    model = toy_model(toy_config(num_hidden_layers=1, sliding_window=window, **one_head))
    tokens = random_tokens(model.config, 1, 8300)
    assert_close(model(tokens), hf_logits(hf_twin(model), tokens), 1e-5)
