"""Time of a training step on a CUDA device, by kernel.

    python -m experiments.checks.profile_step lora_4096          # one of LARGE in
    experiments/benchmarks/harness/suites.py
    python -m experiments.checks.profile_step full_4096 20       # the 20 most expensive kernels

Two steps warm up, two are traced. Milliseconds are per step and of the device alone.
"""

import sys
from collections import Counter

import torch
from torch.profiler import ProfilerActivity, profile

from experiments.benchmarks.harness.suites import LARGE, large_step, shape_of
from experiments.benchmarks.training import prepare
from training.distributed import start_world

STEPS = 2
KINDS = {
    "attention": ("flash", "fmha"),
    "compiled": ("triton_",),
    "our kernels": ("_forward", "_backward", "_softmax_gradient", "_update"),
    "matrix products": ("gemm", "nvjet", "cutlass", "splitK", "gemv"),
}
"""Kinds of kernels by parts of their names, the first that fits."""


def kind_of(name: str) -> str:
    """Kind of work of a kernel."""
    return next((kind for kind, parts in KINDS.items() if any(p in name for p in parts)), "other")


def main(part: str, lines: int = 40) -> None:
    """Trace, add up, print."""
    work = large_step(LARGE[part], shape_of("mistral_7b", 4096), device="cuda")
    with start_world("cuda") as world:
        run = prepare(work, world, compile=True)
        for _ in range(2):
            run.step()
        torch.cuda.synchronize()
        with profile(activities=[ProfilerActivity.CUDA]) as trace:
            for _ in range(STEPS):
                run.step()
            torch.cuda.synchronize()
    rows = [
        (row.key, row.self_device_time_total / 1e3 / STEPS, row.count // STEPS)
        for row in trace.key_averages()
        if row.self_device_time_total
    ]
    kinds: Counter[str] = Counter()
    for name, milliseconds, _ in rows:
        kinds[kind_of(name)] += milliseconds
    for kind, milliseconds in kinds.most_common():
        print(f"{milliseconds:9.2f} ms  {kind}")
    print(f"{sum(kinds.values()):9.2f} ms  all")
    for name, milliseconds, count in sorted(rows, key=lambda row: -row[1])[:lines]:
        print(f"{milliseconds:9.2f} ms {count:6} x  {name[:120]}")


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:]))
