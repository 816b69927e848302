"""Cross-entropy of the output head without ever holding all logits.

Logits exist for one chunk of tokens at a time. The gradients of hidden states and head are
computed in the same pass, because for a sum they are known up to one scalar factor: a 64k
vocabulary then costs one chunk of memory and no recomputation.
"""

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from kernels import cross_entropy
from kernels.cross_entropy import supervised_positions
from kernels.launch import use_triton
from model.labels import IGNORE_INDEX
from model.norm import tile_rows

CHUNK_LOGITS = 1 << 26
"""Logits held at a time: 128 MiB in 16 bits, in matrix products large enough to be efficient; with
half of it a CPU multiplies bfloat16 gradients and a head of 32,000 rows at half the speed."""
HEAD_ROWS = 4096
"""Rows of the head that are multiplied, or whose gradient is added up, at a time: a CPU then has
them in its cache as its instructions want them, and adding up takes no second one of its size."""


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
    supervised: int | None = None,
) -> Losses:
    """Summed cross-entropy of `hidden @ weight.T` against labels; on CUDA by the Triton kernel.

    Args:
        labels: the id that each position should predict; `IGNORE_INDEX` is not supervised.
        num_tokens: ids from here on are padding of the vocabulary and get no probability.
        supervised: number of supervised labels, if the host knows it; otherwise the host waits for
            the device to count them.
    """
    assert 0 < num_tokens <= weight.shape[0]
    if not torch.is_grad_enabled():  # a parameter requires its gradient even then
        weight = weight.detach()
    x, y = hidden.flatten(0, 1), labels.flatten()
    if use_triton(hidden):
        total, tokens = cross_entropy.linear_cross_entropy(
            x, weight, y, num_tokens, IGNORE_INDEX, supervised
        )
    else:
        positions = supervised_positions(y, IGNORE_INDEX, supervised)
        total, tokens = _ChunkedCrossEntropy.apply(x, weight, y, positions, num_tokens)  # pyright: ignore[reportGeneralTypeIssues]
    return Losses(total, tokens.view_as(labels).sum(1))


class _ChunkedCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx, hidden, weight, labels, positions, num_tokens):  # noqa: ANN001, ANN205
        head = weight[:num_tokens]
        want_hidden, want_weight, *_ = ctx.needs_input_grad
        exact = torch.promote_types(hidden.dtype, torch.float32)
        losses = hidden.new_zeros(len(labels), dtype=exact)
        grad_hidden = torch.zeros_like(hidden) if want_hidden else None
        # Column by column, (D, V): the product then turns round the few hidden states and not the
        # many logits, which for 16-bit matrices takes a CPU half the time.
        columns = weight.new_zeros(weight.shape[::-1], dtype=exact) if want_weight else None
        # Unsupervised positions cost nothing: they are not even multiplied with the head.
        size = max(1, min(len(positions), CHUNK_LOGITS // num_tokens))
        logits = hidden.new_empty(size, num_tokens)  # one for all chunks: new pages cost a CPU time
        for chunk in positions.split(size):
            x, y = hidden[chunk], labels[chunk]
            grads = logits[: len(y)]  # logits first, then replaced by their gradients
            for rows, out in zip(head.split(HEAD_ROWS), grads.split(HEAD_ROWS, 1), strict=True):
                torch.mm(x, rows.T, out=out)
            losses[chunk] = _losses(grads, y, exact, replace=want_hidden or want_weight)
            if grad_hidden is not None:
                grad_hidden[chunk] = grads @ head
            if columns is not None:
                turned = x.T.contiguous()  # (D, N)
                parts = columns[:, :num_tokens].split(HEAD_ROWS, 1)
                for part, grad in zip(parts, grads.split(HEAD_ROWS, 1), strict=True):
                    part += (turned @ grad).to(exact)  # adding two dtypes is slower than this
        ctx.save_for_backward(grad_hidden, columns)
        ctx.weight_dtype = weight.dtype
        ctx.mark_non_differentiable(losses)
        return losses.sum(), losses

    @staticmethod
    def backward(ctx, *grads):  # noqa: ANN001, ANN002, ANN205
        grad_total, _ = grads
        grad_hidden, columns = ctx.saved_tensors
        grad_weight = None
        if grad_hidden is not None:
            grad_hidden = _scaled(grad_hidden, grad_total, grad_hidden.dtype)
        if columns is not None:
            grad_weight = _scaled(columns.T, grad_total, ctx.weight_dtype)
        return grad_hidden, grad_weight, None, None, None


def _scaled(gradient: Tensor, factor: Tensor, dtype: torch.dtype) -> Tensor:
    """A gradient times a factor in fp32, which in bfloat16 could be off by 0.4 % for every element.

    A few rows at a time: torch first writes a product of two dtypes to a separate tensor.
    """
    out = gradient.new_empty(gradient.shape, dtype=dtype)
    for part, scaled in zip(gradient.split(HEAD_ROWS), out.split(HEAD_ROWS), strict=True):
        # Columns are turned round first: several threads do that, one the copy between two dtypes.
        scaled.copy_(part.to(factor.dtype).contiguous() * factor)
    return out


def _losses(logits: Tensor, labels: Tensor, exact: torch.dtype, *, replace: bool) -> Tensor:
    """Cross-entropy of each token, (N,), in the exact dtype.

    Args:
        logits: (N, V); they are lost.
        replace: put each loss's gradient, softmax minus one-hot, in their place.
    """
    size = len(labels)
    if logits.device.type == "cpu":
        size = tile_rows(logits.shape[1])
    losses = []
    for tile, label in zip(*(x.split(size) for x in (logits, labels)), strict=True):
        index = label[:, None]
        values = tile.to(exact)  # the tile itself, if it is exact
        own = values.gather(1, index)
        largest = values.amax(1, keepdim=True)
        # In steps: torch's log_softmax would take each exponential twice, once for the gradient.
        total = values.sub_(largest).exp_().sum(1, keepdim=True)
        loss = total.log() - (own - largest)
        losses.append(loss.squeeze(1))
        if replace:
            values.mul_(total.reciprocal_()).scatter_(1, index, torch.expm1(-loss))
            if values is not tile:
                tile.copy_(values)
    return torch.cat(losses)
