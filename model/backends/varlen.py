"""The varlen kernel that comes with PyTorch.

A separate module, because `torch.nn.attention.varlen` imports torch's compiler and DTensor, which
takes more than a second and only the `flash` backend without flash-attn needs.
"""

import inspect
from collections.abc import Callable
from functools import partial

from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.attention import varlen

# torch 2.11 has no such argument and documents no grouped heads.
HAS_GQA = "enable_gqa" in inspect.signature(varlen.varlen_attn).parameters
_attend: Callable[..., Tensor] = (
    partial(varlen.varlen_attn, enable_gqa=True) if HAS_GQA else varlen.varlen_attn
)  # pyright: ignore[reportAssignmentType]


def varlen_attention(
    query: Float[Tensor, "T H E"],
    key: Float[Tensor, "T K E"],
    value: Float[Tensor, "T K E"],
    cu_seqlens: Int[Tensor, " N"],
    longest: int,
    window: int | None,
) -> Float[Tensor, "T H E"]:
    """Causal attention inside documents that are concatenated.

    Args:
        cu_seqlens: first token of each document, and the number of tokens.
        longest: tokens of the longest document.
        window: number of keys that a query sees, including its own; None: all of its document.
    """
    if not HAS_GQA:
        groups = query.shape[1] // key.shape[1]
        key, value = (x.repeat_interleave(groups, 1) for x in (key, value))
    left = -1 if window is None else window - 1
    lengths = (cu_seqlens, cu_seqlens, longest, longest)
    return _attend(query, key, value, *lengths, window_size=(left, 0))
