"""Bits per byte of a finished run by other hands: transformers on the exported folder and raw text.

    python -m experiments.checks.bits_with_transformers RUN

Only where the text is cut into pieces is ours, for that is part of the definition.
"""

import math
import sys
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from transformers import AutoModelForCausalLM, AutoTokenizer

from conf.schema import Config, load_run
from data.rows.shards import Source
from training.evaluate import cut_text
from training.run.log import read_records


def pieces(config: Config, name: str) -> list[str]:
    """Pieces of a held-out set that a run has evaluated."""
    found, size = [], 0
    for text in Source(f"{config.data.root}/{config.data.sources[name]}").held_out():
        for piece in cut_text(text, config.evaluation.chunk_bytes):
            size += len(piece.encode())
            if size > config.evaluation.max_bytes:
                return found
            found.append(piece)
    return found


def open_exported(folder: Path) -> tuple[Any, Any]:
    """transformers' model and tokenizer."""
    model = AutoModelForCausalLM.from_pretrained(folder / "model").eval()
    return model, AutoTokenizer.from_pretrained(folder / "model")


def bits_per_byte(model: Any, tokenizer: Any, texts: list[str]) -> tuple[float, int]:
    """The figure, and the UTF-8 bytes that it is of; BOS 1 and EOS 2 around each text."""
    nats, size = 0.0, 0
    for text in texts:
        ids = tokenizer.encode(text, add_special_tokens=False, split_special_tokens=True)
        ids = torch.tensor([[1, *ids, 2]])
        with torch.no_grad():
            logits = model(ids).logits[0, :-1].float()
        nats += float(F.cross_entropy(logits, ids[0, 1:], reduction="sum"))
        size += len(text.encode())
    return nats / math.log(2) / size, size


if __name__ == "__main__":
    run = load_run(sys.argv[1])
    exported = open_exported(run.folder)
    print("| set | logged | recomputed with transformers |\n|---|---|---|")
    for name, logged in read_records(run.folder).measured[-1]["eval"].items():
        bits, size = bits_per_byte(*exported, pieces(run, name))
        assert size == logged["bytes"]
        print(f"| {name} | {logged['bits_per_byte']:.8f} | {bits:.8f} |")
