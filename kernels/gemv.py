"""The product of one row with a weight, with the norm before it and what follows it.

One row costs the reading of the weight, nothing else, so what counts is the share of the memory's
rate and the launches: a layer takes four of these. On an H200 cuBLAS reads the weights of
Mistral-7B's five products at 2.6 to 4.1 TB/s, this, with what it does besides, at 3.2 to 4.3
(docs/results/performance.md). No gradients. `inference.generation.decoders.cuda_graph` is the user.
"""

# pyright: reportInvalidTypeForm=false
# (tl.constexpr is an annotation that Triton reads)

import torch
from torch import Tensor

from kernels.launch import check_launch, jit, tl

PLAIN, NORMED, GATED = (1, 512, 4, 1), (2, 2048, 8, 1), (1, 512, 4, 32)
"""Rows and columns of the weight that a program reads in one go, its warps, and how often the loop
over columns is unrolled: of eleven shapes, unrolled or not, the best on an H200 for each use."""


def gemv(
    x: Tensor,
    weight: Tensor,
    *,
    norm: Tensor | None = None,
    eps: float = 0.0,
    gated: bool = False,
    add: Tensor | None = None,
) -> Tensor:
    """(1, I) times (O, I)^T: (1, O), summed in fp32 and rounded once.

    Args:
        norm: (I,) what x, divided by its root mean square (with `eps`), is multiplied with first.
        gated: the weight has 2 O rows; silu of the first half's product times the second's.
        add: (1, O) added to the product.
    """
    width = x.shape[1]
    outputs = len(weight) // 2 if gated else len(weight)
    assert x.shape == (1, weight.shape[1])
    assert add is None or add.shape == (1, outputs)
    assert norm is None or norm.shape == (width,)
    check_launch(*(t for t in (x, weight, norm, add) if t is not None))
    out = torch.empty(1, outputs, dtype=x.dtype, device=x.device)
    rows, columns, warps, unroll = GATED if gated else PLAIN if norm is None else NORMED
    _gemv[(-(-outputs // rows),)](
        *(x, weight, x if norm is None else norm, x if add is None else add, out),
        *(outputs, eps),
        WIDTH=width,
        NORM=norm is not None,
        GATED=gated,
        ADD=add is not None,
        ROWS=rows,
        COLUMNS=columns,
        UNROLL=min(unroll, -(-width // columns)),
        num_warps=warps,
    )
    return out


@jit
def _gemv(
    x,
    weight,
    norm,
    add,
    out,
    outputs,
    eps,
    WIDTH: tl.constexpr,
    NORM: tl.constexpr,
    GATED: tl.constexpr,
    ADD: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    UNROLL: tl.constexpr,
):
    """ROWS outputs per program. The norm's divisor is one number, and divides the product."""
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    there = row < outputs
    sums = tl.zeros((ROWS, COLUMNS), dtype=tl.float32)
    others = tl.zeros((ROWS, COLUMNS), dtype=tl.float32)
    squares = tl.zeros((COLUMNS,), dtype=tl.float32)
    for start in tl.range(0, WIDTH, COLUMNS, loop_unroll_factor=UNROLL):
        at = start + tl.arange(0, COLUMNS)
        inside = at < WIDTH
        y = tl.load(x + at, mask=inside, other=0.0).to(tl.float32)
        if NORM:
            squares += y * y
            y *= tl.load(norm + at, mask=inside, other=0.0).to(tl.float32)
        mask = there[:, None] & inside[None, :]
        place = row[:, None] * WIDTH + at[None, :]
        sums += tl.load(weight + place, mask=mask, other=0.0).to(tl.float32) * y[None, :]
        if GATED:
            second = (row + outputs)[:, None] * WIDTH + at[None, :]
            other = tl.load(weight + second, mask=mask, other=0.0)
            others += other.to(tl.float32) * y[None, :]
    result = tl.sum(sums, 1)
    scale = 1.0
    if NORM:
        scale = 1.0 / tl.sqrt(tl.sum(squares, 0) / WIDTH + eps)
        result *= scale
    if GATED:
        result = result * tl.sigmoid(result) * (tl.sum(others, 1) * scale)
    if ADD:
        result += tl.load(add + row, mask=there, other=0.0).to(tl.float32)
    tl.store(out + row, result, mask=there)
