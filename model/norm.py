"""Root mean square normalization (Zhang and Sennrich 2019), with a backward pass for eager CPUs."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from model.tiles import tiles, worth_tiling


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
    """torch's own, differentiated by hand: on a CPU autograd passes a dozen times over memory."""

    @staticmethod
    def forward(ctx, x, weight, eps):  # noqa: ANN001, ANN205
        ctx.save_for_backward(x, weight)
        ctx.eps = eps
        return F.rms_norm(x, weight.shape, weight, eps)

    @staticmethod
    def backward(ctx, *grads):  # noqa: ANN001, ANN002, ANN205
        """With r = 1 / rms(x) and g = grad * weight: r * g - x * r^3 * mean(g * x)."""
        x, weight = ctx.saved_tensors
        exact = torch.promote_types(x.dtype, torch.float32)
        scale = weight.to(exact)
        grad_x = x.new_empty(x.shape)
        grad_weight = torch.zeros_like(scale) if ctx.needs_input_grad[1] else None
        for part, grad, out in tiles(x, grads[0], grad_x):
            y, g = part.to(exact), grad.to(exact)  # (N, D)
            inverse = y.square().mean(-1).add_(ctx.eps).rsqrt_()  # (N,)
            products = g * y
            slope = (products @ scale).mul_(inverse.pow(3)).div_(len(scale))
            if grad_weight is not None:
                grad_weight += products.mul_(inverse[:, None]).sum(0)
            torch.mul(g, scale, out=products).mul_(inverse[:, None])
            out.copy_(products.addcmul_(y, slope[:, None], value=-1))
        return grad_x, None if grad_weight is None else grad_weight.to(weight.dtype), None
