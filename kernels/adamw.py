"""AdamW of one tensor whose moments are kept in 16 bits, rounded up or down by chance.

Rounding to the nearest would lose what changes a moment by less than half a unit in its last place:
with beta2 = 0.95 nothing is lost, with 0.999 the second moment would stop changing. Rounded up with
the probability of its share of the unit, each moment is right on average. The chance is a hash of
(seed, element), so that a resumed run, or one over other ranks, rounds the same way. Loshchilov and
Hutter 2019, algorithm 2; stochastic rounding: Gupta et al. 2015, section 3.
"""

# pyright: reportInvalidTypeForm=false
# (tl.constexpr is an annotation that Triton reads)

from typing import NamedTuple

import torch
from torch import Tensor

from kernels.launch import check_launch, jit, tl

BLOCK = 1024
MIX = 0x45D9F3B


class Update(NamedTuple):
    """The numbers of one update of one tensor.

    Attributes:
        decay: weight decay, decoupled: the weight shrinks by lr * decay.
        step: which update this is, from 1.
        seed: the chance of element n is that of (seed, n).
    """

    lr: float
    betas: tuple[float, float]
    eps: float
    decay: float
    step: int
    seed: int


def reference_(
    weight: Tensor, grad: Tensor, average: Tensor, square: Tensor, update: Update, first: int = 0
) -> None:
    """One update in place, by torch.

    Args:
        weight, grad: in fp32.
        average, square: the moments in bfloat16.
        first: number of the first of these elements in the whole tensor.
    """
    lr, betas, eps, decay, step, seed = update
    m = average.float().lerp_(grad, 1 - betas[0])
    v = square.float().mul_(betas[1]).addcmul_(grad, grad, value=1 - betas[1])
    denominator = (v / (1 - betas[1] ** step)).sqrt_().add_(eps)
    weight.mul_(1 - lr * decay).addcdiv_(m, denominator, value=-lr / (1 - betas[0] ** step))
    index = torch.arange(first, first + weight.numel(), device=weight.device).view(weight.shape)
    chance = _mix(_mix(index) ^ (index >> 32) ^ seed)  # seeds side by side have nothing in common
    average.copy_(_rounded(m, chance & 0xFFFF))
    square.copy_(_rounded(v, chance >> 16))


def _mix(x: Tensor) -> Tensor:
    x = x & 0xFFFFFFFF
    for _ in range(2):
        x = ((x ^ (x >> 16)) * MIX) & 0xFFFFFFFF
    return x ^ (x >> 16)


def _rounded(x: Tensor, chance: Tensor) -> Tensor:
    """To one of the two nearest numbers of 16 bits; `chance` of 2^16 is the lower one's."""
    bits = x.view(torch.int32) + chance.to(torch.int32)
    return (bits & -0x10000).view(torch.float32)


def adamw_(
    weight: Tensor, grad: Tensor, average: Tensor, square: Tensor, update: Update, first: int = 0
) -> None:
    """`reference_` in one pass over memory."""
    lr, betas, eps, decay, step, seed = update
    assert weight.shape == grad.shape == average.shape == square.shape
    assert weight.dtype == grad.dtype == torch.float32
    assert average.dtype == square.dtype == torch.bfloat16
    check_launch(weight, grad, average, square)
    if n := weight.numel():
        _update[(-(-n // BLOCK),)](
            *(weight, grad, average, square, n, first, seed),
            *(betas[0], betas[1], eps, 1 - lr * decay),
            *(lr / (1 - betas[0] ** step), 1 / (1 - betas[1] ** step)),
            SIZE=BLOCK,
            MULTIPLIER=MIX,
            num_warps=4,
        )


@jit
def _update(
    weight,
    grad,
    average,
    square,
    n,
    first,
    seed,
    beta1,
    beta2,
    eps,
    kept,
    rate,
    correction,
    SIZE: tl.constexpr,
    MULTIPLIER: tl.constexpr,
):
    """SIZE elements per program."""
    at = tl.program_id(0).to(tl.int64) * SIZE + tl.arange(0, SIZE)
    inside = at < n
    g = tl.load(grad + at, mask=inside, other=0.0)
    m = tl.load(average + at, mask=inside, other=0.0).to(tl.float32)
    v = tl.load(square + at, mask=inside, other=0.0).to(tl.float32)
    w = tl.load(weight + at, mask=inside, other=0.0)
    m += (g - m) * (1 - beta1)
    v = v * beta2 + g * g * (1 - beta2)
    w = w * kept - rate * m / (tl.sqrt(v * correction) + eps)
    tl.store(weight + at, w, mask=inside)
    index = at + first
    x = (index & 0xFFFFFFFF).to(tl.uint32)
    x = (x ^ (x >> 16)) * MULTIPLIER
    x = (x ^ (x >> 16)) * MULTIPLIER
    x = x ^ (x >> 16) ^ (index >> 32).to(tl.uint32) ^ seed.to(tl.uint32)
    x = (x ^ (x >> 16)) * MULTIPLIER
    x = (x ^ (x >> 16)) * MULTIPLIER
    x = x ^ (x >> 16)
    low = (x & 0xFFFF).to(tl.int32)
    high = (x >> 16).to(tl.int32)
    bits = (m.to(tl.int32, bitcast=True) + low) & -0x10000
    tl.store(average + at, bits.to(tl.float32, bitcast=True), mask=inside)
    bits = (v.to(tl.int32, bitcast=True) + high) & -0x10000
    tl.store(square + at, bits.to(tl.float32, bitcast=True), mask=inside)
