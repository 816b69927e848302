"""Device and dtype of the network in one process."""

import ctypes
import sys

import torch

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def compute_dtype(name: str, device: torch.device) -> torch.dtype:
    """The dtype that `parallel.dtype` means on a device."""
    if name == "auto":
        return torch.bfloat16 if device.type == "cuda" else torch.float32
    return DTYPES[name]


_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # of glibc's malloc.h


def keep_freed_memory() -> None:
    """Let glibc keep what this process frees for the next tensor, from now on.

    As it comes, each large tensor is a new mapping, whose pages the system clears one by one, and
    which it gets back when freed: some hundred thousand page faults a step. See mallopt(3); other C
    libraries have no such function and stay as they are.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        mallopt(_M_MMAP_MAX, 0)
        mallopt(_M_TRIM_THRESHOLD, -1)  # never


def choose_device(name: str, local_rank: int) -> torch.device:
    """The device that a name stands for; ValueError if there is none."""
    if name not in ("auto", "cpu", "cuda"):
        raise ValueError(f"device={name!r}: one of auto, cpu, cuda")
    if name == "cuda" and not torch.cuda.is_available():
        raise ValueError("device=cuda, but PyTorch sees no CUDA device; use device=cpu")
    if name == "cpu" or not torch.cuda.is_available():
        return torch.device("cpu")
    if local_rank >= torch.cuda.device_count():
        raise ValueError(
            f"local rank {local_rank}, but only {torch.cuda.device_count()} CUDA devices; start at "
            "most one process per device"
        )
    return torch.device("cuda", local_rank)
