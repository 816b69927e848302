"""The rule of the fast tier: a unit test stays in its process and trains no run."""

import multiprocessing.process
import subprocess
import sys

import pytest
import torch.distributed as dist
from torch.distributed import distributed_c10d


@pytest.fixture(autouse=True)
def stay_in_this_process(monkeypatch):
    """Fail a unit test that starts a process, joins other processes, or trains a whole run.

    A process group of one process is allowed: every training step has one.
    """

    def refuse(*_arguments, **_options):
        raise AssertionError(
            "a unit test starts no process, joins no other process and trains no run; move the "
            "test to tests/distributed/ or tests/e2e/, or use the fixture `finished`"
        )

    join = distributed_c10d.init_process_group

    def join_alone(*arguments, **options):
        if options.get("world_size") != 1:
            refuse()
        return join(*arguments, **options)

    monkeypatch.setattr(subprocess.Popen, "__init__", refuse)
    monkeypatch.setattr(multiprocessing.process.BaseProcess, "start", refuse)
    for module in (dist, distributed_c10d):
        monkeypatch.setattr(module, "init_process_group", join_alone)
    if "train" in sys.modules:
        monkeypatch.setattr("train.start_world", refuse)
