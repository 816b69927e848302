"""Loading a folder holds little more than the weights that it keeps."""

import threading
from pathlib import Path

import pytest
import torch

from model.transformer import Mistral
from pretrained.safetensors_folder import (
    load_pretrained,
    save_pretrained,
    write_folder,
)
from tests.helpers.toy import run_without_hook, toy_config, toy_model


def anonymous_bytes():
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon"))


def measure_load(folder):
    """Print (peak of anonymous memory that loading adds, bytes of the weights)."""
    load_pretrained(Path(folder).with_name("small"))  # what is imported on first use
    before, peak, done = anonymous_bytes(), 0, threading.Event()

    def watch():
        nonlocal peak
        while not done.wait(0.001):
            peak = max(peak, anonymous_bytes())

    thread = threading.Thread(target=watch)
    thread.start()
    network = load_pretrained(folder, dtype=torch.bfloat16)
    done.set()
    thread.join()
    print(peak - before, sum(parameter.nbytes for parameter in network.parameters()))


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads Linux's /proc")
def test_loading_peaks_at_the_weights_kept(tmp_path):
    """Stored in fp32, kept in bf16. Mapped pages of the file do not count: they can be dropped."""
    shape = toy_config(
        hidden_size=1024, intermediate_size=2816, num_hidden_layers=6, vocab_size=1000
    )
    with torch.device("meta"):
        sizes = [(name, parameter.shape) for name, parameter in Mistral(shape).named_parameters()]
    tensors = ((name, torch.ones(size)) for name, size in sizes)
    write_folder(tmp_path / "large", shape, tensors, max_shard_bytes=100_000_000)
    save_pretrained(toy_model(toy_config()), tmp_path / "small")
    peak, weights = map(int, run_without_hook(measure_load, str(tmp_path / "large")).split())
    assert weights > 140_000_000
    assert 0.9 * weights < peak <= 1.2 * weights
