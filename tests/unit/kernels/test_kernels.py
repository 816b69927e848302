"""Torch references of kernels are what the network computes."""

import torch

from model.rotary import apply_rotary, rotary_angles
from tests.e2e.kernels.test_kernels import drawn


def test_reference_of_rope_is_what_the_network_does():
    from kernels.rope import reference

    rotary = rotary_angles(torch.arange(10).view(2, 5), 8, 1e4)
    query, key = drawn(2, 5, 4, 8), drawn(2, 5, 2, 8, seed=1)
    ours = reference(query, key, *rotary)
    for x, y in zip(ours, (apply_rotary(query, rotary), apply_rotary(key, rotary)), strict=True):
        assert torch.equal(x, y)


def test_reference_of_lora_swiglu_has_the_gradients_of_autograd():
    from kernels.lora_swiglu import reference, reference_backward

    shapes = [(5, 7), (5, 7), (5, 4), (7, 2), (7, 2), (5, 2), (2, 7)]
    gate, up, low, b_gate, b_up, low_down, a_down = (
        drawn(*shape, dtype=torch.float64, seed=i).requires_grad_()
        for i, shape in enumerate(shapes)
    )
    grad = drawn(5, 7, dtype=torch.float64, seed=9)
    out = reference(gate, up, low, b_gate, b_up)
    asked = (gate, up, b_gate, b_up)
    expected = torch.autograd.grad(out, asked, grad + low_down @ a_down)
    # down's own product reads `out` times its first factor, whose gradient `low_down` is.
    (a_slope,) = torch.autograd.grad((out.detach() * (low_down @ a_down)).sum(), a_down)
    found = reference_backward(grad, low_down, a_down, gate, up, low, b_gate, b_up)
    for one, other in zip(found, (*expected, a_slope), strict=True):
        torch.testing.assert_close(one, other)
