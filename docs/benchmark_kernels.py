"""Time each Triton kernel beside its torch reference, as it is and compiled, on a CUDA device.

    python docs/benchmark_kernels.py [dtype=bfloat16] [tokens=8192]

Shapes are those of Mistral-7B with a vocabulary of 65,536. One JSON object per kernel: milliseconds
of forward and backward, the best of 20 after a warm-up, and the peak memory each side adds, in MiB.
A kernel is worth using where it beats `compiled`.
"""

import json
import sys
from collections.abc import Callable
from typing import Any

import torch

sys.path.insert(0, ".")

from kernels import add_rms_norm, cross_entropy, rope, swiglu
from model.transformer import rotary_angles

Op = Callable[..., Any]
Work = tuple[Op, Op, list[torch.Tensor]]


def cases(tokens: int, dtype: torch.dtype) -> dict[str, Work]:
    """(kernel, reference, inputs) by name."""

    def drawn(*shape: int) -> torch.Tensor:
        return torch.randn(shape, dtype=dtype, device="cuda", requires_grad=True)

    rotary = rotary_angles(torch.arange(tokens, device="cuda")[None], 128, 1e4)
    labels = torch.randint(65536, (tokens,), device="cuda")

    def plain_loss(hidden: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        logits = (hidden @ weight.T).float()
        return torch.nn.functional.cross_entropy(logits, labels, reduction="sum")

    return {
        "add_rms_norm": (
            lambda x, y, w: add_rms_norm.add_rms_norm(x, y, w, 1e-5),
            lambda x, y, w: add_rms_norm.reference(x, y, w, 1e-5),
            [drawn(tokens, 4096), drawn(tokens, 4096), drawn(4096)],
        ),
        "rope": (
            lambda q, k: rope.rope(q, k, *rotary),
            lambda q, k: rope.reference(q, k, *rotary),
            [drawn(1, tokens, 32, 128), drawn(1, tokens, 8, 128)],
        ),
        "swiglu": (swiglu.swiglu, swiglu.reference, [drawn(tokens, 14336), drawn(tokens, 14336)]),
        "linear_cross_entropy": (
            lambda x, w: cross_entropy.linear_cross_entropy(x, w, labels, 65536)[0],
            plain_loss,
            [drawn(tokens, 4096), drawn(65536, 4096)],
        ),
    }


def measure(function: Op, inputs: list[torch.Tensor]) -> tuple[float, float]:
    """(best milliseconds, MiB added) of forward and backward."""
    best, before = float("inf"), torch.cuda.memory_allocated()
    for _ in range(23):
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        outputs = function(*inputs)
        outputs = outputs if isinstance(outputs, tuple) else (outputs,)
        torch.autograd.grad(outputs, inputs, [torch.ones_like(x) for x in outputs])
        end.record()
        torch.cuda.synchronize()
        best = min(best, start.elapsed_time(end))
        del outputs
    return best, (torch.cuda.max_memory_allocated() - before) / 2**20


if __name__ == "__main__":
    if not torch.cuda.is_available():
        sys.exit("docs/benchmark_kernels.py needs a CUDA device, and PyTorch sees none")
    given = dict(option.split("=") for option in sys.argv[1:])
    dtype = getattr(torch, given.get("dtype", "bfloat16"))
    tokens = int(given.get("tokens", 8192))
    for name, (kernel, reference, inputs) in cases(tokens, dtype).items():
        sides = {"kernel": kernel, "torch": reference, "compiled": torch.compile(reference)}
        row = {side: measure(function, inputs) for side, function in sides.items()}
        about = {"device": torch.cuda.get_device_name(), "torch": torch.__version__}
        print(json.dumps({"op": name, "tokens": tokens, "dtype": str(dtype), **about, **row}))
