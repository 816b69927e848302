"""Sliding-window attention in blocks: each block of queries meets only the keys in its band.

Plain matrix products on any device and in any dtype, cost O(T * W), nothing of size T x T or T x W
kept for the backward pass. Opaque to torch.compile, which would unroll the loop over blocks.
The definition of the window and the shapes are those of `model.attention`.
"""

import math

import torch
from torch import Tensor

BAND_BLOCK = 128
"""Queries per block: small enough to waste little outside the band, large enough for efficient
matrix products (the best of 64, 128, 256, 512 on CPU in fp32 and bf16)."""


@torch.library.custom_op("model::banded_attention", mutates_args=())
def banded_attention(
    query: Tensor, key: Tensor, value: Tensor, segments: Tensor, window: int
) -> tuple[Tensor, Tensor]:
    """Attention and the logarithm of each query's softmax denominator, (B, K, H / K, T).

    From the latter, backward rebuilds the probabilities (Dao et al. 2022, section 3.1).

    Args:
        query: (B, T, H, E).
        key, value: (B, T, K, E).
        segments: (B, T), the document of each token.
        window: keys that a query sees, itself included.
    """
    q, k, v = _grouped(query, key), key.transpose(1, 2), value.transpose(1, 2)
    out = torch.empty_like(q)
    log_denominator = q.new_empty(q.shape[:-1], dtype=_score_dtype(q))
    for queries, keys in _bands(q.shape[-2], window):
        scores = _band_scores(q, k, segments, queries, keys, window)
        log_denominator[..., queries] = scores.logsumexp(-1)
        probabilities = scores.sub_(log_denominator[..., queries, None]).exp_()
        out[..., queries, :] = _per_key_head(probabilities.to(q.dtype), v[:, :, keys])
    return out.flatten(1, 2).transpose(1, 2).contiguous(), log_denominator


@torch.library.custom_op("model::banded_attention_backward", mutates_args=())
def banded_attention_backward(
    grad: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    segments: Tensor,
    out: Tensor,
    log_denominator: Tensor,
    window: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of `banded_attention`, block by block (Dao et al. 2022, appendix B.2)."""
    q, k, v = _grouped(query, key), key.transpose(1, 2), value.transpose(1, 2)
    g = _grouped(grad, key)
    scale = 1 / math.sqrt(q.shape[-1])
    exact = _score_dtype(q)
    # sum_j p_ij * (g_i . v_j) = g_i . out_i, so no pass over the keys is needed for it.
    mean = (g.to(exact) * _grouped(out, key)).sum(-1, keepdim=True)
    grad_q = torch.empty_like(q)
    grad_k = torch.zeros(k.shape, dtype=exact, device=k.device)
    grad_v = torch.zeros(v.shape, dtype=exact, device=v.device)
    for queries, keys in _bands(q.shape[-2], window):
        scores = _band_scores(q, k, segments, queries, keys, window)
        probabilities = scores.sub_(log_denominator[..., queries, None]).exp_()
        q_block, g_block = (x[..., queries, :].flatten(2, 3) for x in (q, g))
        grad_v[:, :, keys] += probabilities.to(q.dtype).flatten(2, 3).mT @ g_block
        slope = _per_key_head(g[..., queries, :], v[:, :, keys].mT).to(exact)
        slope = slope.sub_(mean[..., queries, :]).mul_(probabilities).mul_(scale).to(q.dtype)
        grad_q[..., queries, :] = _per_key_head(slope, k[:, :, keys])
        grad_k[:, :, keys] += slope.flatten(2, 3).mT @ q_block
    return (
        grad_q.flatten(1, 2).transpose(1, 2).contiguous(),
        grad_k.to(k.dtype).transpose(1, 2).contiguous(),
        grad_v.to(v.dtype).transpose(1, 2).contiguous(),
    )


def _bands(length: int, window: int) -> list[tuple[slice, slice]]:
    """(queries, keys) of each block: the keys that at least one of its queries can see."""
    starts = range(0, length, BAND_BLOCK)
    stops = [min(length, start + BAND_BLOCK) for start in starts]
    return [
        (slice(start, stop), slice(max(0, start - window + 1), stop))
        for start, stop in zip(starts, stops, strict=True)
    ]


def _band_scores(
    q: Tensor, k: Tensor, segments: Tensor, queries: slice, keys: slice, window: int
) -> Tensor:
    """Masked, scaled scores (B, K, H / K, queries, keys) in at least fp32."""
    scale = 1 / math.sqrt(q.shape[-1])
    scores = _per_key_head(q[..., queries, :], k[:, :, keys].mT).to(_score_dtype(q)).mul_(scale)
    hidden = ~visible_keys(segments, queries, keys, window)
    return scores.masked_fill_(hidden[:, None, None], -math.inf)


def _grouped(x: Tensor, key: Tensor) -> Tensor:
    """(B, T, H, E) -> (B, K, H / K, T, E), so that no key head is ever repeated in memory."""
    return x.transpose(1, 2).unflatten(1, (key.shape[2], -1)).contiguous()


def _per_key_head(x: Tensor, y: Tensor) -> Tensor:
    """Matrix product of (B, K, H / K, t, a) with (B, K, a, b) as one product per key head."""
    return (x.flatten(2, 3) @ y).unflatten(2, x.shape[2:4])


def _score_dtype(q: Tensor) -> torch.dtype:
    return torch.promote_types(q.dtype, torch.float32)


@banded_attention.register_fake
def _(
    query: Tensor, key: Tensor, value: Tensor, segments: Tensor, window: int
) -> tuple[Tensor, Tensor]:
    del value, segments, window
    rows, length, heads, _ = query.shape
    groups = (rows, key.shape[2], heads // key.shape[2], length)
    out = torch.empty_like(query, memory_format=torch.contiguous_format)
    return out, query.new_empty(groups, dtype=_score_dtype(query))


@banded_attention_backward.register_fake
def _(
    grad: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    segments: Tensor,
    out: Tensor,
    log_denominator: Tensor,
    window: int,
) -> tuple[Tensor, Tensor, Tensor]:
    del grad, segments, out, log_denominator, window
    return tuple(  # pyright: ignore[reportReturnType]
        torch.empty_like(x, memory_format=torch.contiguous_format) for x in (query, key, value)
    )


def _save_for_backward(ctx, inputs, output) -> None:  # noqa: ANN001
    *tensors, ctx.window = inputs
    out, log_denominator = output
    ctx.mark_non_differentiable(log_denominator)
    ctx.save_for_backward(*tensors, out, log_denominator)


def _backward(ctx, grad: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN001
    return *banded_attention_backward(grad, *ctx.saved_tensors, ctx.window), None, None


banded_attention.register_autograd(_backward, setup_context=_save_for_backward)


def visible_keys(segments: Tensor, queries: slice, keys: slice, window: int | None) -> Tensor:
    """The mask between two ranges of a row: (B, queries, keys), or (1, ...) for equal rows."""
    index = torch.arange(segments.shape[1], device=segments.device)
    i, j = index[queries, None], index[None, keys]
    seen = i >= j if window is None else (i >= j) & (i - j < window)
    return seen & (segments[:, queries, None] == segments[:, None, keys])
