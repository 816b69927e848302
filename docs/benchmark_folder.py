"""Time from nothing to the first id, for a folder of Mistral-7B's shape in bfloat16.

    python docs/benchmark_folder.py make folder=/tmp/seven [layers=32]   # 14.5 GB, seconds to write
    python docs/benchmark_folder.py open folder=/tmp/seven [readers=4]   # into the network's memory
    time python docs/benchmark_folder.py first folder=/tmp/seven         # ours: open, one pass
    time python docs/benchmark_folder.py peer folder=/tmp/seven          # the same by transformers

The weights are drawn; fewer layers make a smaller folder. Each prints one JSON object. For a disk's
rate, empty the page cache before each (as root: echo 3 > /proc/sys/vm/drop_caches), and compare
with `time cat folder/*.safetensors > /dev/null`.
"""

import json
import sys
import time
from pathlib import Path

import torch

sys.path.insert(0, ".")

import model.weights
from model.config import ModelConfig
from model.runner import Runner
from model.transformer import Mistral
from model.weights import load_pretrained, save_pretrained

PROMPT = [1, 5, 7]
PIECE = 1 << 24


def make(folder: str, layers: str = "32") -> None:
    """Write the folder."""
    shape = ModelConfig(
        vocab_size=32000,
        hidden_size=4096,
        intermediate_size=14336,
        num_hidden_layers=int(layers),
        num_attention_heads=32,
        num_key_value_heads=8,
        sliding_window=4096,
    )
    with torch.device("meta"):
        network = Mistral(shape)
    network.to(torch.bfloat16).to_empty(device="cpu")
    drawn = torch.empty(PIECE).normal_(0.0, 0.02).bfloat16()
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.ndim == 1:
                parameter.fill_(1.0)
                continue
            for part in parameter.view(-1).split(PIECE):
                part.copy_(drawn[: len(part)])
    begun = time.perf_counter()
    save_pretrained(network, Path(folder))
    report("make", begun)


def open_(folder: str, readers: str = "4") -> Mistral:
    """Read it into memory."""
    model.weights.READERS = int(readers)
    begun = time.perf_counter()
    network = load_pretrained(folder, dtype=torch.bfloat16)
    report("open", begun)
    return network


def first(folder: str) -> None:
    """Read it and continue a prompt by one id."""
    begun = time.perf_counter()
    runner = Runner(open_(folder), pack=False)
    logits = runner.prefill([PROMPT], runner.new_cache(1, len(PROMPT)))
    report("first", begun, id=int(logits[0].argmax()))


def peer(folder: str) -> None:
    """The same by transformers."""
    begun = time.perf_counter()
    from transformers import AutoModelForCausalLM

    network = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16)
    with torch.inference_mode():
        logits = network(torch.tensor([PROMPT])).logits
    report("peer", begun, id=int(logits[0, -1].argmax()))


def report(what: str, begun: float, **more: int) -> None:
    """One line."""
    print(json.dumps({"what": what, "seconds": time.perf_counter() - begun, **more}), flush=True)


if __name__ == "__main__":
    actions = {"make": make, "open": open_, "first": first, "peer": peer}
    if len(sys.argv) < 2 or sys.argv[1] not in actions:
        sys.exit(f"name one of {', '.join(actions)}\n{__doc__}")
    actions[sys.argv[1]](**dict(option.split("=", 1) for option in sys.argv[2:]))
