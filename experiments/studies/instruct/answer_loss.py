"""Held-out answer loss of several models, conversation by conversation, against the first one.

    python -m experiments.studies.instruct.answer_loss <prepared source> <base> <tuned> ...

Prints the mean loss in nats per answer token of each model, and for each but the first the mean
over conversations of its difference to the first with a 95 % interval (normal, paired).
"""

import math
import sys
from statistics import mean, stdev

import torch

from data.rows.conversations import Conversations
from model.labels import IGNORE_INDEX
from pretrained.load import open_model
from tokenizer.chat import Encoded


@torch.inference_mode()
def losses(folder: str, source: Conversations) -> list[tuple[float, int]]:
    """(nats, tokens) of the answers in each held-out conversation."""
    model, tokenizer = open_model(folder, torch.float32, "cpu")
    return [nats_of(model, encoded) for encoded in source.encode_held_out(tokenizer)]


def nats_of(model: torch.nn.Module, encoded: Encoded) -> tuple[float, int]:
    """Nats and number of the supervised tokens of a conversation."""
    ids = torch.tensor(encoded.ids)
    supervised = torch.tensor(encoded.supervised)
    labels = torch.where(supervised, ids, IGNORE_INDEX)[1:]
    total = model(ids[None, :-1], labels=labels[None]).total
    return float(total), int(supervised[1:].sum())


if __name__ == "__main__":
    place, *folders = sys.argv[1:]
    before: list[float] = []
    for folder in folders:
        found = losses(folder, Conversations(place))
        each = [nats / tokens for nats, tokens in found]
        total = sum(nats for nats, _ in found) / sum(tokens for _, tokens in found)
        line = f"{place} {folder}: {total:.4f} nats per token over {len(found)} conversations"
        if before:
            changes = [after - one for one, after in zip(before, each, strict=True)]
            half = 1.96 * stdev(changes) / math.sqrt(len(changes))
            line += f"; per conversation {mean(changes):+.4f} +-{half:.4f} against the first"
        else:
            before = each
        print(line, flush=True)
