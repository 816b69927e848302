"""Adapted linears computed together are what they are one by one: values, gradients, what is kept.

On a CPU nothing is computed together unless a test asks for it, as `together` does.
"""

import pytest
import torch
from torch import nn

from model.adapters import add_lora, seed_dropout
from model.documents import Documents
from model.lora import fused
from model.lora.layer import LoraConfig, LoraLinear
from model.transformer import Mistral
from tests.helpers.toy import (
    random_segments,
    random_tokens,
    randomize,
    toy_config,
)
from training.distributed import start_world
from training.parallelize import ParallelConfig, build_mesh, clean_named_parameters, parallelize


@pytest.fixture
def together(monkeypatch):
    monkeypatch.setattr(fused, "DEVICES", ("cpu",))


def network(dtype=torch.float64, **settings):
    """A toy with an adapter whose factors are all at work."""
    model = Mistral(toy_config())
    add_lora(model, LoraConfig(**({"rank": 3, "alpha": 5.0} | settings)))
    randomize(model, 0.3)
    return model.to(dtype)


def results(model):
    """Losses and gradients of two packed rows."""
    model.zero_grad()
    tokens = random_tokens(model.config, 2, 20)
    documents = Documents.from_segments(random_segments(2, 20))
    losses = model(tokens, documents=documents, labels=tokens)
    losses.total.backward()
    return [losses.rows, *(p.grad.clone() for p in model.parameters() if p.grad is not None)]


SETTINGS = [
    {},
    {"targets": ["q_proj", "v_proj", "gate_proj", "down_proj"]},  # no group is whole
    {"targets": [r".*mlp.*"]},
    {"targets": [r".*self_attn.*"]},
    {"rank": 70},  # more than the feed-forward's kernel takes
    {"modules_to_save": ["embed_tokens"]},  # so that the first layer's input has a gradient
]


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_losses_and_gradients_are_those_of_single_linears(monkeypatch, settings):
    model = network(**settings)
    calls = []
    for name in ("_project", "_swiglu", "_update"):
        real = getattr(fused, name)
        monkeypatch.setattr(
            fused, name, lambda *a, real=real, name=name: calls.append(name) or real(*a)
        )
    one_by_one = results(model)
    assert not calls
    monkeypatch.setattr(fused, "DEVICES", ("cpu",))
    joined = results(model)
    assert calls
    for one, other in zip(one_by_one, joined, strict=True):
        torch.testing.assert_close(one, other)


def test_each_group_is_one_call(monkeypatch, together):
    calls = []
    real = fused._project
    monkeypatch.setattr(fused, "_project", lambda *a: calls.append(len(a[1])) or real(*a))
    results(network())
    assert calls == [3, 1] * 2  # q, k, v and o, of two layers; the feed-forward has its own


def test_dropout_keeps_linears_apart(together):
    model = network(dropout=0.5)
    seed_dropout(model, [1, 2])
    with_dropout = results(model)
    x = torch.ones(1)
    assert all(not fused.fusible(x, m) for m in model.modules() if isinstance(m, LoraLinear))
    seed_dropout(model, None)
    assert not torch.allclose(results(model)[0], with_dropout[0])


def test_on_a_cpu_and_without_adapters_nothing_is_joined(monkeypatch):
    x, plain = torch.ones(2, 32), nn.Linear(32, 4, bias=False)
    lora = LoraLinear(nn.Linear(32, 4, bias=False), LoraConfig(rank=2, alpha=2.0))
    assert fused.fusible(x, lora) == []
    monkeypatch.setattr(fused, "DEVICES", ("cpu",))
    assert fused.fusible(x, lora, lora) == [lora, lora]
    assert fused.fusible(x, lora, plain) == [lora]
    assert fused.fusible_feed_forward(x, lora, plain, lora) == []


def test_without_gradients_the_answer_is_the_same(together):
    model = network()
    tokens = random_tokens(model.config, 2, 20)
    with torch.no_grad():
        out = model(tokens)
    torch.testing.assert_close(out, model(tokens).detach())


def test_operators_are_what_compilers_ask_for():
    """Shapes without values, gradients, nothing changed in place, with fixed and dynamic shapes."""

    def drawn(*shape):
        return torch.randn(*shape, dtype=torch.float64, generator=generator)

    generator = torch.Generator().manual_seed(0)
    x = drawn(6, 8).requires_grad_()
    wide = [drawn(n, 8) for n in (10, 10, 4)]
    a = [drawn(2, n).requires_grad_() for n in (8, 8, 10)]
    b = [drawn(n, 2).requires_grad_() for n in (10, 10, 8)]
    torch.library.opcheck(fused._swiglu, (x, wide[:2], a, b[:2], 0.5))
    low, product = drawn(6, 2).requires_grad_(), drawn(6, 10).requires_grad_()
    torch.library.opcheck(fused._update, (product, drawn(8, 10), low, b[2]))
    factors = ([wide[0], wide[2]], a[:2], [b[0], drawn(4, 2).requires_grad_()])
    torch.library.opcheck(fused._project, (x, *factors, 0.5))


@pytest.mark.parametrize(
    "options",
    [
        {"checkpointing": "full"},
        {"checkpointing": "selective"},
        {"checkpointing": "full", "checkpointed_layers": 1, "other_layers": "selective"},
    ],
    ids=str,
)
def test_recomputation_changes_no_bit(together, options):
    found = []
    for chosen in ({}, options):
        with start_world("cpu") as world:
            model = network(torch.float32)
            config = ParallelConfig(dtype="float32", **chosen)
            parallelize(model, config, build_mesh(config, world))
            found.append(results(model))
    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))


def test_under_fsdp_gradients_are_those_of_single_linears(monkeypatch):
    """The factors are gathered in bfloat16 for forward and backward, the base stays as it is."""
    found = []
    for devices in ((), ("cpu",)):
        monkeypatch.setattr(fused, "DEVICES", devices)
        with start_world("cpu") as world:
            model = Mistral(toy_config())
            add_lora(model, LoraConfig(rank=3, alpha=5.0), torch.bfloat16)
            randomize(model, 0.1)
            config = ParallelConfig(dtype="bfloat16")
            parallelize(model, config, build_mesh(config, world))
            tokens = random_tokens(model.config, 2, 20)
            model(tokens, labels=tokens).total.backward()
            grads = [p.grad.to_local() for _, p in clean_named_parameters(model) if p.requires_grad]
            assert all(grad.dtype == torch.float32 for grad in grads)
            found.append(grads)
    for one, other in zip(*found, strict=True):
        assert (one - other).norm() < 0.03 * one.norm()
