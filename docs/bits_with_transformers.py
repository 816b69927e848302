"""Bits per byte of a finished run by other hands: transformers on the exported folder and raw text.

    python docs/bits_with_transformers.py RUN

Only where the text is cut into pieces is ours, for that is part of the definition.
"""

import math
import sys

import torch
import torch.nn.functional as F
from transformers import AutoModelForCausalLM, AutoTokenizer

sys.path.insert(0, ".")

from conf.schema import Config, load_run
from data.shards import Source
from training.evaluate import cut_text
from training.run_log import read_records


def pieces(config: Config, name: str) -> list[str]:
    """What the run has evaluated of a held-out set."""
    found, size = [], 0
    for text in Source(f"{config.data.root}/{config.data.sources[name]}").held_out():
        for piece in cut_text(text, config.evaluation.chunk_bytes):
            size += len(piece.encode())
            if size > config.evaluation.max_bytes:
                return found
            found.append(piece)
    return found


if __name__ == "__main__":
    run = load_run(sys.argv[1])
    measured = read_records(run.folder).measured[-1]["eval"]
    model = AutoModelForCausalLM.from_pretrained(run.folder / "model").eval()
    tokenizer = AutoTokenizer.from_pretrained(run.folder / "model")
    print("| set | logged | recomputed with transformers |\n|---|---|---|")
    for name, logged in measured.items():
        nats, size = 0.0, 0
        for piece in pieces(run, name):
            ids = tokenizer.encode(piece, add_special_tokens=False, split_special_tokens=True)
            ids = torch.tensor([[1, *ids, 2]])
            with torch.no_grad():
                logits = model(ids).logits[0, :-1].float()
            nats += float(F.cross_entropy(logits, ids[0, 1:], reduction="sum"))
            size += len(piece.encode())
        assert size == logged["bytes"]
        print(f"| {name} | {logged['bits_per_byte']:.8f} | {nats / math.log(2) / size:.8f} |")
