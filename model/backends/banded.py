"""Sliding-window attention in blocks: each block of queries meets only the keys in its band.

Any device and any dtype, cost O(T * W), nothing of size T x T or T x W kept for the backward pass.
Opaque to torch.compile, which would unroll the loop over blocks.
The definition of the window and the shapes are those of `model.attention`.
"""

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

KEY_ALIGNMENT = 32
"""Bands begin at multiples of it: a CPU's softmax and products are up to twice as fast over rows of
384 scores as over rows of 383."""
MASKED = 1 << 21
"""Scores whose masks are held at a time."""


def band_block(dtype: torch.dtype) -> int:
    """Queries per block: few enough to waste little outside the band, enough for fast products.

    The best of 64, 128, 192 and 256 on a CPU (docs/results/performance.md).
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
    out = torch.empty_like(query, memory_format=torch.contiguous_format)
    group = query.shape[2] // key.shape[2]
    biases = _Biases(segments, window, group, query.dtype)
    for band in _bands(query, window, group):
        bias = biases.of(band).expand(len(query), -1, -1, -1)
        for q, k, v, mixed, hidden in zip(query, key, value, out, bias, strict=True):
            blocks = F.scaled_dot_product_attention(
                _stacked(band.queries_of(q), group).flatten(2, 3),  # (n, K, H / K * t, E)
                band.keys_of(k),
                band.keys_of(v),
                attn_mask=hidden[:, None],
            )
            place = _stacked(band.queries_of(mixed), group)
            place.copy_(blocks.unflatten(2, place.shape[2:4]))
    return out


@torch.library.custom_op("model::banded_attention_backward", mutates_args=())
def banded_attention_backward(
    grad: Tensor, query: Tensor, key: Tensor, value: Tensor, segments: Tensor, window: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of `banded_attention`, from probabilities that are computed again block by block.

    One row at a time, for then the scores of a block stay in a core's cache.
    """
    k, v = key.transpose(1, 2).contiguous(), value.transpose(1, 2).contiguous()  # (B, K, T, E)
    scale = 1 / math.sqrt(query.shape[-1])
    exact = torch.promote_types(query.dtype, torch.float32)
    grad_q = torch.empty_like(query, memory_format=torch.contiguous_format)
    grad_k, grad_v = (torch.zeros(x.shape, dtype=exact, device=x.device) for x in (k, v))
    group = query.shape[2] // key.shape[2]
    biases = _Biases(segments, window, group, query.dtype)
    for band in _bands(query, window, group, most=1):
        bias = biases.of(band).expand(len(query), -1, -1, -1)
        q, g = (_stacked(x[:, band.queries], group).flatten(2, 3) for x in (query, grad))
        places = _stacked(grad_q[:, band.queries], group)  # (B, K, H / K, t, E)
        for row, place in enumerate(places):
            k_band, v_band = k[row, :, band.keys], v[row, :, band.keys]  # (K, keys, E)
            scores = torch.bmm(q[row], k_band.mT)  # (K, H / K * t, keys)
            probabilities = torch.add(bias[row], scores, alpha=scale, out=scores).softmax(-1)
            # Sums are in fp32; adding two dtypes is slower than converting first.
            grad_v[row, :, band.keys] += torch.bmm(probabilities.mT, g[row]).to(exact)
            gradient = torch._softmax_backward_data(  # p * (s - sum(p * s)) in one pass
                torch.bmm(g[row], v_band.mT, out=scores), probabilities, -1, query.dtype
            )
            place.copy_(torch.bmm(gradient, k_band).mul_(scale).unflatten(1, place.shape[1:3]))
            grad_k[row, :, band.keys] += torch.bmm(gradient.mT, q[row]).to(exact)
    return (
        grad_q,
        grad_k.mul_(scale).to(k.dtype).transpose(1, 2).contiguous(),
        grad_v.to(v.dtype).transpose(1, 2).contiguous(),
    )


class _Band(NamedTuple):
    """Blocks of queries that follow each other, and the keys that each of them meets.

    Attributes:
        queries, keys: of the first block; those of each further one lie a block further on.
        blocks: how many.
    """

    queries: slice
    keys: slice
    blocks: int = 1

    @property
    def shape(self) -> tuple[int, int]:
        """Queries and keys of one block."""
        return self.queries.stop - self.queries.start, self.keys.stop - self.keys.start

    def queries_of(self, x: Tensor) -> Tensor:
        """(T, ...) -> (blocks, queries, ...), a view."""
        t, _ = self.shape
        start = self.queries.start
        return x[start : start + self.blocks * t].unflatten(0, (self.blocks, t))

    def keys_of(self, x: Tensor) -> Tensor:
        """(T, K, E) -> (blocks, K, keys, E), a view."""
        t, keys = self.shape
        reach = x[self.keys.start : self.keys.stop + (self.blocks - 1) * t]
        return reach.unfold(0, keys, t).mT


def _bands(query: Tensor, window: int, group: int, *, most: int | None = None) -> list[_Band]:
    """Blocks of equal shape together: keys that the queries can see, and some before them.

    Args:
        most: blocks in one; None: as many as `MASKED` allows.
    """
    length, block = query.shape[1], band_block(query.dtype)
    bands: list[_Band] = []
    for start in range(0, length, block):
        stop = min(length, start + block)
        first = max(0, start - window + 1) // KEY_ALIGNMENT * KEY_ALIGNMENT
        band = _Band(slice(start, stop), slice(first, stop))
        t, keys = band.shape
        limit = most or max(1, MASKED // (group * t * keys))
        if bands and bands[-1].shape == band.shape and bands[-1].blocks < limit:
            band = bands.pop()
            band = band._replace(blocks=band.blocks + 1)
        bands.append(band)
    return bands


def _stacked(x: Tensor, group: int) -> Tensor:
    """(n, t, H, E) -> (n, K, H / K, t, E), a view: the queries of a key head below each other, so
    that no key is ever repeated in memory."""
    return x.unflatten(2, (-1, group)).permute(0, 2, 3, 1, 4)


class _Biases:
    """Biases of the scaled scores of a block: 0 if the query sees the key, else -inf.

    Bands with blocks of one shape share the biases of the window, and inside one document, as most
    bands of long documents are, all biases. Only the latest biases are kept: until the window is
    full, every block has a different shape.
    """

    def __init__(self, segments: Tensor, window: int, group: int, dtype: torch.dtype) -> None:
        self.segments, self.window, self.group = segments, window, group
        self.index = torch.arange(segments.shape[1], device=segments.device)
        self.zero = torch.zeros((), dtype=dtype, device=segments.device)
        self.shape = (0, 0)
        self.hidden_by_window = self.of_one_document = self.zero

    def of(self, band: _Band) -> Tensor:
        """(B, blocks, H / K * t, keys), or (1, 1, ...) where it is the same in all."""
        if self.shape != band.shape:
            self.shape = band.shape
            queries, keys = self.index[band.queries], self.index[band.keys]
            self.hidden_by_window = ~_in_window(queries, keys, self.window)
            self.of_one_document = self._bias(self.hidden_by_window)[None, None]
        t, keys = band.shape
        last = band.keys.stop + (band.blocks - 1) * t
        reach = self.segments[:, band.keys.start : last]
        # Only on a CPU is reading a value free of a wait for the device.
        if reach.device.type == "cpu" and bool((reach == reach[:, :1]).all()):
            return self.of_one_document
        own = self.segments[:, band.queries.start : last].unflatten(1, (band.blocks, t))
        others = reach.unfold(1, keys, t)  # (B, blocks, keys)
        return self._bias(self.hidden_by_window | (own[..., None] != others[:, :, None]))

    def _bias(self, hidden: Tensor) -> Tensor:
        """(..., t, keys) -> (..., H / K * t, keys)."""
        bias = self.zero.masked_fill(hidden, -math.inf)
        return bias.repeat(*[1] * (hidden.ndim - 2), self.group, 1)


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
    """(t, keys) True for each key that a query sees in one long document, from their positions."""
    i, j = queries[:, None], keys[None]
    return i >= j if window is None else (i >= j) & (i - j < window)
