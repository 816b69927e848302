"""The norm that gradients are clipped by: exact, and the same however they are spread."""

import math

import pytest
import torch
from torch import nn

from training.optim import clip_gradients


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
