"""One new token per sequence against the ring that a cache keeps of it
(`inference.generation.cache.kv_storage`).

Two launches per layer instead of two dozen: queries and keys are rotated while the new key and
value are written to their slot, and all heads that share a key head read its keys once, cut into
pieces that several programs read at the same time (split keys: Dao et al. 2023, "Flash-Decoding
for long-context inference"). Lengths are read from the device, so that a recorded launch can be
replayed. No gradients. `inference.generation.decoders.cuda_graph` is the user.
"""

# pyright: reportInvalidTypeForm=false
# (tl.constexpr is an annotation that Triton reads)

import torch
from torch import Tensor

from kernels.launch import check_launch, jit, power_of_two, tl

PIECE = 64
"""Keys that a program reads at once, the smallest length of a piece."""
PROGRAMS = 512
"""Programs of a launch to aim at: a few for each of a large device's multiprocessors."""
FEWEST_ROWS = 16
"""Rows of the smallest matrix product on tensor cores; missing queries are padded."""


def rotate_and_store(
    projected: Tensor,
    cos: Tensor,
    sin: Tensor,
    lengths: Tensor,
    keys: Tensor,
    values: Tensor,
    heads: int,
) -> Tensor:
    """Rotated queries (N, H, E); rotated keys and values go to slot `length % S` of their rings.

    Args:
        projected: (N, H + 2 K, E): queries, keys and values of the new tokens.
        cos, sin: (N, E) in fp32 as in `model.rotary.Rotary`: the sines negative in the first half.
        lengths: (N,) int64, tokens before this one.
        keys, values: (N, K, S, E) rings, written in place.
        heads: H.
    """
    rows, total, width = projected.shape
    key_heads, slots = keys.shape[1:3]
    assert total == heads + 2 * key_heads
    assert keys.shape == values.shape == (rows, key_heads, slots, width)
    assert cos.shape == sin.shape == (rows, width)
    check_launch(projected, cos, sin, lengths, keys, values)
    out = torch.empty(rows, heads, width, dtype=projected.dtype, device=projected.device)
    if rows:
        _rotate_and_store[(rows, total)](
            *(projected, cos, sin, lengths, keys, values, out),
            slots,
            HEADS=heads,
            KEY_HEADS=key_heads,
            WIDTH=width,
            BLOCK=power_of_two(width),
            num_warps=1,
        )
    return out


@jit
def _rotate_and_store(
    projected,
    cos,
    sin,
    lengths,
    keys,
    values,
    out,
    slots,
    HEADS: tl.constexpr,
    KEY_HEADS: tl.constexpr,
    WIDTH: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """One head of one sequence per program."""
    row = tl.program_id(0).to(tl.int64)
    head = tl.program_id(1)
    at = tl.arange(0, BLOCK)
    inside = at < WIDTH
    start = (row * (HEADS + 2 * KEY_HEADS) + head) * WIDTH
    x = tl.load(projected + start + at, mask=inside, other=0.0)
    slot = tl.load(lengths + row) % slots
    if head < HEADS + KEY_HEADS:
        other = tl.load(projected + start + (at + WIDTH // 2) % WIDTH, mask=inside, other=0.0)
        c = tl.load(cos + row * WIDTH + at, mask=inside, other=0.0)
        s = tl.load(sin + row * WIDTH + at, mask=inside, other=0.0)
        turned = x.to(tl.float32) * c + other.to(tl.float32) * s
        if head < HEADS:
            tl.store(out + (row * HEADS + head) * WIDTH + at, turned, mask=inside)
        else:
            ring = (row * KEY_HEADS + head - HEADS) * slots + slot
            tl.store(keys + ring * WIDTH + at, turned, mask=inside)
    else:
        ring = (row * KEY_HEADS + head - HEADS - KEY_HEADS) * slots + slot
        tl.store(values + ring * WIDTH + at, x, mask=inside)


def attend_ring(query: Tensor, keys: Tensor, values: Tensor, lengths: Tensor) -> Tensor:
    """Attention (N, H, E) of each query to the filled slots of its ring.

    Args:
        query: (N, H, E).
        keys, values: (N, K, S, E); the newest token's are among them.
        lengths: (N,) int64, tokens before the newest: `min(length + 1, S)` slots are filled.
    """
    rows, heads, width = query.shape
    key_heads, slots = keys.shape[1:3]
    assert heads % key_heads == 0
    assert width == power_of_two(width) >= FEWEST_ROWS, "tensor cores multiply whole blocks"
    check_launch(query, keys, values, lengths)
    group = heads // key_heads
    out = torch.empty_like(query)
    if not rows:
        return out
    pieces = max(1, min(-(-slots // PIECE), PROGRAMS // (rows * key_heads)))
    options = {"dtype": torch.float32, "device": query.device}
    sums = torch.empty(rows, heads, pieces, width, **options)
    tops = torch.empty(rows, heads, pieces, 2, **options)
    _attend_piece[(rows * key_heads, pieces)](
        *(query, keys, values, lengths, sums, tops),
        slots,
        width**-0.5,
        KEY_HEADS=key_heads,
        GROUP=group,
        ROWS=max(FEWEST_ROWS, power_of_two(group)),
        WIDTH=width,
        PIECE=PIECE,
        PRECISION="ieee" if query.dtype == torch.float32 else "tf32",
        num_warps=4,
    )
    _join_pieces[(rows * heads,)](
        *(sums, tops, out), pieces, PIECES=power_of_two(pieces), WIDTH=width, num_warps=2
    )
    return out


@jit
def _attend_piece(
    query,
    keys,
    values,
    lengths,
    sums,
    tops,
    slots,
    scale,
    KEY_HEADS: tl.constexpr,
    GROUP: tl.constexpr,
    ROWS: tl.constexpr,
    WIDTH: tl.constexpr,
    PIECE: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """The queries of one key head against one piece of its ring: weighted values, not yet divided,
    the largest score and the sum of exponentials."""
    ring = tl.program_id(0).to(tl.int64)
    piece, pieces = tl.program_id(1), tl.num_programs(1)
    visible = tl.minimum(tl.load(lengths + ring // KEY_HEADS) + 1, slots)
    each = ((visible + pieces - 1) // pieces + PIECE - 1) // PIECE * PIECE
    start = piece * each
    stop = tl.minimum(start + each, visible)
    at = tl.arange(0, WIDTH)
    member = tl.arange(0, ROWS)
    head = ring * GROUP + member  # of all heads of all sequences
    own = member[:, None] < GROUP
    q = tl.load(query + head[:, None] * WIDTH + at[None, :], mask=own, other=0.0)
    highest = tl.full((ROWS,), -float("inf"), dtype=tl.float32)
    total = tl.zeros((ROWS,), dtype=tl.float32)
    mixed = tl.zeros((ROWS, WIDTH), dtype=tl.float32)
    for first in range(start, stop, PIECE):
        slot = first + tl.arange(0, PIECE)
        seen = slot < stop
        place = (ring * slots + slot)[:, None] * WIDTH + at[None, :]
        k = tl.load(keys + place, mask=seen[:, None], other=0.0)
        scores = tl.dot(q, tl.trans(k), input_precision=PRECISION) * scale
        scores = tl.where(seen[None, :], scores, -float("inf"))
        top = tl.maximum(highest, tl.max(scores, 1))
        weights = tl.exp(scores - top[:, None])
        shrink = tl.exp(highest - top)
        total = total * shrink + tl.sum(weights, 1)
        v = tl.load(values + place, mask=seen[:, None], other=0.0)
        mixed = mixed * shrink[:, None]
        mixed += tl.dot(weights.to(v.dtype), v, input_precision=PRECISION)
        highest = top
    part = head * pieces + piece
    tl.store(sums + part[:, None] * WIDTH + at[None, :], mixed, mask=own)
    tl.store(tops + part * 2, highest, mask=member < GROUP)
    tl.store(tops + part * 2 + 1, total, mask=member < GROUP)


@jit
def _join_pieces(sums, tops, out, pieces, PIECES: tl.constexpr, WIDTH: tl.constexpr):
    """One head of one sequence per program. Empty pieces have the score -inf and weigh nothing."""
    head = tl.program_id(0).to(tl.int64)
    piece = tl.arange(0, PIECES)
    at = tl.arange(0, WIDTH)
    there = piece < pieces
    part = head * pieces + piece
    highest = tl.load(tops + part * 2, mask=there, other=-float("inf"))
    weight = tl.exp(highest - tl.max(highest, 0))
    total = tl.sum(tl.load(tops + part * 2 + 1, mask=there, other=0.0) * weight, 0)
    place = part[:, None] * WIDTH + at[None, :]
    mixed = tl.load(sums + place, mask=there[:, None], other=0.0) * weight[:, None]
    tl.store(out + head * WIDTH + at, tl.sum(mixed, 0) / total)
