"""Prompts as requests of the network, with the ids of the whole text.

The ids of an answer are those in the text after its context, not those of the answer alone. If a
tokenizer joins the end of the context with an answer (a grown vocabulary may have a piece `：A`),
no boundary of ids separates them. Then the boundary shifts back to the last point at which the ids
of all answers agree, and every answer is scored with all ids after that point. The number of
questions with a shift is reported.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from evaluation.benchmarks.items import LETTERS
from evaluation.multiple_choice.prompts import Prompt
from evaluation.scoring.requests import Request
from inference.generation.generate import context_limit
from model.config import ModelConfig
from tokenizer.tokenizer import Tokenizer

TEXTS_AT_ONCE = 4096
"""Texts that are encoded together; some megabytes."""


class EncodedPrompt(NamedTuple):
    """A prompt as ids.

    Attributes:
        boundary_shift: number of ids of the context that are scored with the answers; mostly 0.
    """

    request: Request
    boundary_shift: int


def encode_prompts(prompts: Sequence[Prompt], tokenizer: Tokenizer) -> list[EncodedPrompt]:
    """Encode prompts in order; prompts with equal `shared` text share a prefix.

    Raises:
        ValueError: two letters of a question have equal ids.
    """
    groups: dict[str, list[int]] = {}
    for n, prompt in enumerate(prompts):
        groups.setdefault(prompt.shared, []).append(n)
    is_boundary = newline_is_boundary(tokenizer)
    encoded: dict[int, EncodedPrompt] = {}
    for shared, places in groups.items():
        group = [prompts[n] for n in places]
        is_separate = is_boundary and shared.endswith("\n")
        encoded |= zip(places, _encode_group(shared, group, tokenizer, is_separate), strict=True)
    return [encoded[n] for n in range(len(prompts))]


def newline_is_boundary(tokenizer: Tokenizer) -> bool:
    """Decide if no id covers text on both sides of a line break.

    True if the line break is a separate piece (a byte, in sentencepiece's models) and no other
    piece contains one. Text after a line break then has the same ids whatever precedes the break.
    """
    ids = tokenizer.encode("a\nb")
    pieces = [tokenizer.piece(id) for id in range(tokenizer.vocab_size)]
    return (
        tokenizer.decode(ids) == "a\nb"
        and sum(pieces[id] in ("\n", "<0x0A>") for id in ids) == 1
        and not any("\n" in piece and piece != "\n" for piece in pieces)
    )


def check_lengths(
    prompts: Sequence[Prompt], requests: Sequence[Request], config: ModelConfig
) -> None:
    """ValueError if a prompt is longer than the network's context."""
    limit = context_limit(config)
    for prompt, request in zip(prompts, requests, strict=True):
        longest = len(request.prefix) + len(request.body) + max(map(len, request.endings))
        if limit is not None and longest > limit:
            raise ValueError(
                f"{prompt.place}: the prompt has {longest:,} tokens, but a model without a sliding "
                f"window takes max_position_embeddings={limit:,}; choose fewer shots"
            )


def _encode_group(
    shared: str, prompts: list[Prompt], tokenizer: Tokenizer, is_separate: bool
) -> list[EncodedPrompt]:
    """Prompts of one shared text; `is_separate`: its ids do not depend on the text after it."""
    start = [tokenizer.bos_id, *tokenizer.encode(shared)]
    texts = [text for p in prompts for text in (p.body, *(p.body + end for end in p.endings))]
    if is_separate:
        spelled = _encode_all("\n", texts, tokenizer, start, len(tokenizer.encode("\n")))
    else:
        spelled = _encode_all(shared, texts, tokenizer, [tokenizer.bos_id], 0)
    split = []
    for prompt in prompts:
        context = next(spelled)
        split.append(_split(prompt, context, [next(spelled) for _ in prompt.endings]))
    # The ids at the end of the shared text may differ; the body keeps at least one id.
    common = min(_common(start[: len(context) - 1], context) for context, _, _ in split)
    prefix = tuple(start[:common])
    return [
        EncodedPrompt(Request(prefix, tuple(context[common:]), tuple(map(tuple, endings))), shift)
        for context, endings, shift in split
    ]


def _encode_all(
    before: str, texts: list[str], tokenizer: Tokenizer, start: list[int], drop: int
) -> Iterator[list[int]]:
    """`start`, then the ids of `before + text` without the first `drop`, for each text."""
    for first in range(0, len(texts), TEXTS_AT_ONCE):
        whole = [before + text for text in texts[first : first + TEXTS_AT_ONCE]]
        for ids in tokenizer.encode_batch(whole):
            yield start + ids[drop:]


def _split(
    prompt: Prompt, context: list[int], whole: list[list[int]]
) -> tuple[list[int], list[list[int]], int]:
    """Context, endings and boundary shift."""
    border = min(_common(context, ids) for ids in whole)
    endings = [ids[border:] for ids in whole]
    if not all(endings):
        raise ValueError(
            f"{prompt.place}: an answer has no ids with this tokenizer; choose another scoring, or "
            "omit the task"
        )
    # In a cloze two options may be the same letter; they are then equally likely.
    distinct = len(set(map(tuple, endings)))
    if set(prompt.choices) <= set(LETTERS) and distinct < len(set(prompt.choices)):
        raise ValueError(
            f"{prompt.place}: two of the letters {', '.join(prompt.choices)} have equal ids; "
            "choose scoring=cloze, or omit the task"
        )
    return context[:border], endings, len(context) - border


def _common(one: list[int], other: list[int]) -> int:
    """Length of the longest common prefix."""
    shorter = min(len(one), len(other))
    if one[:shorter] == other[:shorter]:  # the common case, and fast
        return shorter
    return next(n for n in range(shorter) if one[n] != other[n])
