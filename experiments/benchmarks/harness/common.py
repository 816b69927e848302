"""Parts of all measurements: clocks, memory, rates of the machine, and initial weights."""

import resource
import time
from collections.abc import Callable, Iterable
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor, nn

from data.rows.seeds import derive

EXTRAS = {
    "transformers": "pip install -e '.[dev]'",
    "peft": "pip install -e '.[dev]'",
    "tokenizers": "pip install -e '.[hf]'",
    "triton": "pip install -e '.[triton]'",
    "flash_attn": "pip install -e '.[flash]' --no-build-isolation",
    "flash_attn.cute": "pip install -e '.[flash4]'",
    "liger_kernel": "pip install liger-kernel",
}


def need(*packages: str) -> None:
    """ValueError unless all packages are installed."""
    for package in packages:
        parent, _, _ = package.rpartition(".")
        if (parent and find_spec(parent) is None) or find_spec(package) is None:
            raise ValueError(f"{package} is not installed ({EXTRAS[package]})")


def wait(device: torch.device) -> None:
    """Let the device finish."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def timed(step: Callable[[], Any], times: int, device: torch.device) -> list[float]:
    """Seconds of each call, after one that is not counted."""
    seconds = []
    for _ in range(times + 1):
        wait(device)
        start = time.perf_counter()
        step()
        wait(device)
        seconds.append(time.perf_counter() - start)
    return seconds[1:]


def peak_gib(device: torch.device) -> float:
    """The most memory that this process has held: the device's, or resident on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20  # Linux counts in KiB


def read_rate(device: torch.device, size: int) -> float:
    """Bytes per second of reading `size` bytes, the best of five.

    Give the size that the work itself reads: whether it stays in a cache decides. In fp32, since a
    CPU takes longer to add numbers of 16 bits than to read them.
    """
    x = torch.ones(size // 4, dtype=torch.float32, device=device)
    return x.nbytes / min(timed(x.sum, 5, device))


def copy_rate(device: torch.device, size: int) -> float:
    """Bytes per second of copying `size` bytes, both directions counted, the best of five."""
    source = torch.ones(size, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return 2 * size / min(timed(lambda: target.copy_(source), 5, device))


def drawn(name: str, shape: torch.Size, device: torch.device) -> Tensor:
    """The fp32 weight that every side gives a parameter of this name."""
    if len(shape) == 1:
        return torch.ones(shape, device=device)
    if ".lora_B." in name:
        return torch.zeros(shape, device=device)
    generator = torch.Generator(device).manual_seed(derive(0, name) >> 1)
    # On the device itself: a CPU would need minutes for seven billion.
    return torch.empty(shape, device=device).normal_(0.0, 0.02, generator=generator)


class DrawnWeights:
    """`drawn` as a `WeightSource`, whole tensors computed whatever part is read."""

    def __init__(self, model: nn.Module, device: torch.device) -> None:
        self._shapes = {name: parameter.shape for name, parameter in model.named_parameters()}
        self._device = device

    def read(self, name: str, rows: slice) -> Tensor:
        """Rows of one tensor."""
        return drawn(name, self._shapes[name], self._device)[rows]


def random_ids(count: int, rows: int, length: int, device: torch.device) -> Tensor:
    """Ids below `count` in (rows, length), equal on every side."""
    generator = torch.Generator().manual_seed(0)
    return torch.randint(count, (rows, length), generator=generator).to(device)


def dtype_names(tensors: Iterable[Tensor]) -> list[str]:
    """The dtypes that occur, to compare precision between sides."""
    return sorted({str(tensor.dtype).removeprefix("torch.") for tensor in tensors})
