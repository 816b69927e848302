"""Attention backends under torch.compile, in processes without the shape checks of pytest."""

import warnings

import pytest
import torch
from torch.nn.attention.flex_attention import flex_attention

import model.attention
import model.backends.varlen
from model.documents import Documents
from tests.helpers.toy import (
    random_segments,
    random_tokens,
    run_without_hook,
    toy_config,
    toy_model,
)
from tests.unit.model.test_attention import PROBES


@torch.no_grad()
def check_flex_window():
    # As plain products: the mask is what is checked here, and every length would be compiled.
    model.attention._compiled_flex = lambda: flex_attention
    for probe in PROBES:
        probe("flex")


def test_flex_window():
    run_without_hook(check_flex_window)


def check_compiled_blocks(compiler, *backends):
    """A block is one graph, and gives what it gives uncompiled, for several packings."""
    warnings.filterwarnings("error", message="Dynamo")
    for backend in backends:
        trains = backend != "flex"  # which has no backward on the CPU
        networks = [toy_model(toy_config(), backend=name) for name in (backend, "reference")]
        for layer in networks[0].model.layers:
            layer.compile(fullgraph=True, backend=compiler)
        for seed in range(3):
            tokens = random_tokens(networks[0].config, 3, 21, seed)
            documents = Documents.from_segments(random_segments(3, 21, seed))
            with torch.set_grad_enabled(trains):
                losses = [x(tokens, documents=documents, labels=tokens).total for x in networks]
            torch.testing.assert_close(*losses)
            if not trains:
                continue
            for loss in losses:
                loss.backward()
            for ours, expected in zip(*(x.parameters() for x in networks), strict=True):
                torch.testing.assert_close(ours.grad, expected.grad, rtol=1e-4, atol=1e-4)


def test_blocks_compile_whole():
    run_without_hook(check_compiled_blocks, "aot_eager", "banded", "flex")


@pytest.mark.slow
def test_blocks_compile_to_kernels():
    run_without_hook(check_compiled_blocks, "inductor", "banded")
