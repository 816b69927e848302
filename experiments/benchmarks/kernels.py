"""Each Triton kernel compared with its torch reference, as it is and compiled, and Liger's.

On a CPU the kernels run in Triton's interpreter, which says nothing of speed; TRITON_INTERPRET=1 is
set by who starts the process.
"""

import statistics
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from experiments.benchmarks.harness.common import copy_rate, dtype_names, need, timed
from experiments.benchmarks.harness.workloads import Kernel
from model.device import DTYPES, choose_device
from model.labels import IGNORE_INDEX
from model.rotary import rotary_angles
from training.run.metrics import measure_peak_flops

Op = Callable[..., Any]


@dataclass(frozen=True)
class Case:
    """An operation with its inputs.

    Attributes:
        reference: in torch.
        inputs: all of them differentiable.
        nbytes: that forward and backward must move at least.
        flops: of its matrix products, if it has any.
    """

    ours: Op
    reference: Op
    liger: Op
    inputs: list[Tensor]
    nbytes: int
    flops: int = 0


def measure(work: Kernel, side: str) -> dict:
    """GB/s or TFLOP/s of one side, the memory it adds, and its error against fp64."""
    if side == "ours":
        need("triton")
    if side == "liger":
        need("liger_kernel")
    device, dtype = choose_device(work.device, 0), DTYPES[work.dtype]
    case = {
        "add_rms_norm": _add_rms_norm,
        "rope": _rope,
        "swiglu": _swiglu,
        "lora_swiglu": _lora_swiglu,
        "linear_cross_entropy": _linear_cross_entropy,
    }[work.operation](work, dtype, device)
    compiled = torch.compile(case.reference) if side == "compile" else case.reference
    op = {"ours": case.ours, "liger": case.liger}.get(side, compiled)
    run(op, case.inputs)  # what is compiled, is compiled here
    before = _allocated(device)
    seconds = statistics.median(timed(lambda: run(op, case.inputs), work.times, device))
    added = torch.cuda.max_memory_allocated() - before if device.type == "cuda" else 0
    if case.flops:
        rate, unit = measure_peak_flops(device, dtype), "tflops"
        figures, scale, machine = {unit: case.flops / seconds / 1e12}, 1e12, "matrix_tflops"
    else:
        rate, unit = copy_rate(device, work.bandwidth_bytes), "gb_per_second"
        figures, scale, machine = {unit: case.nbytes / seconds / 1e9}, 1e9, "copy_gb_per_second"
    if device.type == "cuda":
        figures["added_gib"] = added / 2**30
    figures["error"] = _error(op, case)
    return {
        "figures": figures,
        "ceilings": {unit: rate / scale},
        "machine": {machine: rate / scale},
        "precision": {"inputs": dtype_names(case.inputs)},
    }


def run(op: Op, inputs: list[Tensor]) -> tuple[Tensor, ...]:
    """Outputs and gradients of one forward and backward pass."""
    outputs = op(*inputs)
    outputs = outputs if isinstance(outputs, tuple) else (outputs,)
    ones = [torch.ones_like(x) for x in outputs]
    gradients = torch.autograd.grad(outputs, inputs, ones)
    return (*(x.detach() for x in outputs), *gradients)


def _error(op: Op, case: Case) -> float:
    """Largest difference from the fp64 reference, each tensor relative to its largest value."""
    exact = run(case.reference, [x.detach().double().requires_grad_() for x in case.inputs])
    found = run(op, case.inputs)
    pairs = zip(found, exact, strict=True)
    return max(float((x.double() - y).abs().max() / y.abs().max()) for x, y in pairs)


def _allocated(device: torch.device) -> int:
    if device.type != "cuda":
        return 0
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    return torch.cuda.memory_allocated()


def _drawn(*shape: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    return torch.randn(shape, dtype=dtype, device=device, requires_grad=True)


def _add_rms_norm(work: Kernel, dtype: torch.dtype, device: torch.device) -> Case:
    from kernels import add_rms_norm as k

    options = {"dtype": dtype, "device": device}
    x, residual = (_drawn(work.tokens, work.width, **options) for _ in range(2))

    def liger(x: Tensor, residual: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
        from liger_kernel.transformers.functional import (  # pyright: ignore[reportMissingImports]
            liger_fused_add_rms_norm,
        )

        return liger_fused_add_rms_norm(x, residual, weight, 1e-5, in_place=False)

    return Case(
        lambda x, y, w: k.add_rms_norm(x, y, w, 1e-5),
        lambda x, y, w: k.reference(x, y, w, 1e-5),
        liger,
        [x, residual, _drawn(work.width, **options)],
        # Two read and two written; then two gradients and the sum read, one written twice over.
        nbytes=9 * x.nbytes,
    )


def _rope(work: Kernel, dtype: torch.dtype, device: torch.device) -> Case:
    from kernels import rope as k

    size = work.width // work.heads
    rotary = rotary_angles(torch.arange(work.tokens, device=device)[None], size, 1e4)
    options = {"dtype": dtype, "device": device}
    inputs = [_drawn(1, work.tokens, n, size, **options) for n in (work.heads, work.key_heads)]

    def liger(query: Tensor, key: Tensor) -> tuple[Tensor, Tensor]:
        from liger_kernel.transformers.functional import (  # pyright: ignore[reportMissingImports]
            liger_rope,
        )

        # The second halves: Liger has no sign turned round in the first.
        halves = (x[:, :, 0, size // 2 :] for x in rotary)
        cos, sin = (half.repeat(1, 1, 2).to(query.dtype) for half in halves)
        # Liger rotates in place, which a leaf does not allow.
        q, k = liger_rope(query.transpose(1, 2) * 1, key.transpose(1, 2) * 1, cos, sin)
        return q.transpose(1, 2), k.transpose(1, 2)

    return Case(
        lambda q, k_: k.rope(q, k_, *rotary),
        lambda q, k_: k.reference(q, k_, *rotary),
        liger,
        inputs,
        nbytes=4 * sum(x.nbytes for x in inputs),
    )


def _swiglu(work: Kernel, dtype: torch.dtype, device: torch.device) -> Case:
    from kernels import swiglu as k

    options = {"dtype": dtype, "device": device}
    gate, up = (_drawn(work.tokens, work.feed_forward, **options) for _ in range(2))

    def liger(gate: Tensor, up: Tensor) -> Tensor:
        from liger_kernel.transformers.functional import (  # pyright: ignore[reportMissingImports]
            liger_swiglu,
        )

        return liger_swiglu(gate, up)

    # Two read and one written; then three read and two written.
    return Case(k.swiglu, k.reference, liger, [gate, up], nbytes=8 * gate.nbytes)


class _LoraSwiGLU(torch.autograd.Function):
    """The kernels as `model.lora.fused` calls them, with the narrow products around."""

    @staticmethod
    def forward(ctx, gate, up, low, b_gate, b_up, a_down):  # noqa: ANN001, ANN205
        from kernels.lora_swiglu import lora_swiglu

        ctx.save_for_backward(gate, up, low, b_gate, b_up, a_down)
        product = lora_swiglu(gate, up, low, b_gate, b_up)
        return product, product @ a_down.T

    @staticmethod
    def backward(ctx, *grads):  # noqa: ANN001, ANN002, ANN205
        from kernels.lora_swiglu import lora_swiglu_backward

        gate, up, low, b_gate, b_up, a_down = ctx.saved_tensors
        through, low_down = grads
        slopes = lora_swiglu_backward(
            *(through.contiguous(), low_down.contiguous(), a_down, gate, up, low, b_gate, b_up)
        )
        grad_low = torch.cat([slopes.gate @ b_gate, slopes.up @ b_up], 1)
        return slopes.gate, slopes.up, grad_low, slopes.b_gate, slopes.b_up, slopes.a_down


def _lora_swiglu(work: Kernel, dtype: torch.dtype, device: torch.device) -> Case:
    """SwiGLU of updated projections, and the first factor of the one that follows."""
    from kernels import lora_swiglu as k

    def plain(*inputs: Tensor) -> tuple[Tensor, Tensor]:
        *updated, a_down = inputs
        product = k.reference(*updated)
        return product, product @ a_down.T

    options = {"dtype": dtype, "device": device}
    wide, rank = work.feed_forward, work.rank
    shapes = [(work.tokens, wide)] * 2 + [(work.tokens, 2 * rank)] + [(wide, rank)] * 2
    inputs = [_drawn(*shape, **options) for shape in (*shapes, (rank, wide))]
    # As of SwiGLU: what is narrow hardly counts. Liger has nothing like it.
    return Case(_LoraSwiGLU.apply, plain, plain, inputs, nbytes=8 * inputs[0].nbytes)  # pyright: ignore[reportArgumentType]


def _linear_cross_entropy(work: Kernel, dtype: torch.dtype, device: torch.device) -> Case:
    from kernels import cross_entropy as k

    labels = torch.randint(work.ids, (work.tokens,), device=device)
    options = {"dtype": dtype, "device": device}
    inputs = [_drawn(n, work.width, **options) for n in (work.tokens, work.ids)]
    with torch.no_grad():
        for x in inputs:
            x.mul_(work.width**-0.25)  # logits of about 1

    def plain(hidden: Tensor, weight: Tensor) -> Tensor:
        logits = hidden @ weight.T
        exact = torch.promote_types(logits.dtype, torch.float32)
        return torch.nn.functional.cross_entropy(logits.to(exact), labels, reduction="sum")

    def liger(hidden: Tensor, weight: Tensor) -> Tensor:
        from liger_kernel.transformers.functional import (  # pyright: ignore[reportMissingImports]
            liger_fused_linear_cross_entropy,
        )

        return liger_fused_linear_cross_entropy(hidden, weight, labels, reduction="sum")

    return Case(
        lambda x, w: k.linear_cross_entropy(x, w, labels, work.ids, IGNORE_INDEX)[0],
        plain,
        liger,
        inputs,
        nbytes=0,
        flops=6 * work.tokens * work.ids * work.width,
    )
