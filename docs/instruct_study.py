"""Does a toy answer, after instruction tuning, what it was shown, in words it was not?

    python docs/instruct_study.py <run or HF folder> [<run or HF folder> ...]

Asks every question of the embedded sample (`data.sample.probes`, wordings that occur in no training
text) in the chat format and takes the option whose whole answer is likeliest; four options, so
chance is 25 %. Facts with exposures are asked about in the instruction data, in other words; the
controls (exposures 0) occur nowhere.
"""

import math
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator

import torch

sys.path.insert(0, ".")

from data.sample.instructions import answer
from data.sample.probes import Question, questions
from model.documents import Documents
from model.transformer import Mistral
from tokenizer.chat import Message, encode_conversation, encode_prompt
from tokenizer.tokenizer import Tokenizer
from training.open_model import open_model

Row = tuple[list[int], int]


def rows_of(question: Question, tokenizer: Tokenizer) -> Iterator[Row]:
    """Ids of the question with each answer, and how many of them are the prompt's."""
    user = Message("user", question.prompt)
    prompt = len(encode_prompt(tokenizer, [user]))
    for option in question.options:
        said = Message("assistant", answer(option, question.language))
        yield encode_conversation(tokenizer, [user, said]).ids, prompt


@torch.inference_mode()
def likelihoods(model: Mistral, rows: list[Row], batch: int = 64) -> list[float]:
    """Nats of each answer, EOS included, given its prompt."""
    order = sorted(range(len(rows)), key=lambda n: len(rows[n][0]))
    found = [0.0] * len(rows)
    for first in range(0, len(order), batch):
        numbers = order[first : first + batch]
        width = max(len(rows[n][0]) for n in numbers)
        tokens = torch.zeros(len(numbers), width, dtype=torch.int64)
        labels = torch.full_like(tokens, -100)
        segments = torch.zeros_like(tokens, dtype=torch.int32)
        for place, n in enumerate(numbers):
            ids, prompt = rows[n]
            tokens[place, : len(ids)] = torch.tensor(ids)
            labels[place, prompt - 1 : len(ids) - 1] = torch.tensor(ids[prompt:])
            segments[place, : len(ids)] = 1
        documents = Documents.from_segments(segments)
        losses = model(tokens, documents=documents, labels=labels).rows
        for n, loss in zip(numbers, losses.tolist(), strict=True):
            found[n] = -loss
    return found


def score(model: Mistral, tokenizer: Tokenizer) -> dict[str, list[bool]]:
    """Which questions are answered right, by what was shown."""
    asked = questions()
    rows = [row for question in asked for row in rows_of(question, tokenizer)]
    nats = iter(likelihoods(model, rows))
    right = defaultdict(list)
    for question in asked:
        values = [next(nats) for _ in question.options]
        hit = values.index(max(values)) == question.answer
        shown = "shown" if question.exposures else "control"
        kind = "invented" if question.invented else "real"
        for key in (shown, f"{shown} {question.language}", f"{shown} {question.domain}",
                    f"{shown} {kind}"):  # fmt: skip
            right[key].append(hit)
    return right


def interval(hits: Iterable[bool]) -> str:
    """Share of hits with its 95 % interval (Wilson 1927)."""
    values = list(hits)
    n, p, z = len(values), sum(values) / len(values), 1.96
    middle = (p + z * z / 2 / n) / (1 + z * z / n)
    half = z * math.sqrt(p * (1 - p) / n + z * z / 4 / n / n) / (1 + z * z / n)
    return f"{100 * p:5.1f} % [{100 * (middle - half):.1f}, {100 * (middle + half):.1f}] of {n}"


if __name__ == "__main__":
    for folder in sys.argv[1:]:
        print(folder)
        for key, hits in sorted(score(*open_model(folder, torch.float32, "cpu")).items()):
            print(f"  {key:<18} {interval(hits)}", flush=True)
