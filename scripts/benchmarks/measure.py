"""One measurement in this process, told by its only argument; prints one JSON object as last line.

`scripts.benchmark suite=...` starts it, once per side and round, so that peak memory and threads
are the measurement's own. The object has `figures` (units stand in the names), `ceilings` (the
value of a figure at which the machine would do nothing else at its measured rate), `machine` (the
rates themselves), and, where sides must agree in it, `precision` and `answers`.
"""

import json
import sys
from importlib import import_module

import torch

from scripts.benchmarks.works import Job

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
"""Opened one at a time, so that no side carries the libraries of another."""


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
    module = import_module(f"scripts.benchmarks.{MODULES[type(job.work).__name__]}")
    found = module.measure(job.work, job.side)
    if device == "cuda":
        found["machine"]["device"] = torch.cuda.get_device_name()
    return found


def main() -> None:
    """Read, measure, print; what cannot be had ends as one sentence on stderr."""
    try:
        found = measure(Job.from_json(sys.argv[1]))
    except ValueError as error:
        sys.exit(str(error))
    print(json.dumps(found))


if __name__ == "__main__":
    main()
