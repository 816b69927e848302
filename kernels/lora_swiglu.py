"""SwiGLU of two projections with low-rank updates that never exist: forward, backward, sums.

With adapters (Hu et al. 2021, section 4.1) gate and up are each a product with frozen weights plus
an update, and the gradient of their product is another such sum. Updates as wide as the
feed-forward are made here from their R numbers per token, where they are used, and gradients of
three factors are summed while what they are made of is at hand; otherwise each is written and read
again, ten passes over memory as wide as the feed-forward per layer. `model.lora.fused` is the user,
compiled or not. R up to `MAX_RANK`.
Dims: N tokens, F feed-forward, R rank.
"""

# pyright: reportInvalidTypeForm=false
# (tl.constexpr is an annotation that Triton reads)

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from kernels.launch import check_launch, jit, power_of_two, tl

MAX_RANK = 64
FEWEST_RANKS = 16
"""Columns of the narrowest matrix product on tensor cores; missing ones are padded."""
PROGRAMS = 4096
"""Programs of the backward pass to aim at; each sums over the tokens of its share."""


class Tile(NamedTuple):
    """Sizes of the tile that a program processes at a time.

    Attributes:
        stages: tiles under way, where a program has several.
    """

    tokens: int
    features: int
    warps: int
    stages: int = 1


FORWARD = Tile(16, 128, 2)
BACKWARD = Tile(16, 64, 4, 3)
"""The fastest of a dozen on an H200 for rank 8 (docs/results/performance.md)."""


class Gradients(NamedTuple):
    """Gradients of the backward pass.

    Attributes:
        gate, up: (N, F), of the updated projections and so of the products with frozen weights.
        b_gate, b_up: (F, R).
        a_down: (R, F).
    """

    gate: Tensor
    up: Tensor
    b_gate: Tensor
    b_up: Tensor
    a_down: Tensor


def reference(gate: Tensor, up: Tensor, low: Tensor, b_gate: Tensor, b_up: Tensor) -> Tensor:
    """silu(gate + low_1 b_gate^T) * (up + low_2 b_up^T) by torch.

    Args:
        gate, up: (N, F), products with the frozen weights.
        low: (N, 2 R), the scaled outputs of the two first factors side by side.
        b_gate, b_up: (F, R), the second factors.
    """
    x, y = _updated(gate, up, low, b_gate, b_up)
    return F.silu(x) * y


def reference_backward(
    grad: Tensor,
    low_down: Tensor,
    a_down: Tensor,
    gate: Tensor,
    up: Tensor,
    low: Tensor,
    b_gate: Tensor,
    b_up: Tensor,
) -> Gradients:
    """Gradients of what `reference` returns, by torch.

    Args:
        grad: (N, F) gradient of the result through the frozen weights of what follows.
        low_down: (N, R) the scaled gradient of that layer's own first factor's output.
        a_down: (R, F) that factor: `grad + low_down a_down` is the whole gradient.
    """
    rank = low.shape[1] // 2
    x, y = _updated(gate, up, low, b_gate, b_up)
    whole = torch.addmm(grad, low_down, a_down)
    s = torch.sigmoid(x)
    grad_gate = whole * y * s * (1 + x * (1 - s))
    grad_up = whole * x * s
    grad_b = (grad_gate.T @ low[:, :rank], grad_up.T @ low[:, rank:])
    return Gradients(grad_gate, grad_up, *grad_b, low_down.T @ (x * s * y))


def _updated(
    gate: Tensor, up: Tensor, low: Tensor, b_gate: Tensor, b_up: Tensor
) -> tuple[Tensor, Tensor]:
    rank = low.shape[1] // 2
    x = torch.addmm(gate, low[:, :rank], b_gate.T)
    return x, torch.addmm(up, low[:, rank:], b_up.T)


def lora_swiglu(gate: Tensor, up: Tensor, low: Tensor, b_gate: Tensor, b_up: Tensor) -> Tensor:
    """Result of `reference`, computed in fp32 and rounded once. Not differentiable."""
    tokens, width = gate.shape
    rank = _check(gate, up, low, b_gate, b_up)
    out = torch.empty_like(gate)
    if gate.numel():
        tile = FORWARD
        _forward[(-(-tokens // tile.tokens), -(-width // tile.features))](
            *(gate, up, low, b_gate, b_up, out, tokens, width),
            RANK=rank,
            RANKS=max(FEWEST_RANKS, power_of_two(rank)),
            TOKENS=tile.tokens,
            FEATURES=tile.features,
            PRECISION=_precision(gate),
            num_warps=tile.warps,
        )
    return out


def lora_swiglu_backward(
    grad: Tensor,
    low_down: Tensor,
    a_down: Tensor,
    gate: Tensor,
    up: Tensor,
    low: Tensor,
    b_gate: Tensor,
    b_up: Tensor,
) -> Gradients:
    """Result of `reference_backward`, computed in fp32; summands are rounded before the sums."""
    tokens, width = gate.shape
    rank = _check(gate, up, low, b_gate, b_up)
    check_launch(gate, grad, low_down, a_down)
    assert grad.shape == gate.shape
    assert low_down.shape == (tokens, rank)
    assert a_down.shape == (rank, width)
    tile = BACKWARD
    blocks = -(-width // tile.features)
    shares = max(1, min(-(-tokens // tile.tokens), PROGRAMS // blocks))
    grad_gate, grad_up = torch.empty_like(gate), torch.empty_like(up)
    sums = torch.empty(shares, 3, rank, width, dtype=torch.float32, device=gate.device)
    if gate.numel():
        _backward[(blocks, shares)](
            *(grad, low_down, a_down, gate, up, low, b_gate, b_up),
            *(grad_gate, grad_up, sums, tokens, width),
            RANK=rank,
            RANKS=max(FEWEST_RANKS, power_of_two(rank)),
            TOKENS=tile.tokens,
            FEATURES=tile.features,
            STAGES=tile.stages,
            PRECISION=_precision(gate),
            num_warps=tile.warps,
        )
    else:
        sums.zero_()
    b_gate_sum, b_up_sum, a_down_sum = sums.sum(0).to(gate.dtype)
    return Gradients(grad_gate, grad_up, b_gate_sum.T, b_up_sum.T, a_down_sum)


def _check(gate: Tensor, up: Tensor, low: Tensor, b_gate: Tensor, b_up: Tensor) -> int:
    check_launch(gate, up, low, b_gate, b_up)
    tokens, width = gate.shape
    rank = b_gate.shape[1]
    assert 0 < rank <= MAX_RANK
    assert up.shape == gate.shape
    assert low.shape == (tokens, 2 * rank)
    assert b_gate.shape == b_up.shape == (width, rank)
    return rank


def _precision(x: Tensor) -> str:
    return "ieee" if x.dtype == torch.float32 else "tf32"


@jit
def _forward(
    gate,
    up,
    low,
    b_gate,
    b_up,
    out,
    tokens,
    width,
    RANK: tl.constexpr,
    RANKS: tl.constexpr,
    TOKENS: tl.constexpr,
    FEATURES: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """One tile per program."""
    token = tl.program_id(0).to(tl.int64) * TOKENS + tl.arange(0, TOKENS)
    feature = tl.program_id(1) * FEATURES + tl.arange(0, FEATURES)
    rank = tl.arange(0, RANKS)
    here, wide, ranked = token < tokens, feature < width, rank < RANK
    at = token[:, None] * width + feature[None, :]
    inside = here[:, None] & wide[None, :]
    narrow = token[:, None] * (2 * RANK) + rank[None, :]
    known = here[:, None] & ranked[None, :]
    factor = feature[None, :] * RANK + rank[:, None]
    given = wide[None, :] & ranked[:, None]

    x = tl.load(gate + at, mask=inside, other=0.0).to(tl.float32)
    y = tl.load(up + at, mask=inside, other=0.0).to(tl.float32)
    low_gate = tl.load(low + narrow, mask=known, other=0.0)
    low_up = tl.load(low + RANK + narrow, mask=known, other=0.0)
    x += tl.dot(
        low_gate, tl.load(b_gate + factor, mask=given, other=0.0), input_precision=PRECISION
    )
    y += tl.dot(low_up, tl.load(b_up + factor, mask=given, other=0.0), input_precision=PRECISION)
    tl.store(out + at, x * tl.sigmoid(x) * y, mask=inside)


@jit
def _backward(
    grad,
    low_down,
    a_down,
    gate,
    up,
    low,
    b_gate,
    b_up,
    grad_gate,
    grad_up,
    sums,
    tokens,
    width,
    RANK: tl.constexpr,
    RANKS: tl.constexpr,
    TOKENS: tl.constexpr,
    FEATURES: tl.constexpr,
    STAGES: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """FEATURES columns of a share of the tokens per program, tile by tile.

    With s = sigmoid(x): d silu(x) / dx = s (1 + x (1 - s)).
    """
    block = tl.program_id(0)
    share, shares = tl.program_id(1), tl.num_programs(1)
    feature = block * FEATURES + tl.arange(0, FEATURES)
    rank = tl.arange(0, RANKS)
    wide, ranked = feature < width, rank < RANK
    given = wide[None, :] & ranked[:, None]
    # (RANKS, FEATURES) each, for all tokens
    factor = feature[None, :] * RANK + rank[:, None]
    b_x = tl.load(b_gate + factor, mask=given, other=0.0)
    b_y = tl.load(b_up + factor, mask=given, other=0.0)
    down = rank[:, None] * width + feature[None, :]
    a = tl.load(a_down + down, mask=given, other=0.0)
    # Turned round: the tile meets the tensor cores as its rows, of which they want 64.
    sum_x = tl.zeros((FEATURES, RANKS), dtype=tl.float32)
    sum_y = tl.zeros((FEATURES, RANKS), dtype=tl.float32)
    sum_a = tl.zeros((FEATURES, RANKS), dtype=tl.float32)

    each = ((tokens + shares - 1) // shares + TOKENS - 1) // TOKENS * TOKENS
    stop = tl.minimum((share + 1) * each, tokens)
    for first in tl.range(share * each, stop, TOKENS, num_stages=STAGES):
        token = (first + tl.arange(0, TOKENS)).to(tl.int64)
        here = token < stop
        known = here[:, None] & ranked[None, :]
        narrow = token[:, None] * (2 * RANK) + rank[None, :]
        low_x = tl.load(low + narrow, mask=known, other=0.0)  # (TOKENS, RANKS)
        low_y = tl.load(low + RANK + narrow, mask=known, other=0.0)
        low_d = tl.load(low_down + token[:, None] * RANK + rank[None, :], mask=known, other=0.0)
        at = token[:, None] * width + feature[None, :]
        inside = here[:, None] & wide[None, :]
        g = tl.load(grad + at, mask=inside, other=0.0).to(tl.float32)
        x = tl.load(gate + at, mask=inside, other=0.0).to(tl.float32)
        y = tl.load(up + at, mask=inside, other=0.0).to(tl.float32)
        g += tl.dot(low_d, a, input_precision=PRECISION)
        x += tl.dot(low_x, b_x, input_precision=PRECISION)
        y += tl.dot(low_y, b_y, input_precision=PRECISION)
        s = tl.sigmoid(x)
        silu = x * s
        gradient_x = (g * y * s * (1.0 + x * (1.0 - s))).to(low_x.dtype)
        gradient_y = (g * silu).to(low_x.dtype)
        tl.store(grad_gate + at, gradient_x, mask=inside)
        tl.store(grad_up + at, gradient_y, mask=inside)
        product = (silu * y).to(low_x.dtype)
        sum_x += tl.dot(tl.trans(gradient_x), low_x, input_precision=PRECISION)
        sum_y += tl.dot(tl.trans(gradient_y), low_y, input_precision=PRECISION)
        sum_a += tl.dot(tl.trans(product), low_d, input_precision=PRECISION)

    size = RANK * width
    base = sums + share.to(tl.int64) * 3 * size
    tl.store(base + down, tl.trans(sum_x), mask=given)
    tl.store(base + size + down, tl.trans(sum_y), mask=given)
    tl.store(base + 2 * size + down, tl.trans(sum_a), mask=given)
