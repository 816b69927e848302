"""Operations of a layer, computed by a Triton kernel where one can run and else by torch.

Triton runs on CUDA outside compiled blocks (`kernels.launch.use_triton`). Linear layers with
adapters are computed together where `model.lora.fused` supports them.
Dims: B rows, T tokens, H query heads, K key heads, E head width, D model, F feed-forward.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from kernels import add_rms_norm as add_rms_norm_kernel
from kernels import rope as rope_kernel
from kernels import swiglu as swiglu_kernel
from kernels.launch import use_triton
from model.lora import fused
from model.norm import RMSNorm
from model.rotary import Rotary, apply_rotary


def add_rms_norm(
    x: Float[Tensor, "*any D"], residual: Float[Tensor, "*any D"], norm: RMSNorm
) -> tuple[Float[Tensor, "*any D"], Float[Tensor, "*any D"]]:
    """The normalised sum of both, and the sum."""
    if use_triton(x):
        return add_rms_norm_kernel.add_rms_norm(x, residual, norm.weight, norm.eps)
    total = residual + x
    return norm(total), total


def rotate(
    query: Float[Tensor, "B T H E"], key: Float[Tensor, "B T K E"], rotary: Rotary
) -> tuple[Float[Tensor, "B T H E"], Float[Tensor, "B T K E"]]:
    """Queries and keys, rotated by the angles of their positions."""
    if use_triton(query):
        return rope_kernel.rope(query, key, *rotary)
    return apply_rotary(query, rotary), apply_rotary(key, rotary)


def swiglu(gate: Float[Tensor, "*any F"], up: Float[Tensor, "*any F"]) -> Float[Tensor, "*any F"]:
    """silu(gate) * up (Shazeer 2020); without gradients the result may overwrite `gate`."""
    if use_triton(gate):
        return swiglu_kernel.swiglu(gate, up)
    if torch.is_grad_enabled():
        return F.silu(gate) * up
    return F.silu(gate, inplace=True).mul_(up)  # saves two large tensors


def project(x: Float[Tensor, "*any I"], *linears: nn.Linear) -> tuple[Tensor, ...]:
    """The outputs of linear layers that share an input."""
    return fused.project(x, *linears)


def feed_forward(
    x: Float[Tensor, "*any D"], gate: nn.Linear, up: nn.Linear, down: nn.Linear
) -> Float[Tensor, "*any D"]:
    """down(silu(gate(x)) * up(x))."""
    if adapted := fused.fusible_feed_forward(x, gate, up, down):
        return fused.feed_forward(x, adapted)
    return project(swiglu(*project(x, gate, up)), down)[0]
