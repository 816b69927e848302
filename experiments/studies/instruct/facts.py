"""Accuracy of an instruction-tuned toy on facts it was shown, asked in other words.

    python -m experiments.studies.instruct.facts <en or zh> <run or HF folder> ...

Each fact of the embedded sample becomes a question in the chat format, and the option whose whole
answer is likeliest is taken; four options, so chance is 25 %. Two wordings: `reserved`, which no
text contains (`data.sample.probes`), and `frame`, the question of the texts in a frame that
instruction tuning has not used. The instruction data ask for facts with exposures, in other
wordings; the controls (exposures 0) occur nowhere.

An answer that never occurs is unlikely whatever is asked, and the answers of controls never do. So
`calibrated` divides by the probability of the answer to the same question about nothing in
particular (Holtzman et al. 2021, section 3); `plain` does not.
"""

import math
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator

import torch

from data.sample.instructions import answer
from data.sample.knowledge import Fact, facts
from data.sample.probes import Question, questions
from data.sample.prose import finish
from data.sample.wordings import wordings
from model.documents import Documents
from model.labels import IGNORE_INDEX
from model.transformer import Mistral
from pretrained.load import open_model
from tokenizer.chat import Message, encode_conversation, encode_prompt
from tokenizer.tokenizer import Tokenizer

Row = tuple[list[int], int]

FRAMES = {"en": "One more thing: {ask}?", "zh": "还有一件事：{ask}？"}
NOTHING = {"en": "this one", "zh": "这个"}


def asked(question: Question, fact: Fact, wording: str, subject: str) -> str:
    """A question in one of the two wordings, about a subject."""
    written = wordings(question.language)[fact.relation]
    text = written.prompt if wording == "reserved" else FRAMES[question.language]
    return finish(text.replace("{ask}", written.ask).replace("{s}", subject), question.language)


def rows_of(question: Question, text: str, tokenizer: Tokenizer) -> Iterator[Row]:
    """Ids of the question with each answer, and how many of them are the prompt's."""
    user = Message("user", text)
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
        labels = torch.full_like(tokens, IGNORE_INDEX)
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


def score(
    model: Mistral, tokenizer: Tokenizer, language: str, wording: str
) -> dict[str, list[bool]]:
    """Correctness of each answer, by exposure of the fact and by method of counting."""
    known = {fact.id: fact for fact in facts()}
    rows: list[Row] = []
    everything = [question for question in questions() if question.language == language]
    for question in everything:
        fact = known[question.fact_id]
        for subject in (fact.surface(question.language)[0], NOTHING[question.language]):
            rows += rows_of(question, asked(question, fact, wording, subject), tokenizer)
    nats = torch.tensor(likelihoods(model, rows)).view(len(everything), 2, -1)
    counted = {"plain": nats[:, 0], "calibrated": nats[:, 0] - nats[:, 1]}
    right = defaultdict(list)
    for way, values in counted.items():
        for question, choice in zip(everything, values.argmax(1).tolist(), strict=True):
            shown = "shown" if question.exposures else "control"
            right[f"{way} {question.domain} {shown}"].append(choice == question.answer)
    return right


def interval(hits: Iterable[bool]) -> str:
    """Share of hits with its 95 % interval (Wilson 1927)."""
    values = list(hits)
    n, p, z = len(values), sum(values) / len(values), 1.96
    middle = (p + z * z / 2 / n) / (1 + z * z / n)
    half = z * math.sqrt(p * (1 - p) / n + z * z / 4 / n / n) / (1 + z * z / n)
    return f"{100 * p:5.1f} % [{100 * (middle - half):.1f}, {100 * (middle + half):.1f}] of {n}"


if __name__ == "__main__":
    _, language, *folders = sys.argv
    for folder in folders:
        opened = open_model(folder, torch.float32, "cpu")
        for wording in ("frame", "reserved"):
            for key, hits in sorted(score(*opened, language, wording).items()):
                print(f"{folder} {wording:<8} {key:<32} {interval(hits)}", flush=True)
