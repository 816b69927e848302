"""The norm that gradients are clipped by: exact, and the same however they are spread."""

import math

import pytest
import torch
from torch import nn
from torch.distributed.tensor import DTensor

from model.transformer import Mistral
from tests.helpers.ranks import run_ranks
from tests.helpers.toy import randomize, toy_config
from training.optim import clip_gradients
from training.parallelize import ParallelConfig, build_mesh, parallelize

SHARED = [("fsdp", None), ("hsdp", 2), ("replicate", None)]


def with_gradients(*gradients):
    parameters = [nn.Parameter(torch.zeros_like(grad)) for grad in gradients]
    for parameter, grad in zip(parameters, gradients, strict=True):
        parameter.grad = grad.clone()
    return parameters


@pytest.mark.parametrize("elements", [1, 1000, 4_000_000])
def test_the_norm_is_that_of_fp64(elements):
    drawn = torch.randn(elements, generator=torch.Generator().manual_seed(0)) * 1e-3
    exact = float(drawn.double().norm())
    assert clip_gradients(with_gradients(drawn), 1e9) == pytest.approx(exact, rel=1e-6)


def test_gradients_are_scaled_only_where_they_exceed_the_norm():
    gradients = torch.tensor([3.0, 0.0]), torch.tensor([[4.0]])
    for most, factor in ((10.0, 1.0), (5.1, 1.0), (1.0, 0.2), (0.5, 0.1)):
        parameters = with_gradients(*gradients)
        assert clip_gradients([*parameters, nn.Parameter(torch.ones(2))], most) == 5.0
        for parameter, before in zip(parameters, gradients, strict=True):
            torch.testing.assert_close(parameter.grad, before * factor, rtol=1e-6, atol=0)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_gradient_that_is_no_number_has_no_norm(bad):
    parameters = with_gradients(torch.tensor([1.0, bad]))
    assert not math.isfinite(clip_gradients(parameters, 1.0))


def norm_and_gradients(world, strategy, shard_ranks):
    """Each rank's gradient is its own, as after rows of its own; FSDP averages them."""
    model = Mistral(toy_config(vocab_size=37))
    randomize(model, 0.1)
    config = ParallelConfig(strategy=strategy, shard_ranks=shard_ranks)
    parallelize(model, config, build_mesh(config, world))
    tokens = torch.arange(24).view(4, 6)[world.rank :: world.size]
    (model(tokens, labels=tokens).total * (world.size / 20)).backward()
    norm = clip_gradients(model.parameters(), 0.5)
    return norm, [
        (p.grad.full_tensor() if isinstance(p.grad, DTensor) else p.grad)
        for p in model.parameters()
    ]


@pytest.mark.distributed
def test_ranks_replicas_and_shards_have_the_norm_of_one_process():
    ((norm, gradients),) = run_ranks(norm_and_gradients, 1, "fsdp", None)
    assert norm > 1
    assert sum(float(g.double().square().sum()) for g in gradients) == pytest.approx(0.25, rel=1e-5)
    for ranks, strategy, shard_ranks in (*((2, *x) for x in SHARED), (4, "hsdp", 2)):
        for found, spread in run_ranks(norm_and_gradients, ranks, strategy, shard_ranks):
            assert found == pytest.approx(norm, rel=1e-6)
            for one, other in zip(spread, gradients, strict=True):
                torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)
