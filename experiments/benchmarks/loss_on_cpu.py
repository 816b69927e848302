"""Peak memory and time of the chunked and the plain loss on a CPU, forward and backward.

    python -m experiments.benchmarks.loss_on_cpu memory [dtype=bfloat16] [tokens=16384]
        [ids=65536] [width=4096] [supervised=16384]
    python -m experiments.benchmarks.loss_on_cpu time [dtype=float32] [tokens=2048] [ids=65536]
        [width=1024] [rounds=3]

`memory` prints how far the resident memory of a young process rises above what it was with hidden
states and weight allocated (Linux): in all, and without the two gradients that any loss returns, in
their dtype. `extra_tensors_gib` is the same of the tensors alone, as torch counts them: the
rest is scratch space of the CPU's matrix products. Fewer `supervised` tokens take less time, and no
less memory as long as they make a few chunks (CHUNK_LOGITS / ids tokens each), for chunks come one
after the other. `time` lets plain and chunked take turns and prints the median CPU time of each.
"""

import json
import statistics
import sys
import time

import torch
from torch.distributed._tools.mem_tracker import MemTracker

from experiments.benchmarks.loss import chunked, forget_peak, held, plain
from model.labels import IGNORE_INDEX

CPU = torch.device("cpu")


def batch(tokens: int, ids: int, width: int, dtype: torch.dtype) -> list[torch.Tensor]:
    """(hidden, weight, labels)."""
    torch.manual_seed(0)
    hidden, weight = (
        torch.empty(1, tokens, width, dtype=dtype),
        torch.empty(ids, width, dtype=dtype),
    )
    for x in (hidden, weight):
        x.normal_(std=width**-0.25).requires_grad_()
    return [hidden, weight, torch.randint(ids, (1, tokens))]


def measure_memory(tokens: int, ids: int, width: int, dtype: torch.dtype, supervised: int) -> dict:
    """GiB above hidden states and weight."""
    x = batch(8, ids // 64, width, dtype)
    chunked(*x).backward()  # threads, code and scratch space that every matrix product needs
    x = batch(tokens, ids, width, dtype)
    x[2][:, supervised:] = IGNORE_INDEX
    before = held(CPU, "VmRSS")
    forget_peak(CPU)
    start = time.perf_counter()
    with MemTracker() as tracker:
        total = chunked(*x)
        forward = held(CPU, "VmHWM") - before
        total.backward()
    rise = held(CPU, "VmHWM") - before
    (tensors,) = tracker.get_tracker_snapshot("peak").values()
    gradients = sum(tensor.nbytes for tensor in x[:2])
    return {
        "seconds": time.perf_counter() - start,
        "peak_gib": rise / 2**30,
        "peak_gib_until_backward": forward / 2**30,
        "gradients_gib": gradients / 2**30,
        "extra_gib": (rise - gradients) / 2**30,
        # Torch's count has hidden states and weight too, which are as large as the gradients.
        "extra_tensors_gib": (tensors["Total"] - 2 * gradients) / 2**30,
        "fp32_gradient_of_weight_gib": ids * width * 4 / 2**30,
    }


def measure_time(tokens: int, ids: int, width: int, dtype: torch.dtype, rounds: int) -> dict:
    """Median seconds of each side, and their ratio."""
    x = batch(tokens, ids, width, dtype)
    seconds: dict[str, list[float]] = {"plain": [], "chunked": []}
    for _ in range(rounds + 1):
        for loss in (plain, chunked):
            x[0].grad = x[1].grad = None
            start = time.process_time()  # of this process: others on the machine do not count
            loss(*x).backward()
            seconds[loss.__name__].append(time.process_time() - start)
    medians = {name: statistics.median(found[1:]) for name, found in seconds.items()}
    return {"cpu_seconds": medians, "ratio": medians["chunked"] / medians["plain"]}


if __name__ == "__main__":
    what, *options = sys.argv[1:]
    given = dict(option.split("=") for option in options)
    dtype = getattr(torch, given.pop("dtype", "bfloat16" if what == "memory" else "float32"))
    sizes = {"tokens": 16384, "ids": 65536, "width": 4096, "supervised": 16384}
    measure = measure_memory
    if what == "time":
        sizes, measure = {"tokens": 2048, "ids": 65536, "width": 1024, "rounds": 3}, measure_time
    sizes |= {name: int(value) for name, value in given.items()}
    row = measure(**sizes, dtype=dtype)
    about = {"dtype": str(dtype), "threads": torch.get_num_threads(), "torch": torch.__version__}
    print(json.dumps({"what": what, **sizes, **about, **row}))
