"""Logits and gradients of the flex backend are those of transformers."""

import pytest
import torch
from torch.nn.attention.flex_attention import flex_attention

import model.attention
from tests.helpers.toy import (
    documents_of,
    hf_logits,
    hf_twin,
    random_segments,
    random_tokens,
    run_without_hook,
    toy_config,
    toy_model,
)
from tests.unit.model.test_parity import (
    LENGTHS,
    SHAPES,
    assert_close,
    batches,
    small_blocks,  # noqa: F401 fixture
)


@torch.no_grad()
def check_flex():
    """All lengths by flex attention as plain products."""
    for shape in SHAPES.values():
        network = toy_model(shape, backend="flex")
        twin = hf_twin(network)
        model.attention._compiled_flex = lambda: flex_attention
        for length in LENGTHS:
            for tokens, segments in batches(shape, length):
                ours = network(tokens, documents=documents_of(segments))
                assert_close(ours, hf_logits(twin, tokens, segments), 1e-5)


@torch.no_grad()
def check_compiled_flex():
    """Longer than the blocks of 128 that the kernel skips where nothing is visible."""
    network = toy_model(toy_config(sliding_window=50), backend="flex")
    tokens, segments = random_tokens(network.config, 3, 420), random_segments(3, 420)
    ours = network(tokens, documents=documents_of(segments))
    assert_close(ours, hf_logits(hf_twin(network), tokens, segments), 1e-5)


def test_flex():
    run_without_hook(check_flex)


@pytest.mark.skipif(
    torch.backends.cpu.get_cpu_capability() == "DEFAULT",
    reason="PyTorch compiles flex_attention for processors with vector instructions only",
)
def test_compiled_flex():
    run_without_hook(check_compiled_flex)
