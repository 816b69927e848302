"""Cross-entropy of the output head with the gradient written over the logits, chunk by chunk.

The network's loss on CUDA; `model.loss` has its twin in torch for CPUs, where a chunk of logits
exists in the compute dtype, in fp32 and again as a gradient; here once. On an H200, with 8,192
tokens and 65,536 ids, at 0.93 of the speed of torch.compile on all logits at once and 1.17 of
eager; it is kept because its memory does not grow with the tokens (docs/results/performance.md).
The idea of computing the gradient in place is that of Liger Kernel (Hsu et al. 2024, section 3.2);
z-loss is PaLM's (Chowdhery et al. 2022, section 5).
"""

# pyright: reportInvalidTypeForm=false
# (tl.constexpr is an annotation that Triton reads)

import torch
import torch.nn.functional as F
from torch import Tensor

from kernels.launch import check_launch, jit, power_of_two, tl

IGNORE = -100
CHUNK_LOGITS = 1 << 28
"""Logits held at a time: 512 MiB in bfloat16, 4,096 tokens of a 64k vocabulary."""
EVEN_ROWS = 128
MAX_BLOCK = 4096


def reference(
    logits: Tensor, labels: Tensor, num_tokens: int, z_loss: float = 0.0
) -> tuple[Tensor, Tensor]:
    """Losses (N,) and their gradient (N, V) by torch; the logits (N, V) are left as they are.

    Args:
        labels: (N,) the id to predict; -100 has no loss and no gradient.
        num_tokens: columns from here on are padding: no probability, no gradient.
        z_loss: weight of the squared logarithm of the softmax denominator.
    """
    exact = torch.promote_types(logits.dtype, torch.float32)
    with torch.enable_grad():
        x = logits.detach().to(exact).requires_grad_()
        real = x[:, :num_tokens]
        losses = F.cross_entropy(real, labels, reduction="none", ignore_index=IGNORE)
        losses = losses + z_loss * real.logsumexp(1).square() * (labels != IGNORE)
        (gradient,) = torch.autograd.grad(losses.sum(), x)
    return losses.detach(), gradient.to(logits.dtype)


def softmax_gradient_(
    logits: Tensor, labels: Tensor, num_tokens: int, z_loss: float = 0.0
) -> Tensor:
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
            z_loss,
            BLOCK=min(MAX_BLOCK, power_of_two(columns)),
            num_warps=8,
        )
    return losses


@jit
def _softmax_gradient(logits, labels, losses, columns, num_tokens, z_loss, BLOCK: tl.constexpr):
    """One row per program, read twice and written once."""
    row = tl.program_id(0).to(tl.int64)  # rows * columns may pass 2^31
    logits += row * columns
    label = tl.load(labels + row)
    supervised = label != -100
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
    log_denominator = highest + log_total
    # Not log_denominator - own, which would cancel where all logits are large.
    loss = (highest - own) + log_total + z_loss * log_denominator * log_denominator
    tl.store(losses + row, tl.where(supervised, loss, 0.0))

    # Threads of a program run apart: none may overwrite a logit that another has yet to read.
    tl.debug_barrier()
    scale = 1.0 + 2.0 * z_loss * log_denominator
    for start in range(0, columns, BLOCK):
        at = start + offsets
        x = tl.load(logits + at, mask=at < num_tokens, other=-float("inf")).to(tl.float32)
        slope = tl.exp((x - highest) - log_total) * scale - tl.where(at == label, 1.0, 0.0)
        slope = tl.where(supervised, slope, 0.0)
        tl.store(logits + at, slope, mask=at < columns)


def supervised_positions(labels: Tensor, count: int | None = None) -> Tensor:
    """Where the labels (N,) are not -100, in order.

    Args:
        count: how many these are, if the host knows; otherwise it waits for the device to say so.
    """
    supervised = labels != IGNORE
    if count is None:
        return supervised.nonzero().squeeze(1)
    # On the device, for which nobody waits: a wrong count would leave out labels, or take in -1.
    torch._assert_async(supervised.sum() == count)
    return supervised.nonzero_static(size=count).squeeze(1)


def linear_cross_entropy(
    hidden: Tensor,
    weight: Tensor,
    labels: Tensor,
    num_tokens: int,
    z_loss: float = 0.0,
    supervised: int | None = None,
) -> tuple[Tensor, Tensor]:
    """Summed cross-entropy of `hidden @ weight.T`, and the losses of all tokens without gradient.

    Args:
        hidden: (N, D).
        weight: (V, D). All V rows are multiplied, so that a vocabulary padded to a good multiple
            stays one; the kernel masks the padding.
        labels, num_tokens, z_loss: those of `reference`.
        supervised: `supervised_positions`' count.
    """
    if not torch.is_grad_enabled():  # a parameter asks for its gradient even then
        weight = weight.detach()
    positions = supervised_positions(labels, supervised)
    return _LinearCrossEntropy.apply(hidden, weight, labels, positions, num_tokens, z_loss)  # pyright: ignore[reportReturnType]


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
    def forward(ctx, hidden, weight, labels, positions, num_tokens, z_loss):  # noqa: ANN205
        want_hidden, want_weight, *_ = ctx.needs_input_grad
        losses = torch.zeros(len(labels), dtype=torch.float32, device=hidden.device)
        grad_hidden = torch.zeros_like(hidden) if want_hidden else None
        grad_weight = torch.zeros_like(weight, dtype=torch.float32) if want_weight else None
        rows = max(1, min(len(positions), _chunk_rows(len(weight))))
        buffer = hidden.new_empty(rows, len(weight))
        for chunk in positions.split(rows):
            x = hidden[chunk]
            slope = torch.mm(x, weight.T, out=buffer[: len(chunk)])
            losses[chunk] = softmax_gradient_(slope, labels[chunk], num_tokens, z_loss)
            if grad_hidden is not None:
                grad_hidden[chunk] = slope @ weight
            if grad_weight is not None:
                _add_product(grad_weight, slope.T, x)
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
