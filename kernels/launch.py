"""Triton where it is installed: without it kernels can be imported and their references used.

Who calls a kernel must have triton (the extra `triton`; PyTorch for CUDA brings it) and tensors on
a CUDA device, or TRITON_INTERPRET=1 set before triton is imported.
"""

from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

installed = find_spec("triton") is not None
"""True if triton is installed, so that kernels can be launched."""
tl: Any = import_module("triton.language") if installed else SimpleNamespace(constexpr=int)
"""The language that kernels are written in; without triton just enough to define them."""


def jit(kernel: Callable[..., None]) -> Any:
    """`triton.jit` where it is installed, else the function as it is, never to be called."""
    return import_module("triton").jit(kernel) if installed else kernel


def use_triton(x: Tensor) -> bool:
    """Decide if an operation on a tensor calls its Triton kernel: on CUDA, outside compiled code.

    A compiler generates its own kernels from the torch references and their surroundings.
    """
    fits = x.device.type == "cuda" and x.dtype != torch.float64
    if not (fits and installed) or torch.compiler.is_compiling():
        return False
    return x.device.index == torch.cuda.current_device()  # where triton launches, whatever x says


def power_of_two(n: int) -> int:
    """The smallest power of two that is at least n: blocks have such sizes."""
    return 1 << max(0, n - 1).bit_length()


def check_launch(*tensors: Tensor) -> None:
    """Check the requirements of every kernel: triton, and dense tensors on one device.

    Raises:
        ValueError: triton is not installed.
    """
    if not installed:
        raise ValueError(
            "a Triton kernel was called, but triton is not installed; pip install "
            "'triton>=3.6', or call the kernel's torch reference"
        )
    assert all(tensor.is_contiguous() for tensor in tensors)
    assert len({tensor.device for tensor in tensors}) == 1
