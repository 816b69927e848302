"""flash-attn-4's kernels for Hopper and Blackwell as operators for autograd and torch.compile.

The package (`flash_attn.cute`, a beta) has no such operators; its two entry points below are those
of the version that pyproject's extra `flash4` pins.
"""

import os
import warnings
from functools import cache
from importlib.util import find_spec

import torch
from jaxtyping import Float, Int
from torch import Tensor

CAPABILITIES = (9, 10, 11)
"""Hopper, and Blackwell's data-center devices."""
HOPPER = 9
MEASURED_WIDTHS = (64, 128)
"""Head widths that it is chosen for where nobody asks for it: 128 was measured, on Hopper alone."""


@cache
def runs_flash4(device: torch.device) -> bool:
    """True if the package is installed and has kernels for the device; called once, at start-up."""
    try:
        installed = find_spec("flash_attn.cute") is not None
    except ModuleNotFoundError:  # no flash_attn at all
        installed = False
    if not installed or device.type != "cuda":
        return False
    return torch.cuda.get_device_capability(device)[0] in CAPABILITIES


def prefers_flash4(device: torch.device, head_dim: int) -> bool:
    """True if the backend `auto` selects flash-attn-4."""
    if not runs_flash4(device) or not MEASURED_WIDTHS[0] <= head_dim <= MEASURED_WIDTHS[1]:
        return False
    return torch.cuda.get_device_capability(device)[0] == HOPPER


def flash4_attention(
    query: Float[Tensor, "T H E"],
    key: Float[Tensor, "T K E"],
    value: Float[Tensor, "T K E"],
    cu_seqlens: Int[Tensor, " N"],
    longest: int,
    window: int | None,
) -> Float[Tensor, "T H E"]:
    """Causal attention inside documents that lie end to end.

    Args:
        cu_seqlens: where documents begin, and the end.
        longest: tokens of the longest.
        window: keys that a query sees, its own included; None: all of its document.
    """
    return _flash4(query, key, value, cu_seqlens, longest, 0 if window is None else window)[0]


def _sides(window: int) -> dict[str, int | None]:
    """Their window: keys to the left, without the query's own; none at all means causal."""
    if window == 0:
        return {"window_size_left": None, "window_size_right": None}
    return {"window_size_left": window - 1, "window_size_right": 0}


def _lengths(cu_seqlens: Tensor, longest: int) -> dict[str, Tensor | int]:
    cumulative = {"cu_seqlens_q": cu_seqlens, "cu_seqlens_k": cu_seqlens}
    return {**cumulative, "max_seqlen_q": longest, "max_seqlen_k": longest}


@torch.library.custom_op("model::flash4", mutates_args=())
def _flash4(
    query: Tensor, key: Tensor, value: Tensor, cu_seqlens: Tensor, longest: int, window: int
) -> tuple[Tensor, Tensor]:
    """Output, and the logarithm of the softmax's denominator (H, T)."""
    forward = _package()._flash_attn_fwd
    options = {**_lengths(cu_seqlens, longest), **_sides(window), "causal": True}
    out, log_sums, *_ = forward(query, key, value, **options, return_lse=True)
    return out, log_sums


@_flash4.register_fake
def _(query, key, value, cu_seqlens, longest, window):  # noqa: ANN001, ANN202, ARG001
    log_sums = query.new_empty(query.shape[1], query.shape[0], dtype=torch.float32)
    return torch.empty_like(query), log_sums


@torch.library.custom_op("model::flash4_backward", mutates_args=())
def _flash4_backward(
    grad: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    out: Tensor,
    log_sums: Tensor,
    cu_seqlens: Tensor,
    longest: int,
    window: int,
) -> tuple[Tensor, Tensor, Tensor]:
    backward = _package()._flash_attn_bwd
    options = {**_lengths(cu_seqlens, longest), **_sides(window)}
    options["deterministic"] = torch.are_deterministic_algorithms_enabled()
    tensors = (query, key, value, out, grad.contiguous(), log_sums)
    return tuple(backward(*tensors, None, True, 0.0, **options))


@_flash4_backward.register_fake
def _(grad, query, key, value, *rest):  # noqa: ANN001, ANN002, ANN202, ARG001
    return torch.empty_like(query), torch.empty_like(key), torch.empty_like(value)


def _keep(ctx, inputs, output) -> None:  # noqa: ANN001
    query, key, value, cu_seqlens, ctx.longest, ctx.window = inputs
    ctx.save_for_backward(query, key, value, *output, cu_seqlens)


def _backward(ctx, grad, _grad_log_sums):  # noqa: ANN001, ANN202
    query, key, value, out, log_sums, cu_seqlens = ctx.saved_tensors
    tensors = (grad, query, key, value, out, log_sums, cu_seqlens)
    return *_flash4_backward(*tensors, ctx.longest, ctx.window), None, None, None


_flash4.register_autograd(_backward, setup_context=_keep)


@cache
def _package():  # noqa: ANN202
    # It compiles for each kind of call once; from then on other processes find that on the disk.
    os.environ.setdefault("FLASH_ATTENTION_CUTE_DSL_CACHE_ENABLED", "1")
    # The package warns at every call that it compiles; a user cannot change the cause.
    warnings.filterwarnings("ignore", "Argument aux_data")
    from flash_attn.cute import interface  # pyright: ignore[reportMissingImports]

    return interface
