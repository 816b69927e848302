"""Workloads: kinds of work with their sizes, and their form as JSON for another process."""

import json
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Training:
    """Steps of training on random tokens: forward, loss, backward, fused AdamW.

    Sides: `ours` and `peer` (transformers, and PEFT for LoRA), both with `_compile` behind it.

    Attributes:
        shape: fields of `ModelConfig`.
        rows, length: of one step.
        peer_rows: of the peer's, where it has no room for as many.
        dtype: what is computed in; without `masters` also what all weights are kept in.
        masters: keep what is trained, and the moments, in fp32.
        rounded_moments: keep moments of fp32 weights in bfloat16; the peer has nothing like it.
        lora_rank: train updates of all linears of the layers; None: all weights.
        checkpointing: none, selective or full; the peer knows none and full.
        checkpointed_layers: that it is for, on our side; None: all.
        other_layers: none or selective, for the others.
        steps: that are timed, after one that is not.
    """

    shape: dict[str, Any]
    rows: int
    length: int
    dtype: str
    peer_rows: int | None = None
    masters: bool = False
    rounded_moments: bool = False
    lora_rank: int | None = None
    checkpointing: str = "none"
    checkpointed_layers: int | None = None
    other_layers: str = "none"
    steps: int = 4
    device: str = "cpu"


@dataclass(frozen=True, kw_only=True)
class Decoding:
    """Greedy decoding of random prompts.

    Sides: `ours`, and `peer` (transformers' `generate`), also `peer_compile`.

    Attributes:
        shape: fields of `ModelConfig`.
        rows: prompts at a time.
        prompt_tokens, new_tokens: of each.
        dtype: of the weights.
        prefills: times that the prompts are read to time that alone.
    """

    shape: dict[str, Any]
    rows: int
    prompt_tokens: int
    new_tokens: int
    dtype: str
    prefills: int = 3
    device: str = "cpu"


@dataclass(frozen=True, kw_only=True)
class Loss:
    """The output head with its cross-entropy, forward and backward.

    Sides: `ours` (in chunks) and `plain` (all logits at once, the softmax in fp32).

    Attributes:
        supervised: tokens that have a label.
        times: passes that are timed, after one that is not.
    """

    tokens: int
    supervised: int
    ids: int
    width: int
    dtype: str
    times: int = 3
    device: str = "cpu"


@dataclass(frozen=True, kw_only=True)
class Rows:
    """Training rows from a memory-mapped source, packed and stacked. Side: `ours`.

    Attributes:
        documents: of the source, of 600 tokens on average.
        length: tokens per row.
        rows: that are read.
    """

    documents: int
    length: int
    rows: int
    bandwidth_bytes: int = 1 << 28


@dataclass(frozen=True, kw_only=True)
class Tokenizing:
    """Text to ids with one vocabulary. Sides: `ours`, and `peer` (HF `tokenizers`).

    Attributes:
        scale: of the embedded sample, whose general English texts are encoded.
        times: that all texts are encoded.
    """

    scale: float
    times: int = 3
    bandwidth_bytes: int = 1 << 28


@dataclass(frozen=True, kw_only=True)
class Saving:
    """A checkpoint with moments and an HF folder, all in fp32, written and read. Side: `ours`.

    Attributes:
        shape: fields of `ModelConfig`.
        times: that each is done and timed, after once that is not counted.
        place: the folder that all is written to; None: the system's for temporary files.
    """

    shape: dict[str, Any]
    times: int = 10
    place: str | None = None


@dataclass(frozen=True, kw_only=True)
class Kernel:
    """One operation, forward and backward.

    Sides: `ours` (the Triton kernel), `eager` and `compile` (its reference), `liger`.

    Attributes:
        operation: add_rms_norm, rope, swiglu, lora_swiglu or linear_cross_entropy.
        rank: of the adapters.
        width, feed_forward, heads, key_heads, ids: of the network it belongs to.
    """

    operation: str
    tokens: int
    width: int
    feed_forward: int
    heads: int
    key_heads: int
    ids: int
    dtype: str
    rank: int = 8
    times: int = 20
    bandwidth_bytes: int = 1 << 30
    device: str = "cuda"


@dataclass(frozen=True, kw_only=True)
class Attention:
    """Attention of one layer, forward and backward, and its error against fp64.

    Sides: `flash4` and `flash` (the packages flash-attn-4 and flash-attn), `varlen` (torch's),
    `flex`, `banded`, and `sdpa` with a dense mask, as transformers calls it.

    Attributes:
        packed: the row holds documents of unequal length; else one.
        window: keys that a query sees.
    """

    length: int
    packed: bool
    window: int
    heads: int
    key_heads: int
    head_size: int
    dtype: str
    times: int = 10
    device: str = "cuda"


Work = Training | Decoding | Loss | Rows | Tokenizing | Saving | Kernel | Attention
WORKS: dict[str, type[Work]] = {
    kind.__name__: kind
    for kind in (Training, Decoding, Loss, Rows, Tokenizing, Saving, Kernel, Attention)
}


@dataclass(frozen=True)
class Job:
    """One measurement.

    Attributes:
        side: whose.
        threads: of the CPU.
    """

    work: Work
    side: str
    threads: int

    def to_json(self) -> str:
        """The line that `from_json` reads."""
        work = {"kind": type(self.work).__name__, **asdict(self.work)}
        return json.dumps({"work": work, "side": self.side, "threads": self.threads})

    @classmethod
    def from_json(cls, text: str) -> "Job":
        """The job that a process was given.

        Raises:
            ValueError: this is none.
        """
        try:
            told = json.loads(text)
            work = dict(told["work"])
            return cls(WORKS[work.pop("kind")](**work), told["side"], told["threads"])
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{text[:80]!r} describes no measurement: {error!r}") from None
