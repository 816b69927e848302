"""Prompts as ids: what is asked of the network, exactly as the tokenizer spells the whole text.

The ids of an answer are those that it has behind its context, never those that it has alone. Where
a tokenizer joins the two (a grown vocabulary may have a piece `：A`), there is no border between
them; then the border moves back to where all spellings are still the same, and every answer is
scored with all the ids from there on. How often that happened is reported.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from evaluation.benchmarks.items import LETTERS
from evaluation.multiple_choice.prompts import Prompt
from evaluation.scoring.requests import Request
from inference.generation.generate import context_limit
from model.config import ModelConfig
from tokenizer.tokenizer import Tokenizer

TEXTS_AT_ONCE = 4096
"""Spelled together; some megabytes of text."""


@dataclass(frozen=True)
class Encoded:
    """A prompt as ids.

    Attributes:
        moved: ids of the context that are scored with the answers, for want of a border; mostly 0.
    """

    request: Request
    moved: int


def encode_prompts(prompts: Sequence[Prompt], tokenizer: Tokenizer) -> list[Encoded]:
    """All prompts, in order; those of one `shared` text share one prefix.

    Raises:
        ValueError: the tokenizer cannot tell the letters of a question apart.
    """
    groups: dict[str, list[int]] = {}
    for n, prompt in enumerate(prompts):
        groups.setdefault(prompt.shared, []).append(n)
    apart = keeps_lines_apart(tokenizer)
    encoded: dict[int, Encoded] = {}
    for shared, places in groups.items():
        group = [prompts[n] for n in places]
        options = (shared, group, tokenizer, apart and shared.endswith("\n"))
        encoded |= zip(places, _encode_group(*options), strict=True)
    return [encoded[n] for n in range(len(prompts))]


def keeps_lines_apart(tokenizer: Tokenizer) -> bool:
    """Whether no id stands for text on both sides of a line break, whatever the text.

    So it is where a break is a piece of its own (a byte, in sentencepiece's models) and no other
    piece has one. What follows a break can then be spelled without what precedes it.
    """
    ids = tokenizer.encode("a\nb")
    pieces = [tokenizer.piece(id) for id in range(tokenizer.vocab_size)]
    return (
        tokenizer.decode(ids) == "a\nb"
        and sum(pieces[id] in ("\n", "<0x0A>") for id in ids) == 1
        and not any("\n" in piece and piece != "\n" for piece in pieces)
    )


def check_lengths(
    prompts: Sequence[Prompt], encoded: Sequence[Encoded], config: ModelConfig
) -> None:
    """ValueError if a prompt is longer than the network can read."""
    limit = context_limit(config)
    for prompt, one in zip(prompts, encoded, strict=True):
        request = one.request
        longest = len(request.prefix) + len(request.body) + max(map(len, request.endings))
        if limit is not None and longest > limit:
            raise ValueError(
                f"{prompt.place}: the question with all that precedes it has {longest:,} tokens, a "
                f"model without a sliding window takes max_position_embeddings={limit:,}; choose "
                "fewer shots"
            )


def _encode_group(
    shared: str, prompts: list[Prompt], tokenizer: Tokenizer, apart: bool
) -> list[Encoded]:
    """Prompts of one shared text; `apart`: its ids are the same whatever follows it."""
    start = [tokenizer.bos_id, *tokenizer.encode(shared)]
    texts = [text for p in prompts for text in (p.body, *(p.body + end for end in p.endings))]
    if apart:
        spelled = _encode_all("\n", texts, tokenizer, start, len(tokenizer.encode("\n")))
    else:
        spelled = _encode_all(shared, texts, tokenizer, [tokenizer.bos_id], 0)
    split = []
    for prompt in prompts:
        context = next(spelled)
        split.append(_split(prompt, context, [next(spelled) for _ in prompt.endings]))
    # Spellings may differ from the shared text's own at its end; the body keeps one id at least.
    common = min(_common(start[: len(context) - 1], context) for context, _, _ in split)
    prefix = tuple(start[:common])
    return [
        Encoded(Request(prefix, tuple(context[common:]), tuple(map(tuple, endings))), moved)
        for context, endings, moved in split
    ]


def _encode_all(
    before: str, texts: list[str], tokenizer: Tokenizer, start: list[int], drop: int
) -> Iterator[list[int]]:
    """`start`, then the ids of each text behind `before` without the first `drop` of them."""
    for first in range(0, len(texts), TEXTS_AT_ONCE):
        whole = [before + text for text in texts[first : first + TEXTS_AT_ONCE]]
        for ids in tokenizer.encode_batch(whole):
            yield start + ids[drop:]


def _split(
    prompt: Prompt, context: list[int], whole: list[list[int]]
) -> tuple[list[int], list[list[int]], int]:
    """Context, endings, and by how many ids the border between them has moved back."""
    border = min(_common(context, ids) for ids in whole)
    endings = [ids[border:] for ids in whole]
    if not all(endings):
        raise ValueError(
            f"{prompt.place}: the tokenizer has no ids for an answer; choose another scoring, or "
            "leave the task out"
        )
    # In a cloze, two options may be the same letter: such options are equally likely, and no fault.
    distinct = len(set(map(tuple, endings)))
    if set(prompt.choices) <= set(LETTERS) and distinct < len(set(prompt.choices)):
        raise ValueError(
            f"{prompt.place}: the tokenizer spells two of the letters {', '.join(prompt.choices)} "
            "alike; choose scoring=cloze, or leave the task out"
        )
    return context[:border], endings, len(context) - border


def _common(one: list[int], other: list[int]) -> int:
    """Length of the longest common beginning."""
    shorter = min(len(one), len(other))
    if one[:shorter] == other[:shorter]:  # mostly, and found fast
        return shorter
    return next(n for n in range(shorter) if one[n] != other[n])
