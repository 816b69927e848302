"""Time from nothing to the first id, for a folder of Mistral-7B's shape in bfloat16.

    python -m experiments.benchmarks.opening ACTION folder=/tmp/seven [option=value ...]

    make [layers=32] [tokenizer=FOLDER]   write the folder (14.5 GB)
    open [readers=4]                      read it into the memory of the network
    first                                 open it and compute the first id
    peer                                  the same by transformers
    train run=/tmp/run model=pretrained init_from=/tmp/seven ...

The weights are drawn; fewer layers make a smaller folder. `train` starts train.py with the
overrides that follow, reports when its first steps are logged, and kills it after the fourth; what
it trains on must have been encoded with the tokenizer that `make` was given. Each prints one JSON
object. For a disk's rate, empty the page cache before each (as root: echo 3 >
/proc/sys/vm/drop_caches), and compare with `time cat folder/*.safetensors > /dev/null`.
"""

import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

import torch

import model.weights
from inference.generation.engine import Engine
from model.config import ModelConfig
from model.transformer import Mistral
from pretrained.safetensors_folder import load_pretrained, save_pretrained
from training.sources import open_tokenizer

PROMPT = [1, 5, 7]
PIECE = 1 << 24
STEPS = 4


def make(folder: str, layers: str = "32", tokenizer: str | None = None) -> None:
    """Write the folder; a smaller tokenizer than the vocabulary leaves the rest of it padded."""
    known = open_tokenizer(tokenizer) if tokenizer else None
    shape = ModelConfig(
        vocab_size=32000,
        num_padded_ids=32000 - known.vocab_size if known else 0,
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
    if tokenizer:
        shutil.copytree(tokenizer, folder, dirs_exist_ok=True)


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
    engine = Engine(open_(folder), decoder="plain")
    logits = engine.prefill([PROMPT], engine.new_cache(1, len(PROMPT)))
    report("first", begun, id=int(logits[0].argmax()))


def peer(folder: str) -> None:
    """The same by transformers."""
    begun = time.perf_counter()
    from transformers import AutoModelForCausalLM

    network = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16)
    with torch.inference_mode():
        logits = network(torch.tensor([PROMPT])).logits
    report("peer", begun, id=int(logits[0, -1].argmax()))


def train(run: str, *overrides: str) -> None:
    """From the command to the first steps of a run."""
    begun = time.perf_counter()
    folder = Path(run)
    place = [f"runs_folder={folder.parent}", f"name={folder.name}", "logging.every=1"]
    command = [sys.executable, "train.py", *place, *overrides]
    seen = 0
    with subprocess.Popen(command) as process:
        while process.poll() is None and seen < STEPS:
            time.sleep(0.05)
            log = folder / "metrics.jsonl"
            rows = log.read_text().splitlines() if log.exists() else []
            steps = [row for row in map(json.loads, rows) if "loss_nats" in row]
            for row in steps[seen:]:
                told = {key: row.get(key) for key in ("step", "loss_nats", "tokens_per_second")}
                report("train", begun, **told)
            seen = len(steps)
        process.kill()


def report(what: str, begun: float, **more: float | None) -> None:
    """One line."""
    print(json.dumps({"what": what, "seconds": time.perf_counter() - begun, **more}), flush=True)


if __name__ == "__main__":
    actions = {"make": make, "open": open_, "first": first, "peer": peer, "train": train}
    if len(sys.argv) < 2 or sys.argv[1] not in actions:
        sys.exit(f"name one of {', '.join(actions)}\n{__doc__}")
    if sys.argv[1] == "train":
        train(sys.argv[2].removeprefix("run="), *sys.argv[3:])
    else:
        actions[sys.argv[1]](**dict(option.split("=", 1) for option in sys.argv[2:]))
