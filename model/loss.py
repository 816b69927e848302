"""Cross-entropy of the output head without ever holding all logits.

Logits exist for one chunk of tokens at a time. The gradients of hidden states and head are
computed in the same pass, because for a sum they are known up to one scalar factor: a 64k
vocabulary then costs one chunk of memory and no recomputation.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

IGNORE = -100
CHUNK_LOGITS = 1 << 25
"""Logits held at a time: 128 MiB in fp32, in matrix products still large enough to be efficient."""


class Losses(NamedTuple):
    """Negative log-likelihoods in nats, in fp32 or better.

    Attributes:
        total: the sum over all supervised tokens; differentiable.
        rows: the sum over each row, for reports; carries no gradient.
    """

    total: Float[Tensor, ""]
    rows: Float[Tensor, " B"]


def linear_cross_entropy(
    hidden: Float[Tensor, "B T D"],
    weight: Float[Tensor, "V D"],
    labels: Int[Tensor, "B T"],
    num_tokens: int,
) -> Losses:
    """Summed cross-entropy of `hidden @ weight.T` against labels.

    Args:
        labels: the id each position should predict; -100 is not supervised.
        num_tokens: ids from here on are padding of the vocabulary and get no probability.
    """
    assert 0 < num_tokens <= weight.shape[0]
    if not torch.is_grad_enabled():  # a parameter asks for its gradient even then
        weight = weight.detach()
    total, tokens = _ChunkedCrossEntropy.apply(
        hidden.flatten(0, 1), weight, labels.flatten(), num_tokens
    )  # pyright: ignore[reportGeneralTypeIssues]
    return Losses(total, tokens.view_as(labels).sum(1))


class _ChunkedCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx, hidden, weight, labels, num_tokens):  # noqa: ANN001, ANN205
        head = weight[:num_tokens]
        want_hidden, want_weight, *_ = ctx.needs_input_grad
        exact = torch.promote_types(hidden.dtype, torch.float32)
        losses = hidden.new_zeros(len(labels), dtype=exact)
        grad_hidden = torch.zeros_like(hidden) if want_hidden else None
        grad_weight = weight.new_zeros(weight.shape, dtype=exact) if want_weight else None
        # Unsupervised positions cost nothing: they are not even multiplied with the head.
        supervised = (labels != IGNORE).nonzero().squeeze(1)
        for chunk in supervised.split(max(1, CHUNK_LOGITS // num_tokens)):
            x, y = hidden[chunk], labels[chunk]
            logits = (x @ head.T).to(exact)
            losses[chunk] = F.cross_entropy(logits, y, reduction="none")
            if not (want_hidden or want_weight):
                continue
            slope = logits.sub_(logits.logsumexp(1, keepdim=True)).exp_()  # softmax, in place
            slope[torch.arange(len(y), device=y.device), y] -= 1
            slope = slope.to(hidden.dtype)
            if grad_hidden is not None:
                grad_hidden[chunk] = slope @ head
            if grad_weight is not None:
                grad_weight[:num_tokens] += slope.T @ x
        ctx.save_for_backward(grad_hidden, grad_weight)
        ctx.weight_dtype = weight.dtype
        ctx.mark_non_differentiable(losses)
        return losses.sum(), losses

    @staticmethod
    def backward(ctx, *grads):  # noqa: ANN001, ANN002, ANN205
        grad_total, _ = grads
        grad_hidden, grad_weight = ctx.saved_tensors
        if grad_hidden is not None:
            # In fp32: a factor rounded to bfloat16 would be off by up to 0.4 % for every element.
            exact = grad_hidden.to(grad_total.dtype) * grad_total
            grad_hidden = exact.to(grad_hidden.dtype)
        if grad_weight is not None:
            scaled = torch.empty_like(grad_weight, dtype=ctx.weight_dtype)
            grad_weight = torch.mul(grad_weight, grad_total, out=scaled)  # no second fp32 copy
        return grad_hidden, grad_weight, None, None
