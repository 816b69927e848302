"""Processes that are alone, and commands that are interrupted."""

import shutil
import subprocess
import sys

import pytest

from tests.helpers.runs import ROOT

ALONE = """
import torch, torch.distributed as dist
from training.distributed import start_world
with start_world("cpu") as world:
    for one in (world, world.background_group()):
        assert one.sum([2.0, 3.0]) == [2.0, 3.0]
        assert one.from_main({"a": 1}) == {"a": 1}
        assert one.gather("x") == ["x"]
        one.barrier()
    whole, part = torch.zeros(4), torch.arange(4.0)
    dist.all_gather_into_tensor(whole, part)
    assert whole.tolist() == [0, 1, 2, 3]
    dist.reduce_scatter_tensor(part, whole * 2)
    assert part.tolist() == [0, 2, 4, 6]
print("alone")
"""


def test_one_process_needs_no_network():
    """In a network namespace of its own, where not even the loopback interface is up."""
    unshare = shutil.which("unshare")
    if unshare is None or subprocess.run([unshare, "-rn", "true"], check=False).returncode:
        pytest.skip("this machine lets nobody unshare the network")
    program = [unshare, "-rn", sys.executable, "-W", "ignore", "-c", ALONE]
    done = subprocess.run(program, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.stdout == "alone\n", done.stderr


STOPPED_AT_ONCE = """
import os, signal
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it
import conf.interrupt
os.kill(os.getpid(), signal.SIGINT)
import time
time.sleep(5)
"""


def test_an_interrupt_while_importing_is_one_line():
    program = [sys.executable, "-c", STOPPED_AT_ONCE]
    done = subprocess.run(program, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (130, "stopped\n")
    for command in sorted((ROOT / "scripts").glob("*.py")):
        assert command.name == "__init__.py" or command.read_text().startswith('"""')
    assert "conf.interrupt" in (ROOT / "scripts/__init__.py").read_text()
