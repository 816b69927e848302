"""Causal attention over packed documents with a sliding window.

One definition for all backends: query i sees key j if and only if both are in the same document,
j <= i, and i - j < window (so a window of W means W keys, the query's own included; None means no
bound). The default scale is 1 / sqrt(head width).

    flash4     flash-attn-4; CUDA from Hopper on, 16-bit
    flash      flash-attn's varlen kernel, else torch.nn.attention.varlen; CUDA, 16-bit
    flex       compiled flex_attention with a block mask; trains on CUDA only
    banded     blocks of queries against the keys they can see, O(T * W), any device and dtype
    reference  the definition as one dense mask, O(T^2), any device and dtype

Shapes: query (B, T, H, E), key and value (B, T, K, E), result (B, T, H, E), where K divides H and
query head h reads key head h // (H / K).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.attention.flex_attention import create_block_mask, flex_attention

from model.backends.banded import band_block, banded_attention, visible_keys
from model.backends.flash4 import flash4_attention, prefers_flash4, runs_flash4
from model.documents import Documents

try:
    from flash_attn import flash_attn_varlen_func  # pyright: ignore[reportMissingImports]
except ImportError:  # an optional extra; flash-attn-4 alone also has a flash_attn without it
    flash_attn_varlen_func = None

Query = Float[Tensor, "B T H E"]
KeyValue = Float[Tensor, "B T K E"]


def resolve_backend(name: str, device: torch.device, dtype: torch.dtype, head_dim: int) -> str:
    """The backend that will run, decided once at start-up.

    Raises:
        ValueError: the name is unknown, or that backend cannot run here.
    """
    if name not in (*BACKENDS, "auto"):
        raise ValueError(f"parallel.attention={name!r}: one of auto, {', '.join(BACKENDS)}")
    sixteen_bit = dtype in (torch.bfloat16, torch.float16)
    flash_fits = device.type == "cuda" and sixteen_bit and head_dim % 8 == 0 and head_dim <= 256
    if name == "auto":
        if flash_fits:
            return "flash4" if prefers_flash4(device, head_dim) else "flash"
        return "flex" if device.type == "cuda" else "banded"
    if name in ("flash", "flash4") and not flash_fits:
        raise ValueError(
            f"parallel.attention={name} needs CUDA, bfloat16 and a head width <= 256 divisible by "
            f"8; this run has device={device.type}, dtype={dtype}, head width {head_dim}. Use "
            "parallel.attention=banded (any device) or auto"
        )
    if name == "flash4" and not runs_flash4(device):
        raise ValueError(
            "parallel.attention=flash4 needs a Hopper or a data-center Blackwell and "
            "flash-attn-4 (pip install -e '.[flash4]'); use parallel.attention=flash or auto"
        )
    if name == "flex" and device.type != "cuda":
        raise ValueError(
            f"parallel.attention=flex cannot train on {device.type} (PyTorch has no backward "
            "there); use parallel.attention=banded or auto"
        )
    return name


def describe_backend(name: str) -> str:
    """The backend with the library that carries it, for the start-up message."""
    if name == "flash4":
        return "flash4 (flash-attn-4)"
    if name != "flash":
        return name
    package = "flash-attn" if flash_attn_varlen_func else "torch.nn.attention.varlen"
    return f"flash ({package})"


def prepare_documents(documents: Documents, window: int | None, backend: str) -> Documents:
    """Compute once per batch what the backend needs in every layer."""
    if backend != "flex":
        return documents
    segments, (rows, length) = documents.segments, documents.segments.shape

    def visible(row: Tensor, _head: Tensor, i: Tensor, j: Tensor) -> Tensor:
        seen = (i >= j) & (segments[row, i] == segments[row, j])
        return seen if window is None else seen & (i - j < window)

    mask = create_block_mask(visible, rows, None, length, length, device=str(segments.device))
    return replace(documents, block_mask=mask)


def attention(
    query: Query,
    key: KeyValue,
    value: KeyValue,
    documents: Documents,
    *,
    window: int | None,
    backend: str,
) -> Query:
    """Attention as the module docstring defines it, by the named backend."""
    return BACKENDS[backend](query, key, value, documents, window)


@runtime_checkable
class AttentionContext(Protocol):
    """The keys that the tokens of one forward pass attend to.

    The one point where decoding takes hold of the network: `Mistral.forward` builds a
    `PackedContext` unless it is given another context, such as a pass over a KV cache.
    """

    @property
    def positions(self) -> Int[Tensor, "B T"]:
        """Position of each token in its document, for the rotary angles."""
        ...

    def mix(self, query: Query, key: KeyValue, value: KeyValue) -> Query:
        """Attention of one layer, on rotated queries and keys; called once per layer, in order."""
        ...


@dataclass(frozen=True)
class PackedContext:
    """Context of packed rows: each document attends to its own tokens, within the window.

    Attributes:
        documents: as `prepare_documents` returns them.
        window: number of keys that a query sees, including its own; None: all of its document.
        backend: a name in `BACKENDS`.
    """

    documents: Documents
    window: int | None
    backend: str

    @classmethod
    def of(cls, documents: Documents, window: int | None, backend: str) -> "PackedContext":
        """The context of a batch, with what its backend computes once per batch."""
        return cls(prepare_documents(documents, window, backend), window, backend)

    @property
    def positions(self) -> Int[Tensor, "B T"]:
        return self.documents.positions

    def mix(self, query: Query, key: KeyValue, value: KeyValue) -> Query:
        return attention(
            query, key, value, self.documents, window=self.window, backend=self.backend
        )


def attention_after(
    query: Float[Tensor, "T H E"],
    key: Float[Tensor, "S K E"],
    value: Float[Tensor, "S K E"],
    window: int | None,
) -> Float[Tensor, "T H E"]:
    """Attention of the last T tokens of a document of S tokens, for text that arrives in parts.

    In blocks of queries against the keys that they can see, like `banded`; no gradients needed.
    """
    length, key_heads = query.shape[0], key.shape[1]
    before = key.shape[0] - length
    q = query.unflatten(1, (key_heads, -1)).movedim(0, 2)  # (K, H / K, T, E)
    k, v = key.transpose(0, 1), value.transpose(0, 1)  # (K, S, E)
    index = torch.arange(key.shape[0], device=key.device)
    out = torch.empty_like(query)
    size = band_block(query.dtype)
    for start in range(0, length, size):
        stop = min(length, start + size)
        first = 0 if window is None else max(0, before + start - window + 1)
        i, j = index[before + start : before + stop, None], index[None, first : before + stop]
        seen = i >= j if window is None else (i >= j) & (i - j < window)  # (t, keys)
        block = torch.nn.functional.scaled_dot_product_attention(
            q[:, :, start:stop].flatten(1, 2)[None],  # (1, K, H / K * t, E)
            k[None, :, first : before + stop],
            v[None, :, first : before + stop],
            attn_mask=seen.repeat(q.shape[1], 1),
        )
        out[start:stop] = block[0].unflatten(1, (q.shape[1], -1)).movedim(2, 0).flatten(1, 2)
    return out


def _reference(
    query: Query, key: KeyValue, value: KeyValue, documents: Documents, window: int | None
) -> Query:
    heads_per_key = query.shape[2] // key.shape[2]
    q = query.transpose(1, 2)  # (B, H, T, E)
    k = key.transpose(1, 2).repeat_interleave(heads_per_key, 1)
    v = value.transpose(1, 2).repeat_interleave(heads_per_key, 1)
    visible = visible_keys(documents.segments, slice(None), slice(None), window)
    scores = (q @ k.mT / math.sqrt(q.shape[-1])).masked_fill(~visible.unsqueeze(1), -math.inf)
    # Like HF's eager attention: at least fp32 in the softmax, whatever the inputs.
    exact = torch.promote_types(scores.dtype, torch.float32)
    return (scores.to(exact).softmax(-1).to(q.dtype) @ v).transpose(1, 2)


def _banded(
    query: Query, key: KeyValue, value: KeyValue, documents: Documents, window: int | None
) -> Query:
    width = documents.max_seqlen if window is None else min(window, documents.max_seqlen)
    return banded_attention(query, key, value, documents.segments, width)


def _flex(
    query: Query, key: KeyValue, value: KeyValue, documents: Documents, window: int | None
) -> Query:
    del window  # already in the block mask
    assert documents.block_mask is not None, "prepare_documents was not called"
    # Inside a compiled block it is compiled with the block.
    flex = flex_attention if torch.compiler.is_compiling() else _compiled_flex()
    out = flex(
        query.transpose(1, 2),
        key.transpose(1, 2),
        value.transpose(1, 2),
        block_mask=documents.block_mask,
        enable_gqa=True,
    )
    return out.transpose(1, 2)


@cache
def _compiled_flex() -> Callable[..., Tensor]:
    # Compiled on first use: the compiler alone takes seconds to import.
    return torch.compile(flex_attention, dynamic=False)


def _flash(
    query: Query, key: KeyValue, value: KeyValue, documents: Documents, window: int | None
) -> Query:
    if flash_attn_varlen_func is None:
        return torch_varlen(query, key, value, documents, window)
    q, k, v = (x.flatten(0, 1) for x in (query, key, value))  # (B * T, heads, E)
    window = _felt(window, documents)
    left = -1 if window is None else window - 1
    lengths, longest = documents.cu_seqlens, documents.max_seqlen
    out = flash_attn_varlen_func(
        *(q, k, v, lengths, lengths, longest, longest),
        causal=True,
        window_size=(left, 0),
        deterministic=torch.are_deterministic_algorithms_enabled(),
    )
    return out.view_as(query)


def torch_varlen(
    query: Query, key: KeyValue, value: KeyValue, documents: Documents, window: int | None
) -> Query:
    """`flash` by the kernels that come with PyTorch."""
    # Imported here, because the module imports torch's compiler, which takes a second.
    from model.backends.varlen import varlen_attention

    q, k, v = (x.flatten(0, 1) for x in (query, key, value))  # (B * T, heads, E)
    lengths, longest = documents.cu_seqlens, documents.max_seqlen
    return varlen_attention(q, k, v, lengths, longest, _felt(window, documents)).view_as(query)


def _flash4(
    query: Query, key: KeyValue, value: KeyValue, documents: Documents, window: int | None
) -> Query:
    lengths, longest = documents.cu_seqlens, documents.max_seqlen
    q, k, v = (x.flatten(0, 1) for x in (query, key, value))  # (B * T, heads, E)
    return flash4_attention(q, k, v, lengths, longest, _felt(window, documents)).view_as(query)


def _felt(window: int | None, documents: Documents) -> int | None:
    """None where the window hides nothing: the plain causal kernels are the faster ones."""
    return None if window is None or window >= documents.max_seqlen else window


BACKENDS: dict[str, Callable[..., Tensor]] = {
    "flash": _flash,
    "flash4": _flash4,
    "flex": _flex,
    "banded": _banded,
    "reference": _reference,
}
