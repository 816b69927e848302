"""Time and memory of the output head with its loss."""

import statistics
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from experiments.benchmarks.harness.common import dtype_names, timed, wait
from experiments.benchmarks.harness.workloads import Loss
from model.device import DTYPES, choose_device
from model.labels import IGNORE_INDEX
from model.loss import linear_cross_entropy
from training.run.metrics import measure_peak_flops


def measure(work: Loss, side: str) -> dict:
    """Supervised tokens per second, and GiB beyond hidden states, weight and their gradients."""
    device, dtype = choose_device(work.device, 0), DTYPES[work.dtype]
    loss = {"ours": chunked, "plain": plain}[side]
    # Threads, code and scratch space that every matrix product needs.
    loss(*_batch(work, 8, max(1, work.ids // 64), dtype, device)).backward()
    hidden, weight, labels = _batch(work, work.tokens, work.ids, dtype, device)
    labels[:, work.supervised :] = IGNORE_INDEX
    before = held(device, "VmRSS")
    forget_peak(device)
    loss(hidden, weight, labels).backward()
    extra = held(device, "VmHWM") - before - hidden.nbytes - weight.nbytes

    def step() -> None:
        hidden.grad = weight.grad = None
        loss(hidden, weight, labels).backward()

    seconds = statistics.median(timed(step, work.times, device))
    matrix = measure_peak_flops(device, dtype)
    per_token = 6 * work.ids * work.width
    return {
        "figures": {
            "tokens_per_second": work.supervised / seconds,
            "extra_gib": extra / 2**30,
        },
        "ceilings": {"tokens_per_second": matrix / per_token},
        "machine": {"matrix_tflops": matrix / 1e12},
        "precision": {"inputs": dtype_names([hidden, weight])},
    }


def chunked(hidden: Tensor, weight: Tensor, labels: Tensor) -> Tensor:
    """Ours."""
    return linear_cross_entropy(hidden, weight, labels, len(weight)).total


def plain(hidden: Tensor, weight: Tensor, labels: Tensor) -> Tensor:
    """All logits at once, the softmax in fp32, as transformers computes it."""
    logits = (hidden @ weight.T).flatten(0, 1).float()
    return F.cross_entropy(logits, labels.flatten(), reduction="sum")


def _batch(
    work: Loss, tokens: int, ids: int, dtype: torch.dtype, device: torch.device
) -> tuple[Tensor, Tensor, Tensor]:
    options = {"dtype": dtype, "device": device}
    hidden = torch.empty(1, tokens, work.width, **options).normal_(std=work.width**-0.25)
    weight = torch.empty(ids, work.width, **options).normal_(std=work.width**-0.25)
    labels = torch.randint(ids, (1, tokens), device=device)
    return hidden.requires_grad_(), weight.requires_grad_(), labels


def held(device: torch.device, field: str) -> int:
    """Bytes held: now (VmRSS), or at most since the peak was forgotten (VmHWM)."""
    if device.type == "cuda":
        wait(device)
        now = field == "VmRSS"
        return torch.cuda.memory_allocated() if now else torch.cuda.max_memory_allocated()
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return next(int(line.split()[1]) for line in status.splitlines() if field in line) * 1024


def forget_peak(device: torch.device) -> None:
    """Reset the peak."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
        return
    Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")
