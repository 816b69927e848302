"""Cross-entropy of the output head with the gradient written over the logits, chunk by chunk.

The network's loss on CUDA. Its twin in torch for CPUs (`model.loss`) holds a chunk of logits in the
compute dtype, in fp32 and as a gradient; this kernel holds it once. On an H200, with 8,192 tokens
and 65,536 ids, it reaches 0.93 of the speed of torch.compile on all logits at once and 1.17 of
eager; it is kept because its memory does not grow with the tokens (docs/results/performance.md).
Liger Kernel also computes the gradient in place (Hsu et al. 2024, section 3.2).
"""

# pyright: reportInvalidTypeForm=false
# (tl.constexpr is an annotation that Triton reads)

import torch
import torch.nn.functional as F
from torch import Tensor

from kernels.launch import check_launch, jit, power_of_two, tl

CHUNK_LOGITS = 1 << 28
"""Logits held at a time: 512 MiB in bfloat16, 4,096 tokens of a 64k vocabulary."""
EVEN_ROWS = 128
MAX_BLOCK = 4096


def reference(
    logits: Tensor, labels: Tensor, num_tokens: int, ignore_index: int
) -> tuple[Tensor, Tensor]:
    """Losses (N,) and their gradient (N, V) by torch; the logits (N, V) are not changed.

    Args:
        labels: (N,) the id to predict; `ignore_index` has no loss and no gradient.
        num_tokens: columns from here on are padding: no probability, no gradient.
    """
    exact = torch.promote_types(logits.dtype, torch.float32)
    with torch.enable_grad():
        x = logits.detach().to(exact).requires_grad_()
        real = x[:, :num_tokens]
        losses = F.cross_entropy(real, labels, reduction="none", ignore_index=ignore_index)
        (gradient,) = torch.autograd.grad(losses.sum(), x)
    return losses.detach(), gradient.to(logits.dtype)


def softmax_gradient_(logits: Tensor, labels: Tensor, num_tokens: int, ignore_index: int) -> Tensor:
    """Losses (N,) in fp32; the logits (N, V) become the gradient of their sum, in place.

    Arguments are those of `reference`. A label outside the vocabulary makes its loss NaN.
    """
    rows, columns = logits.shape
    assert 0 < num_tokens <= columns
    assert labels.shape == (rows,)
    check_launch(logits, labels)
    losses = torch.empty(rows, dtype=torch.float32, device=logits.device)
    if rows:
        _softmax_gradient[(rows,)](
            logits,
            labels,
            losses,
            columns,
            num_tokens,
            ignore_index,
            BLOCK=min(MAX_BLOCK, power_of_two(columns)),
            num_warps=8,
        )
    return losses


@jit
def _softmax_gradient(
    logits, labels, losses, columns, num_tokens, ignore_index, BLOCK: tl.constexpr
):
    """One row per program, read twice and written once."""
    row = tl.program_id(0).to(tl.int64)  # rows * columns may pass 2^31
    logits += row * columns
    label = tl.load(labels + row)
    supervised = label != ignore_index
    offsets = tl.arange(0, BLOCK)
    valid = (label >= 0) & (label < num_tokens)
    own = tl.load(logits + label, mask=valid, other=float("nan")).to(tl.float32)

    # The denominator, with the sum rescaled whenever a larger logit turns up.
    highest = -float("inf")
    total = 0.0
    for start in range(0, num_tokens, BLOCK):
        at = start + offsets
        x = tl.load(logits + at, mask=at < num_tokens, other=-float("inf")).to(tl.float32)
        top = tl.maximum(highest, tl.max(x, 0))
        total = total * tl.exp(highest - top) + tl.sum(tl.exp(x - top), 0)
        highest = top
    log_total = tl.log(total)
    # Not (highest + log_total) - own, which would cancel where all logits are large.
    loss = (highest - own) + log_total
    tl.store(losses + row, tl.where(supervised, loss, 0.0))

    # No thread of the program may overwrite a logit that another thread has yet to read.
    tl.debug_barrier()
    for start in range(0, columns, BLOCK):
        at = start + offsets
        x = tl.load(logits + at, mask=at < num_tokens, other=-float("inf")).to(tl.float32)
        gradient = tl.exp((x - highest) - log_total) - tl.where(at == label, 1.0, 0.0)
        gradient = tl.where(supervised, gradient, 0.0)
        tl.store(logits + at, gradient, mask=at < columns)


def supervised_positions(labels: Tensor, ignore_index: int, count: int | None = None) -> Tensor:
    """Positions of the labels (N,) that are not `ignore_index`, in order.

    Args:
        count: number of these positions, if the host knows it; otherwise the host waits for the
            device to count them.
    """
    supervised = labels != ignore_index
    if count is None:
        return supervised.nonzero().squeeze(1)
    # Checked on the device, without waiting: a wrong count would omit labels or add index -1.
    torch._assert_async(supervised.sum() == count)
    return supervised.nonzero_static(size=count).squeeze(1)


def linear_cross_entropy(
    hidden: Tensor,
    weight: Tensor,
    labels: Tensor,
    num_tokens: int,
    ignore_index: int,
    supervised: int | None = None,
) -> tuple[Tensor, Tensor]:
    """Summed cross-entropy of `hidden @ weight.T`, and the losses of all tokens without gradient.

    Args:
        hidden: (N, D).
        weight: (V, D). All V rows are multiplied, so that a vocabulary padded to a good multiple
            stays one; the kernel masks the padding.
        labels, num_tokens, ignore_index: as in `reference`.
        supervised: `count` of `supervised_positions`.
    """
    if not torch.is_grad_enabled():  # a parameter requires its gradient even then
        weight = weight.detach()
    positions = supervised_positions(labels, ignore_index, supervised)
    return _LinearCrossEntropy.apply(hidden, weight, labels, positions, num_tokens, ignore_index)  # pyright: ignore[reportReturnType]


def _add_product(total: Tensor, a: Tensor, b: Tensor) -> None:
    """total += a b, summed in the dtype of the total without a product in that of the factors."""
    if a.dtype == total.dtype:
        total.addmm_(a, b)
    elif a.device.type == "cuda":
        torch.addmm(total, a, b, out_dtype=total.dtype, out=total)
    else:
        total += a @ b


def _chunk_rows(vocabulary: int) -> int:
    """Tokens of a chunk: an even multiple, or tensor cores are fed element by element."""
    rows = CHUNK_LOGITS // vocabulary
    return rows // EVEN_ROWS * EVEN_ROWS or rows


class _LinearCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx, hidden, weight, labels, positions, num_tokens, ignore_index):  # noqa: ANN205
        want_hidden, want_weight, *_ = ctx.needs_input_grad
        losses = torch.zeros(len(labels), dtype=torch.float32, device=hidden.device)
        grad_hidden = torch.zeros_like(hidden) if want_hidden else None
        grad_weight = torch.zeros_like(weight, dtype=torch.float32) if want_weight else None
        rows = max(1, min(len(positions), _chunk_rows(len(weight))))
        buffer = hidden.new_empty(rows, len(weight))
        for chunk in positions.split(rows):
            x = hidden[chunk]
            gradient = torch.mm(x, weight.T, out=buffer[: len(chunk)])  # logits at first
            losses[chunk] = softmax_gradient_(gradient, labels[chunk], num_tokens, ignore_index)
            if grad_hidden is not None:
                grad_hidden[chunk] = gradient @ weight
            if grad_weight is not None:
                _add_product(grad_weight, gradient.T, x)
        ctx.save_for_backward(grad_hidden, grad_weight)
        ctx.weight_dtype = weight.dtype
        ctx.mark_non_differentiable(losses)
        return losses.sum(), losses

    @staticmethod
    def backward(ctx, *grads):  # noqa: ANN002, ANN205
        grad_total, _ = grads
        grad_hidden, grad_weight = ctx.saved_tensors
        if grad_hidden is not None:
            grad_hidden = (grad_hidden.float() * grad_total).to(grad_hidden.dtype)
        if grad_weight is not None:
            scaled = torch.empty_like(grad_weight, dtype=ctx.weight_dtype)
            grad_weight = torch.mul(grad_weight, grad_total, out=scaled)
        return grad_hidden, grad_weight, None, None, None, None
