"""One measurement in this process, told by its only argument; prints one JSON object as last line.

`experiments.benchmarks suite=...` starts this process once per side and round, so that peak memory
and threads belong to the measurement alone; for a GPU once, with `--serve`. The object has
`figures` (units are part of the names), `ceilings` (values at which the machine would do
nothing else at its measured rate), `machine` (the rates themselves), and, where sides must agree,
`precision` and `answers`.
"""

import gc
import json
import os
import sys
from importlib import import_module

import torch

from experiments.benchmarks.harness.workloads import Job

MODULES = {
    "Training": "training",
    "Decoding": "decoding",
    "Loss": "loss",
    "Rows": "text",
    "Tokenizing": "text",
    "Saving": "saving",
    "Kernel": "kernels",
    "Attention": "attention",
}
"""Opened one at a time, so that in a separate process no side carries another's libraries."""

KEPT = 1 << 28
"""Bytes on the device that libraries may hold for themselves; more means that a job lives on."""


def measure(job: Job) -> dict:
    """The figures of a job.

    Raises:
        ValueError: it cannot be had here; says why.
    """
    device = getattr(job.work, "device", "cpu")
    if device == "cuda" and not torch.cuda.is_available():
        raise ValueError("needs a CUDA device, and PyTorch sees none")
    torch.set_num_threads(job.threads)
    torch.manual_seed(0)
    module = import_module(f"experiments.benchmarks.{MODULES[type(job.work).__name__]}")
    found = module.measure(job.work, job.side)
    if device == "cuda":
        found["machine"]["device"] = torch.cuda.get_device_name()
    return found


def main() -> None:
    """Read, measure, print; what cannot be had ends as one sentence on stderr."""
    if sys.argv[1:] == ["--serve"]:
        serve()
        return
    try:
        found = measure(Job.from_json(sys.argv[1]))
    except ValueError as error:
        sys.exit(str(error))
    print(json.dumps(found))


def serve() -> None:
    """Measure the jobs on stdin one after the other, a line each, and answer in the same form.

    For devices whose memory can be emptied and reset: between jobs nothing is kept but what
    libraries hold for themselves. Ends by itself where that cannot be had, and says so (`last`).
    """
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # whatever a library prints is not an answer
    for line in sys.stdin:
        found = _answer(Job.from_json(line))
        torch.compiler.reset()
        gc.collect()
        torch.cuda.empty_cache()  # of a device that there need not be
        found["last"] = torch.cuda.memory_allocated() > KEPT
        print(json.dumps(found), file=answers)
        if found["last"]:
            return
        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()


def _answer(job: Job) -> dict:
    """Figures of a job, or the reason why they cannot be measured here.

    Any other error ends the process, because later figures of the same device would be unreliable.
    """
    try:
        return measure(job)
    except (ValueError, torch.OutOfMemoryError) as error:
        return {"not_measured": str(error).partition("\n")[0][:300]}


if __name__ == "__main__":
    main()
