"""Rotary positions (Su et al. 2021, section 3.2) in HF's half-split convention."""

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from model.norm import tiles, worth_tiling


class Rotary(NamedTuple):
    """Cosines and sines of a batch's rotary angles in fp32, shared by all layers.

    Attributes:
        cos: of the angle of pair i at i and at i + E / 2.
        sin: the same for the sine, but negative at i: what the pair's other half is multiplied by.
    """

    cos: Float[Tensor, "B T 1 E"]
    sin: Float[Tensor, "B T 1 E"]


def rotary_angles(positions: Int[Tensor, "B T"], head_size: int, theta: float) -> Rotary:
    """Angle t * theta^(-2i / E) for position t and pair i."""
    pairs = torch.arange(0, head_size, 2, dtype=torch.float32, device=positions.device)
    frequencies = 1.0 / theta ** (pairs / head_size)
    angles = positions[..., None].float() * frequencies  # (B, T, E / 2)
    angles = torch.cat([-angles, angles], -1).unsqueeze(2)
    return Rotary(angles.cos(), angles.sin())


def apply_rotary(x: Float[Tensor, "B T heads E"], rotary: Rotary) -> Float[Tensor, "B T heads E"]:
    """Rotate pair (i, i + E / 2) of each head by its angle."""
    if worth_tiling(x):
        return _Rotate.apply(x, *rotary)  # pyright: ignore[reportReturnType]
    return _rotated(x, *rotary)


def _rotated(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    other = x.roll(x.shape[-1] // 2, -1)
    return (x * cos + other * sin).to(x.dtype)


class _Rotate(torch.autograd.Function):
    """The same in pieces that stay in a CPU's cache; its backward pass rotates back."""

    @staticmethod
    def forward(ctx, x, cos, sin):  # noqa: ANN001, ANN205
        ctx.save_for_backward(cos, sin)
        return _rotated_in_tiles(x, cos, sin)

    @staticmethod
    def backward(ctx, *grads):  # noqa: ANN001, ANN002, ANN205
        cos, sin = ctx.saved_tensors
        return _rotated_in_tiles(grads[0], cos, -sin), None, None


def _rotated_in_tiles(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    out = x.new_empty(x.shape)
    exact = torch.promote_types(x.dtype, cos.dtype)
    flat = (each.flatten(2) for each in (x, out, cos, sin))
    for part, turned, *angles in tiles(*flat):
        cosines, sines = (angle[:, None] for angle in angles)  # (N, 1, E)
        heads = part.to(exact).unflatten(-1, x.shape[2:])  # (N, heads, E)
        other = heads.roll(x.shape[-1] // 2, -1).mul_(sines)
        turned.copy_(torch.mul(heads, cosines).add_(other).flatten(1))
    return out
