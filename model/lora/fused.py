"""Several LoRA layers computed together, in fewer passes over memory than one by one.

The first factors of layers that share an input are one product, forward and backward. The frozen
product is added to the update inside the product, not in a further pass. In a feed-forward the
updates of gate and up are never stored (`kernels.lora_swiglu`), and the product of SwiGLU is not
kept for the backward pass. Speed on an H200: docs/results/performance.md. On CPUs, and with
dropout, which gives each adapter different inputs, layers are computed one by one (`LoraLinear`).
Dims: N tokens, I inputs, O outputs, F feed-forward, D model, R rank.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from kernels.launch import use_triton
from kernels.lora_swiglu import (
    MAX_RANK,
    lora_swiglu,
    lora_swiglu_backward,
    reference,
    reference_backward,
)
from model.lora.layer import LoraLinear

DEVICES = ("cuda",)
"""Device types on which linears are computed together."""


def fusible(x: Tensor, *linears: nn.Module) -> list[LoraLinear]:
    """The linear layers of one input that are computed together."""
    if x.device.type not in DEVICES:
        return []
    return [each for each in linears if type(each) is LoraLinear and each.seeds is None]


def fusible_feed_forward(x: Tensor, *linears: nn.Module) -> list[LoraLinear]:
    """Gate, up and down, if all of them are computed together; else none."""
    adapted = fusible(x, *linears)
    fit = all(each.lora_A.out_features <= MAX_RANK for each in adapted)
    return adapted if fit and len(adapted) == len(linears) else []


def project(x: Float[Tensor, "*any I"], *linears: nn.Linear) -> tuple[Tensor, ...]:
    """Output of each linear for x."""
    adapted = fusible(x, *linears)
    if not adapted:
        return tuple(linear(x) for linear in linears)
    *outputs, _low = _project(x.flatten(0, -2), *_factors(adapted), adapted[0].scale)
    found = iter(outputs)
    shape = x.shape[:-1]
    return tuple(
        next(found).view(*shape, linear.out_features) if linear in adapted else linear(x)
        for linear in linears
    )


def feed_forward(x: Float[Tensor, "*any D"], adapted: list[LoraLinear]) -> Float[Tensor, "*any D"]:
    """down(silu(gate(x)) * up(x)) of gate, up, down, as `fusible_feed_forward` returns them."""
    weights, a, b = _factors(adapted)
    inside = _swiglu(x.flatten(0, -2), weights[:2], a, b[:2], adapted[0].scale)
    product, low = inside[:2]
    return _update(product, weights[2], low, b[2]).view(x.shape)


def _factors(linears: Sequence[LoraLinear]) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
    """Weights, first factors and second factors of the layers."""
    return (
        [linear.weight for linear in linears],
        [linear.lora_A.weight for linear in linears],
        [linear.lora_B.weight for linear in linears],
    )


def _low_rank_input(x: Tensor, a: Sequence[Tensor], scale: float) -> Tensor:
    """s x [A1; A2; ...]^T, (N, the sum of all R)."""
    joined = a[0] if len(a) == 1 else torch.cat([*a])
    return (x @ joined.T).mul_(scale)


def _updated(x: Tensor, weight: Tensor, low: Tensor, b: Tensor) -> Tensor:
    """x W^T + low B^T, (N, O)."""
    return (low @ b.T).addmm_(x, weight.T)


def _grad_low_rank_input(grads: Sequence[Tensor], b: Sequence[Tensor], scale: float) -> Tensor:
    """s [g1 B1, g2 B2, ...], (N, the sum of all R)."""
    low = grads[0].new_empty(len(grads[0]), sum(x.shape[1] for x in b))
    parts = low.split([x.shape[1] for x in b], 1)
    for part, grad, factor in zip(parts, grads, b, strict=True):
        torch.mm(grad, factor, out=part)
    return low.mul_(scale)


def _grad_input(
    grad_low: Tensor, grads: Sequence[Tensor], weights: Sequence[Tensor], a: Sequence[Tensor]
) -> Tensor:
    """Gradient of the shared input, (N, I)."""
    total = grad_low @ (a[0] if len(a) == 1 else torch.cat([*a]))
    for grad, weight in zip(grads, weights, strict=True):
        total.addmm_(grad, weight)
    return total


def _split_copies(x: Tensor, like: Sequence[Tensor], dim: int) -> list[Tensor]:
    """Copies of the parts of x that belong to factors concatenated in it."""
    parts = x.split([factor.shape[dim] for factor in like], dim)
    return [part.clone(memory_format=torch.contiguous_format) for part in parts]


@torch.library.custom_op("model::project_adapted", mutates_args=())
def _project(
    x: Tensor, weights: list[Tensor], a: list[Tensor], b: list[Tensor], scale: float
) -> list[Tensor]:
    """The outputs of all layers, and last the product of x with their first factors."""
    low = _low_rank_input(x, a, scale)
    parts = low.split([factor.shape[0] for factor in a], 1)
    outputs = [_updated(x, w, part, f) for w, part, f in zip(weights, parts, b, strict=True)]
    return [*outputs, low]


@_project.register_fake
def _(x, weights, a, b, scale):  # noqa: ANN001, ANN202, ARG001
    outputs = [x.new_empty(len(x), len(weight)) for weight in weights]
    return [*outputs, x.new_empty(len(x), sum(len(factor) for factor in a))]


@torch.library.custom_op("model::project_adapted_backward", mutates_args=())
def _project_backward(
    grads: list[Tensor],
    x: Tensor,
    low: Tensor,
    weights: list[Tensor],
    a: list[Tensor],
    b: list[Tensor],
    scale: float,
    wanted: bool,
) -> list[Tensor]:
    """Gradients of all first factors, of all second factors, and, if wanted, of x."""
    grads = [grad.contiguous() for grad in grads]
    parts = low.split([factor.shape[0] for factor in a], 1)
    grad_b = [grad.T @ part for grad, part in zip(grads, parts, strict=True)]
    grad_low = _grad_low_rank_input(grads, b, scale)
    grad_a = _split_copies(grad_low.T @ x, a, 0)
    rest = [_grad_input(grad_low, grads, weights, a)] if wanted else []
    return [*grad_a, *grad_b, *rest]


def _gradients_like(grads, x, kept, weights, a, b, scale, wanted):  # noqa: ANN001, ANN202, ARG001
    return [torch.empty_like(t) for t in (*a, *b, *([x] if wanted else []))]


_project_backward.register_fake(_gradients_like)


def _keep_project(ctx, inputs, output) -> None:  # noqa: ANN001
    x, weights, a, b, ctx.scale = inputs
    ctx.count = len(weights)
    ctx.save_for_backward(x, output[-1], *weights, *a, *b)
    ctx.mark_non_differentiable(output[-1])


def _project_gradients(ctx, grads):  # noqa: ANN001, ANN202
    x, low, *factors = ctx.saved_tensors
    n = ctx.count
    weights, a, b = factors[:n], factors[n : 2 * n], factors[2 * n :]
    wanted = ctx.needs_input_grad[0]
    found = _project_backward(grads[:n], x, low, weights, a, b, ctx.scale, wanted)
    return found[2 * n] if wanted else None, [None] * n, found[:n], found[n : 2 * n], None


_project.register_autograd(_project_gradients, setup_context=_keep_project)


@torch.library.custom_op("model::swiglu_adapted", mutates_args=())
def _swiglu(
    x: Tensor, weights: list[Tensor], a: list[Tensor], b: list[Tensor], scale: float
) -> list[Tensor]:
    """SwiGLU of adapted gate and up.

    Returns its product (N, F), that product times the first factor of down (N, R), x times the
    frozen weights of gate and of up (N, F each), and x times the first factors of both (N, 2 R).
    """
    low = _low_rank_input(x, a[:2], scale)
    gate, up = x @ weights[0].T, x @ weights[1].T
    mix = lora_swiglu if use_triton(x) else reference
    product = mix(gate, up, low, b[0], b[1])
    return [product, _low_rank_input(product, a[2:], scale), gate, up, low]


@_swiglu.register_fake
def _(x, weights, a, b, scale):  # noqa: ANN001, ANN202, ARG001
    wide, rank = len(weights[0]), len(a[0])
    return [x.new_empty(len(x), width) for width in (wide, rank, wide, wide, 2 * rank)]


@torch.library.custom_op("model::swiglu_adapted_backward", mutates_args=())
def _swiglu_backward(
    grads: list[Tensor],
    x: Tensor,
    kept: list[Tensor],
    weights: list[Tensor],
    a: list[Tensor],
    b: list[Tensor],
    scale: float,
    wanted: bool,
) -> list[Tensor]:
    """Gradients of all first factors, of both second ones, and, if wanted, of x."""
    through, grad_low_down = grads[0].contiguous(), grads[1] * scale
    gate, up, low = kept
    back = lora_swiglu_backward if use_triton(x) else reference_backward
    found = back(through, grad_low_down, a[2], gate, up, low, b[0], b[1])
    both = (found.gate, found.up)
    grad_low = _grad_low_rank_input(both, b, scale)
    grad_a = [*_split_copies(grad_low.T @ x, a[:2], 0), found.a_down]
    grad_b = [found.b_gate.contiguous(), found.b_up.contiguous()]
    rest = [_grad_input(grad_low, both, weights, a[:2])] if wanted else []
    return [*grad_a, *grad_b, *rest]


_swiglu_backward.register_fake(_gradients_like)


def _keep_swiglu(ctx, inputs, output) -> None:  # noqa: ANN001
    x, weights, a, b, ctx.scale = inputs
    kept = output[2:]
    ctx.save_for_backward(x, *kept, *weights, *a, *b)
    ctx.mark_non_differentiable(*kept)
    ctx.set_materialize_grads(False)


def _swiglu_gradients(ctx, grads):  # noqa: ANN001, ANN202
    x, *rest = ctx.saved_tensors
    kept, weights, a, b = rest[:3], rest[3:5], rest[5:8], rest[8:]
    wanted = ctx.needs_input_grad[0]
    found = _swiglu_backward(grads[:2], x, kept, weights, a, b, ctx.scale, wanted)
    return found[5] if wanted else None, [None] * 2, found[:3], found[3:5], None


_swiglu.register_autograd(_swiglu_gradients, setup_context=_keep_swiglu)


@torch.library.custom_op("model::update_adapted", mutates_args=())
def _update(x: Tensor, weight: Tensor, low: Tensor, b: Tensor) -> Tensor:
    """x W^T + low B^T; x is not kept, and checkpointed blocks do not compute this again."""
    return _updated(x, weight, low, b)


@_update.register_fake
def _(x, weight, low, b):  # noqa: ANN001, ANN202, ARG001
    return x.new_empty(len(x), len(weight))


@torch.library.custom_op("model::update_adapted_backward", mutates_args=())
def _update_backward(
    grad: Tensor, weight: Tensor, low: Tensor, b: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of x, low and b."""
    grad = grad.contiguous()
    return grad @ weight, grad @ b, grad.T @ low


@_update_backward.register_fake
def _(grad, weight, low, b):  # noqa: ANN001, ANN202
    return grad.new_empty(len(grad), weight.shape[1]), torch.empty_like(low), torch.empty_like(b)


def _keep_update(ctx, inputs, output) -> None:  # noqa: ANN001, ARG001
    _x, *rest = inputs
    ctx.save_for_backward(*rest)


def _update_gradients(ctx, grad):  # noqa: ANN001, ANN202
    grad_x, grad_low, grad_b = _update_backward(grad, *ctx.saved_tensors)
    return grad_x, None, grad_low, grad_b


_update.register_autograd(_update_gradients, setup_context=_keep_update)
