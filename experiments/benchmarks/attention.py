"""Attention backends compared with each other, and their errors against fp64."""

import statistics
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from experiments.benchmarks.harness.common import dtype_names, need, peak_gib, timed
from experiments.benchmarks.harness.workloads import Attention
from model import attention as backends
from model.attention import attention, prepare_documents, resolve_backend, torch_varlen
from model.backends.banded import visible_keys
from model.device import DTYPES, choose_device
from model.documents import Documents
from training.run.metrics import measure_peak_flops

NEEDED = {"flash4": ("flash_attn.cute",), "flash": ("flash_attn",)}
CHECKED = 256
"""Queries whose outputs are compared with fp64, the last of the row: as many keys as there are."""

Attend = Callable[[Tensor, Tensor, Tensor], Tensor]


def measure(work: Attention, side: str) -> dict:
    """TFLOP/s of the exact band, peak memory, and errors of output and gradients."""
    device, dtype = choose_device(work.device, 0), DTYPES[work.dtype]
    documents = documents_of(work).to(device)
    attend = _attend(work, side, documents, device, dtype)
    heads = (work.heads, work.key_heads, work.key_heads)
    inputs = [
        torch.randn(1, work.length, n, work.head_size, dtype=dtype, device=device).requires_grad_()
        for n in heads
    ]
    upstream = torch.randn_like(inputs[0])

    def step() -> tuple[Tensor, ...]:
        return torch.autograd.grad(attend(*inputs), inputs, upstream)

    seconds = statistics.median(timed(step, work.times, device))
    peak = peak_gib(device)
    output, gradient = errors(work, attend, inputs, upstream, documents)
    flops = 12 * work.heads * work.head_size * documents.count_pairs(work.window)
    matrix = measure_peak_flops(device, dtype) / 1e12
    return {
        "figures": {
            "tflops": flops / seconds / 1e12,
            "peak_gib": peak,
            "output_error": output,
            "gradient_error": gradient,
        },
        "ceilings": {"tflops": matrix},
        "machine": {"matrix_tflops": matrix},
        "precision": {"inputs": dtype_names(inputs)},
    }


def documents_of(work: Attention) -> Documents:
    """One document, or eight whose lengths double: 1/255, 2/255, ... of the row."""
    segments = torch.ones(1, work.length, dtype=torch.int32)
    if work.packed:
        for n in range(1, 8):
            segments[:, work.length * (2**n - 1) // 255 :] += 1
    return Documents.from_segments(segments)


def _attend(
    work: Attention, side: str, documents: Documents, device: torch.device, dtype: torch.dtype
) -> Attend:
    if side == "sdpa":
        return _sdpa(work, documents)
    need(*NEEDED.get(side, ()))
    if side == "flash" and backends.flash_attn_varlen_func is None:
        raise ValueError("flash_attn is installed without its kernels")
    backend = "flash" if side == "varlen" else side
    resolve_backend(backend, device, dtype, work.head_size)
    if side == "varlen":
        return lambda q, k, v: torch_varlen(q, k, v, documents, work.window)
    ready = prepare_documents(documents, work.window, backend)
    return lambda q, k, v: attention(q, k, v, ready, window=work.window, backend=backend)


def _sdpa(work: Attention, documents: Documents) -> Attend:
    everything = slice(None)
    mask = visible_keys(documents.segments, everything, everything, work.window)[:, None]

    def attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        q, k, v = (x.transpose(1, 2) for x in (query, key, value))
        return scaled_dot_product_attention(q, k, v, mask, enable_gqa=True).transpose(1, 2)

    return attend


def errors(
    work: Attention,
    attend: Attend,
    inputs: list[Tensor],
    upstream: Tensor,
    documents: Documents,
) -> tuple[float, float]:
    """Largest differences of outputs and gradients from fp64, relative to the largest values.

    Only the last queries count, and only they send gradients back, so that fp64 fits at any length.
    """
    last = slice(max(0, work.length - CHECKED), work.length)
    masked = torch.zeros_like(upstream)
    masked[:, last] = upstream[:, last]
    out = attend(*inputs)
    found = torch.autograd.grad(out, inputs, masked)
    exact = [x.detach().double().requires_grad_() for x in inputs]
    q, k, v = (x.transpose(1, 2) for x in exact)
    group = work.heads // work.key_heads
    k, v = (x.repeat_interleave(group, 1) for x in (k, v))
    mask = visible_keys(documents.segments, last, slice(None), work.window)[:, None]
    scores = (q[:, :, last] @ k.mT / work.head_size**0.5).masked_fill(~mask, -torch.inf)
    true = (scores.softmax(-1) @ v).transpose(1, 2)
    slopes = torch.autograd.grad(true, exact, upstream[:, last].double())
    return _difference(out[:, last], true), max(
        _difference(x, y) for x, y in zip(found, slopes, strict=True)
    )


def _difference(found: Tensor, exact: Tensor) -> float:
    exact = exact.detach()
    return float((found.detach().double() - exact).abs().max() / exact.abs().max())
