"""Sliding-window attention in blocks: each block of queries meets only the keys in its band.

Any device and any dtype, cost O(T * W), nothing of size T x T or T x W kept for the backward pass.
Opaque to torch.compile, which would unroll the loop over blocks.
The definition of the window and the shapes are those of `model.attention`.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

KEY_ALIGNMENT = 32
"""Bands begin at multiples of it: a CPU's softmax and products are up to twice as fast over rows of
384 scores as over rows of 383."""


def band_block(dtype: torch.dtype) -> int:
    """Queries per block: few enough to waste little outside the band, enough for fast products.

    The best of 64, 128, 192 and 256 on a CPU (docs/performance.md).
    """
    return 128 if dtype.itemsize == 2 else 64


@torch.library.custom_op("model::banded_attention", mutates_args=())
def banded_attention(
    query: Tensor, key: Tensor, value: Tensor, segments: Tensor, window: int
) -> Tensor:
    """Attention of every query to the keys of its document in its window.

    Args:
        query: (B, T, H, E).
        key, value: (B, T, K, E).
        segments: (B, T), the document of each token.
        window: keys that a query sees, itself included.
    """
    q, k, v = _grouped(query, key), key.transpose(1, 2), value.transpose(1, 2)
    out = torch.empty_like(q)
    biases = _Biases(q, segments, window)
    for queries, keys in _bands(q, window):
        # The queries of a key head stand below each other, so that no key is repeated.
        mixed = F.scaled_dot_product_attention(
            q[..., queries, :].flatten(2, 3),
            k[:, :, keys],
            v[:, :, keys],
            attn_mask=biases.of(queries, keys)[:, None],
        )
        out[..., queries, :] = mixed.unflatten(2, (q.shape[2], -1))
    return out.flatten(1, 2).transpose(1, 2).contiguous()


@torch.library.custom_op("model::banded_attention_backward", mutates_args=())
def banded_attention_backward(
    grad: Tensor, query: Tensor, key: Tensor, value: Tensor, segments: Tensor, window: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of `banded_attention`, from probabilities that are computed again block by block.

    One row at a time, for then the scores of a block stay in a core's cache.
    """
    q, g = _grouped(query, key), _grouped(grad, key)  # (B, K, H / K, T, E)
    k, v = key.transpose(1, 2).contiguous(), value.transpose(1, 2).contiguous()  # (B, K, T, E)
    scale = 1 / math.sqrt(q.shape[-1])
    exact = torch.promote_types(q.dtype, torch.float32)
    grad_q = torch.empty_like(q)
    grad_k, grad_v = (torch.zeros(x.shape, dtype=exact, device=x.device) for x in (k, v))
    biases = _Biases(q, segments, window)
    for queries, keys in _bands(q, window):
        bias = biases.of(queries, keys).expand(q.shape[0], -1, -1)
        for row in range(q.shape[0]):
            q_block, g_block = (x[row, :, :, queries].flatten(1, 2) for x in (q, g))
            k_band, v_band = k[row, :, keys], v[row, :, keys]
            scores = torch.baddbmm(bias[row, None], q_block, k_band.mT, alpha=scale)
            probabilities = scores.softmax(-1)
            # Sums are in fp32; adding two dtypes is slower than converting first.
            grad_v[row, :, keys] += (probabilities.mT @ g_block).to(exact)
            slope = torch._softmax_backward_data(  # p * (s - sum(p * s)) in one pass
                g_block @ v_band.mT, probabilities, -1, q.dtype
            )
            grad_q[row, :, :, queries] = (slope @ k_band).unflatten(1, (q.shape[2], -1)).mul_(scale)
            grad_k[row, :, keys] += (slope.mT @ q_block).to(exact)
    return (
        grad_q.flatten(1, 2).transpose(1, 2).contiguous(),
        grad_k.mul_(scale).to(k.dtype).transpose(1, 2).contiguous(),
        grad_v.to(v.dtype).transpose(1, 2).contiguous(),
    )


def _bands(q: Tensor, window: int) -> list[tuple[slice, slice]]:
    """(queries, keys) of each block: keys that its queries can see, and some before them."""
    length, block = q.shape[-2], band_block(q.dtype)
    bands = []
    for start in range(0, length, block):
        stop = min(length, start + block)
        first = max(0, start - window + 1) // KEY_ALIGNMENT * KEY_ALIGNMENT
        bands.append((slice(start, stop), slice(first, stop)))
    return bands


class _Biases:
    """What is added to the scaled scores of a block: 0 where a key is seen, else -inf.

    A block shares with the one before, if they are of the same shape, what the window hides, and
    all of it where its band lies in one document, as most do in long ones. Only the latest are
    kept: until the window is full every block has a shape of its own.
    """

    def __init__(self, q: Tensor, segments: Tensor, window: int) -> None:
        self.segments, self.window = segments, window
        self.index = torch.arange(segments.shape[1], device=q.device)
        self.zero = torch.zeros((), dtype=q.dtype, device=q.device)
        self.heads_per_key = q.shape[2]
        self.shape = (0, 0)
        self.hidden_by_window = self.of_one_document = self.zero

    def of(self, queries: slice, keys: slice) -> Tensor:
        """(B, H / K * t, keys), or (1, ...) where it is the same in all rows."""
        shape = queries.stop - queries.start, keys.stop - keys.start
        if self.shape != shape:
            self.shape = shape
            self.hidden_by_window = ~_in_window(self.index[queries], self.index[keys], self.window)
            self.of_one_document = self._bias(self.hidden_by_window[None])
        band, own = self.segments[:, keys], self.segments[:, queries]
        # Only a CPU can look before it goes on.
        if self.segments.device.type == "cpu" and bool((band == band[:, :1]).all()):
            return self.of_one_document
        return self._bias(self.hidden_by_window | (own[..., None] != band[:, None]))

    def _bias(self, hidden: Tensor) -> Tensor:
        return self.zero.masked_fill(hidden, -math.inf).repeat(1, self.heads_per_key, 1)


def _grouped(x: Tensor, key: Tensor) -> Tensor:
    """(B, T, H, E) -> (B, K, H / K, T, E), so that no key head is ever repeated in memory."""
    return x.transpose(1, 2).unflatten(1, (key.shape[2], -1)).contiguous()


@banded_attention.register_fake
def _(query: Tensor, key: Tensor, value: Tensor, segments: Tensor, window: int) -> Tensor:
    del key, value, segments, window
    return torch.empty_like(query, memory_format=torch.contiguous_format)


@banded_attention_backward.register_fake
def _(
    grad: Tensor, query: Tensor, key: Tensor, value: Tensor, segments: Tensor, window: int
) -> tuple[Tensor, Tensor, Tensor]:
    del grad, segments, window
    return tuple(  # pyright: ignore[reportReturnType]
        torch.empty_like(x, memory_format=torch.contiguous_format) for x in (query, key, value)
    )


def _save_for_backward(ctx, inputs, output) -> None:  # noqa: ANN001, ARG001
    *tensors, ctx.window = inputs
    ctx.save_for_backward(*tensors)


def _backward(ctx, grad: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN001
    return *banded_attention_backward(grad, *ctx.saved_tensors, ctx.window), None, None


banded_attention.register_autograd(_backward, setup_context=_save_for_backward)


def visible_keys(segments: Tensor, queries: slice, keys: slice, window: int | None) -> Tensor:
    """The mask between two ranges of a row: (B, queries, keys), or (1, ...) for equal rows."""
    index = torch.arange(segments.shape[1], device=segments.device)
    seen = _in_window(index[queries], index[keys], window)
    return seen & (segments[:, queries, None] == segments[:, None, keys])


def _in_window(queries: Tensor, keys: Tensor, window: int | None) -> Tensor:
    """Which keys each query would see in an endless document, by their positions: (t, keys)."""
    i, j = queries[:, None], keys[None]
    return i >= j if window is None else (i >= j) & (i - j < window)
