"""Root mean square normalization (Zhang and Sennrich 2019), with a backward pass for eager CPUs."""

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

TILE = 1 << 17
"""Elements that one thread works on at a time."""


def worth_tiling(x: Tensor) -> bool:
    """Decide if an operation runs in pieces with a manual backward pass: on an eager CPU, unless it
    generates token by token.

    Compilers fuse torch's own, and on a GPU nothing of it has been measured.
    """
    if x.device.type != "cpu" or torch.compiler.is_compiling():
        return False
    return torch.is_grad_enabled() or x.numel() > TILE


def tile_rows(width: int) -> int:
    """Rows of that many elements in one piece, over all threads."""
    return max(1, TILE * torch.get_num_threads() // width)


def tiles(*tensors: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """Pieces (N, D) of the same rows of tensors that differ in the last dim at most.

    What is written to a piece is written to its tensor, which therefore has to be contiguous; the
    others are copied where they are not.
    """
    rows = tile_rows(tensors[0].shape[-1])
    pieces = (x.reshape(-1, x.shape[-1]).split(rows) for x in tensors)
    return zip(*pieces, strict=True)


class RMSNorm(nn.Module):
    """x / rms(x) * weight, with the mean taken in fp32."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, x: Float[Tensor, "*any D"]) -> Float[Tensor, "*any D"]:
        if worth_tiling(x):
            return _RMSNorm.apply(x, self.weight, self.eps)  # pyright: ignore[reportReturnType]
        return F.rms_norm(x, self.weight.shape, self.weight, self.eps)


class _RMSNorm(torch.autograd.Function):
    """torch's own, step by step in pieces: it and autograd pass over memory two dozen times."""

    @staticmethod
    def forward(ctx, x, weight, eps):  # noqa: ANN001, ANN205
        ctx.save_for_backward(x, weight)
        ctx.eps = eps
        scale = weight.to(_exact(x))
        out = x.new_empty(x.shape)
        for part, normed in tiles(x, out):
            y = part.to(scale.dtype)
            normed.copy_((y * _inverse_rms(y, eps)).mul_(scale))
        return out

    @staticmethod
    def backward(ctx, *grads):  # noqa: ANN001, ANN002, ANN205
        """With r = 1 / rms(x) and g = grad * weight: r * (g - x * r^2 * mean(g * x))."""
        x, weight = ctx.saved_tensors
        scale = weight.to(_exact(x))
        grad_x = x.new_empty(x.shape)
        grad_weight = torch.zeros_like(scale) if ctx.needs_input_grad[1] else None
        for part, grad, out in tiles(x, grads[0], grad_x):
            y, g = part.to(scale.dtype), grad.to(scale.dtype)  # (N, D)
            inverse = _inverse_rms(y, ctx.eps)  # (N, 1)
            products = g * y
            shift = torch.mv(products, scale)[:, None].mul_(inverse.square()).div_(len(scale))
            if grad_weight is not None:
                grad_weight += torch.mv(products.T, inverse[:, 0])
            torch.mul(g, scale, out=products).addcmul_(y, shift, value=-1)
            out.copy_(products.mul_(inverse))
        return grad_x, None if grad_weight is None else grad_weight.to(weight.dtype), None


def _exact(x: Tensor) -> torch.dtype:
    return torch.promote_types(x.dtype, torch.float32)


def _inverse_rms(x: Tensor, eps: float) -> Tensor:
    return x.square().mean(-1, keepdim=True).add_(eps).rsqrt_()
