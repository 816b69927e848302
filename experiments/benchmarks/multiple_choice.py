"""Time five-shot multiple choice against transformers: same prompts, weights, process.

    python -m experiments.benchmarks.multiple_choice <mmlu.zip> <tokenizer.model> \
        [float32|bfloat16] [rounds]

The first 40 test questions of three subjects of MMLU behind the five solved ones of each. An answer
is the letter that the network, which has random weights (the shape of `model=small`, a window of
4,096), finds likeliest. Ours is `evaluation.scoring.loglikelihood.score`; transformers is given
whole prompts,
alone and in padded batches of 8, sorted by length. Both compute the logits of last positions only;
a further row has ours score every context, too. The sides take turns, and CPU seconds are printed
with those of the clock, because they are more reliable where other work shares the cores.
"""

import csv
import io
import statistics
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import AutoModelForCausalLM

from evaluation.scoring.loglikelihood import score
from evaluation.scoring.requests import Request
from model.config import ModelConfig
from model.transformer import Mistral
from model.weights import InitialWeights, fill
from pretrained.safetensors_folder import load_pretrained, save_pretrained
from tokenizer.tokenizer import Tokenizer

SUBJECTS = ("high_school_geography", "astronomy", "prehistory")
QUESTIONS = 40
LETTERS = "ABCD"


@dataclass(frozen=True)
class Sides:
    """The same network twice.

    Attributes:
        letters: the ids that are compared.
    """

    ours: Mistral
    theirs: Any
    letters: list[int]


def block(row: list[str], answer: str) -> str:
    """One question as text."""
    options = "".join(f"\n{letter}. {text}" for letter, text in zip(LETTERS, row[1:5], strict=True))
    return f"{row[0]}{options}\nAnswer:{answer}"


def read_requests(archive: zipfile.ZipFile, tokenizer: Tokenizer) -> list[Request]:
    """Prompts, cut where the demonstrations end."""

    def rows(split: str, subject: str) -> list[list[str]]:
        text = archive.read(f"data/{split}/{subject}_{split}.csv").decode()
        return list(csv.reader(io.StringIO(text)))

    requests = []
    endings = tuple((ids,) for ids in letter_ids(tokenizer))
    for subject in SUBJECTS:
        head = f"Questions about {subject.replace('_', ' ')}.\n\n"
        solved = "\n\n".join(block(row, f" {row[5]}") for row in rows("dev", subject)[:5])
        prefix = (tokenizer.bos_id, *tokenizer.encode(head + solved))
        for row in rows("test", subject)[:QUESTIONS]:
            body = tokenizer.encode("\n\n" + block(row, ""))
            requests.append(Request(prefix, tuple(body), endings))
    return requests


def letter_ids(tokenizer: Tokenizer) -> list[int]:
    """Id that follows `Answer:` for each letter."""
    return [tokenizer.encode(f"Answer: {letter}")[-1] for letter in LETTERS]


def open_sides(tokenizer: Tokenizer, dtype: torch.dtype) -> Sides:
    """Random weights, written as an HF folder and read by both."""
    config = ModelConfig(
        vocab_size=tokenizer.vocab_size,
        hidden_size=512,
        intermediate_size=1792,
        num_hidden_layers=8,
        num_attention_heads=8,
        num_key_value_heads=2,
        sliding_window=4096,
    )
    model = Mistral(config)
    fill(model, InitialWeights(model, seed=0))
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "model"
        save_pretrained(model, folder)
        ours = load_pretrained(folder, dtype=dtype, device="cpu")
        theirs = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype).eval()
    return Sides(ours, theirs, letter_ids(tokenizer))


def by_us(sides: Sides, requests: list[Request], *, context: bool = False) -> list[int]:
    """The option chosen for each request."""
    chosen = dict.fromkeys(range(len(requests)), -1)
    for index, scored in score(sides.ours, requests, context=context):
        chosen[index] = min(range(len(LETTERS)), key=scored.endings.__getitem__)
    return list(chosen.values())


@torch.inference_mode()
def by_them(sides: Sides, requests: list[Request], batch: int) -> list[int]:
    """The option chosen for each request, `batch` of them at a time."""
    prompts = [[*request.prefix, *request.body] for request in requests]
    order = sorted(range(len(prompts)), key=lambda n: len(prompts[n]))
    chosen = [-1] * len(prompts)
    for first in range(0, len(order), batch):
        part = order[first : first + batch]
        longest = max(len(prompts[n]) for n in part)
        tokens = torch.zeros(len(part), longest, dtype=torch.int64)
        mask = torch.zeros_like(tokens)
        for row, n in enumerate(part):  # padded on the left, so that the last position is real
            tokens[row, -len(prompts[n]) :] = torch.tensor(prompts[n])
            mask[row, -len(prompts[n]) :] = 1
        options = {"use_cache": False, "logits_to_keep": 1}
        if batch > 1:
            options |= {"attention_mask": mask, "position_ids": (mask.cumsum(1) - 1).clamp(min=0)}
        logits = sides.theirs(tokens, **options).logits[:, -1, sides.letters]
        for n, best in zip(part, logits.argmax(1).tolist(), strict=True):
            chosen[n] = best
    return chosen


def main(archive: str, tokenizer: str, dtype: str = "float32", rounds: str = "1") -> None:
    """Print the seconds of each side, the ratios, and how many answers agree."""
    opened = Tokenizer.open(tokenizer)
    with zipfile.ZipFile(archive) as opened_archive:
        requests = read_requests(opened_archive, opened)
    sides = open_sides(opened, getattr(torch, dtype))
    shared = sum({request.prefix: len(request.prefix) for request in requests}.values())
    bodies = sum(len(request.body) for request in requests)
    whole = sum(len(request.prefix) + len(request.body) for request in requests)
    print(
        f"torch {torch.__version__}, transformers {transformers.__version__}, {dtype}, "
        f"{torch.get_num_threads()} threads; {len(requests)} prompts of {whole:,} tokens, "
        f"{shared + bodies:,} with each prefix once"
    )
    runs: dict[str, Callable[[], list[int]]] = {
        "ours": lambda: by_us(sides, requests),
        "ours, contexts too": lambda: by_us(sides, requests, context=True),
        "transformers, 1 at a time": lambda: by_them(sides, requests, 1),
        "transformers, 8 at a time": lambda: by_them(sides, requests, 8),
    }
    seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in runs}
    chosen = {}
    by_us(sides, requests[:2])
    by_them(sides, requests[:2], 2)
    for _ in range(int(rounds)):
        for name, run in runs.items():
            begin = time.perf_counter(), time.process_time()
            chosen[name] = run()
            end = time.perf_counter(), time.process_time()
            seconds[name].append((end[0] - begin[0], end[1] - begin[1]))
    ours = [statistics.median(times) for times in zip(*seconds["ours"], strict=True)]
    for name, pairs in seconds.items():
        each = [statistics.median(times) for times in zip(*pairs, strict=True)]
        clock, cpu = each[0] / ours[0], each[1] / ours[1]
        equal = sum(a == b for a, b in zip(chosen[name], chosen["ours"], strict=True))
        print(
            f"{name}: {each[0]:.1f} s, {each[1]:.1f} CPU s; {clock:.2f} and {cpu:.2f} x ours; "
            f"{equal} of {len(requests)} answers as ours"
        )


if __name__ == "__main__":
    main(*sys.argv[1:])
