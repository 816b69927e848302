"""From logits to the next id: filters in HF's order, then a draw that nothing else disturbs.

Order: repetition penalty, temperature, top-k, top-p, min-p. The draw is the inverse distribution
function, in fp64 and the order of ids, at a number that follows from (seed, index of the prompt,
position) alone: neither the batch nor what was drawn before has a part in it.
Dims: N sequences, V ids that stand for a token.
"""

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


@dataclass(kw_only=True)
class SamplingConfig:
    """Sampling of the next tokens, and the length of an answer."""

    max_new_tokens: int = 256
    """Most ids of one answer, its EOS included."""
    temperature: float = 1.0
    """Divides the logits; 0 takes the most probable id (greedy), and no filter matters."""
    top_k: int | None = None
    """Keep the k most probable ids, and those as probable as the k-th."""
    top_p: float = 1.0
    """Keep the fewest most probable ids that together have at least this probability."""
    min_p: float = 0.0
    """Keep ids with at least this share of the most probable one's probability."""
    repetition_penalty: float = 1.0
    """Divides positive logits, and multiplies others, of ids in the prompt or the answer so far
    (Keskar et al. 2019, section 4.1); above 1 discourages them."""
    seed: int = 0
    """The same seed, prompt and index give the same answer."""
    stop: list[str] = field(default_factory=list, metadata={"text": True})
    """Texts that end an answer; they are not part of it."""

    def __post_init__(self) -> None:
        if self.max_new_tokens < 1:
            raise ValueError(f"max_new_tokens={self.max_new_tokens}: must be at least 1")
        if self.temperature != 0 and not 1e-3 <= self.temperature < math.inf:
            raise ValueError(
                f"temperature={self.temperature}: must be finite and at least 0.001, or 0 for "
                "greedy"
            )
        if self.top_k is not None and self.top_k < 1:
            raise ValueError(f"top_k={self.top_k}: must be at least 1; null switches it off")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top_p={self.top_p}: must be in (0, 1]; 1 switches it off")
        if not 0 <= self.min_p <= 1:
            raise ValueError(f"min_p={self.min_p}: must be in [0, 1]; 0 switches it off")
        if not 0 < self.repetition_penalty < math.inf:
            raise ValueError(
                f"repetition_penalty={self.repetition_penalty}: must be positive and finite; 1 "
                "switches it off"
            )
        if "" in self.stop:
            raise ValueError("stop: an empty text would end every answer at once; leave it out")


def penalize(
    logits: Float[Tensor, "N V"], seen: Bool[Tensor, "N V"], penalty: float
) -> Float[Tensor, "N V"]:
    """Make ids that were seen less likely, or more with a penalty below 1."""
    lowered = torch.where(logits > 0, logits / penalty, logits * penalty)
    return torch.where(seen, lowered, logits)


def keep_top_k(logits: Float[Tensor, "N V"], k: int) -> Float[Tensor, "N V"]:
    """Drop what is less probable than the k-th id."""
    least = logits.topk(min(k, logits.shape[-1]), -1).values[:, -1:]
    return logits.masked_fill(logits < least, -math.inf)


def keep_top_p(logits: Float[Tensor, "N V"], p: float) -> Float[Tensor, "N V"]:
    """Keep the fewest most probable ids that reach probability p; at least one."""
    ordered, ids = logits.sort(stable=True, dim=-1, descending=True)
    probabilities = ordered.softmax(-1)
    # An id stays if those before it do not reach p yet.
    reached = probabilities.cumsum(-1) - probabilities >= p
    reached[:, 0] = False
    return logits.masked_fill(torch.zeros_like(reached).scatter_(-1, ids, reached), -math.inf)


def keep_min_p(logits: Float[Tensor, "N V"], p: float) -> Float[Tensor, "N V"]:
    """Drop ids with less than p times the highest probability; the most probable one stays."""
    return logits.masked_fill(logits < logits.amax(-1, keepdim=True) + math.log(p), -math.inf)


def filtered(logits: Float[Tensor, "N V"], config: SamplingConfig) -> Float[Tensor, "N V"]:
    """Logits in fp64 after temperature, top-k, top-p and min-p; -inf for what is dropped."""
    logits = logits.double() / config.temperature
    if config.top_k is not None:
        logits = keep_top_k(logits, config.top_k)
    if config.top_p < 1:
        logits = keep_top_p(logits, config.top_p)
    if config.min_p > 0:
        logits = keep_min_p(logits, config.min_p)
    return logits


def uniform(seed: int, index: int, position: int) -> float:
    """A number in (0, 1) that follows from its arguments, on every platform."""
    digest = hashlib.blake2b(f"{seed}/{index}/{position}".encode(), digest_size=4).digest()
    return (int.from_bytes(digest, "little") + 0.5) / 2**32


def choose(
    logits: Float[Tensor, "N V"],
    seen: Bool[Tensor, "N V"] | None,
    numbers: Sequence[float],
    config: SamplingConfig,
) -> Int[Tensor, " N"]:
    """The next id of each sequence.

    Args:
        seen: ids of prompt and answer so far; needed with a repetition penalty.
        numbers: in (0, 1), one per sequence; not read when greedy.
    """
    if seen is not None:
        logits = penalize(logits.float(), seen, config.repetition_penalty)
    if config.temperature == 0:
        return logits.max(-1).indices  # of equal ones the first; argmax takes a CPU twice as long
    cumulative = filtered(logits, config).softmax(-1).cumsum(-1)
    drawn = torch.tensor(numbers, dtype=torch.float64, device=logits.device)[:, None]
    return torch.searchsorted(cumulative, drawn * cumulative[:, -1:], right=True)[:, 0]
