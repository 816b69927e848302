"""Linear layer with a low-rank update: W x + s B A x; A (R, I) and B (O, R) are trained, W is not.

Hu et al. 2021 (LoRA), section 4.1; scale s = alpha / R, or alpha / sqrt(R) (rsLoRA, Kalajdzievski
2023); B may learn faster than A (LoRA+, Hayou et al. 2024). `model.adapters` puts these layers into
a network, `model.lora.fused` computes several of them together.
"""

import math
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

EMBEDDING_MODULE, HEAD_MODULE = "embed_tokens", "lm_head"
SAVED_NAMES = {EMBEDDING_MODULE: "model.embed_tokens.weight", HEAD_MODULE: "lm_head.weight"}


@dataclass(kw_only=True)
class _Adaptation:
    """Targets and options of the adapter, without the size of the updates."""

    dropout: float = 0.0
    """Share of the inputs of A that training zeroes; the choice follows from (seed, row)."""
    rslora: bool = False
    """Scale by alpha / sqrt(rank), which keeps the size of updates equal at any rank."""
    targets: list[str] = field(default_factory=lambda: ["all"])
    """Linears of the layers to adapt: `all`; the end of a name (`q_proj`, `mlp.up_proj`); or a
    regular expression for the whole name (`.*layers\\.[0-3]\\..*_proj`)."""
    modules_to_save: list[str] = field(default_factory=list)
    """`embed_tokens`, `lm_head`: trained whole, in addition to the updates, and saved with them, as
    a grown vocabulary needs."""
    lr_ratio: float = 1.0
    """Learning rate of B relative to that of A (LoRA+); 1 is plain LoRA."""

    def __post_init__(self) -> None:
        rank, alpha = getattr(self, "rank", None), getattr(self, "alpha", None)
        if rank is not None and rank < 1:
            raise ValueError(f"lora.rank={rank}: must be at least 1")
        for name, value in (("alpha", alpha), ("lr_ratio", self.lr_ratio)):
            if value is not None and not (math.isfinite(value) and value > 0):
                raise ValueError(f"lora.{name}={value}: must be positive and finite")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"lora.dropout={self.dropout}: must be in [0, 1)")
        if not self.targets:
            raise ValueError("lora.targets: empty; name linears, or set lora=none")
        for name in self.modules_to_save:
            if name not in SAVED_NAMES:
                raise ValueError(
                    f"lora.modules_to_save: {name!r}; only {', '.join(SAVED_NAMES)} can be trained "
                    "whole (all else is a target)"
                )


@dataclass(kw_only=True)
class LoraConfig(_Adaptation):
    """Targets and options of the adapter."""

    rank: int
    """R: the rank of each update."""
    alpha: float
    """Scale of the updates: alpha / rank, or alpha / sqrt(rank) with `rslora`."""

    @property
    def scale(self) -> float:
        """Factor of B A."""
        return self.alpha / (math.sqrt(self.rank) if self.rslora else self.rank)


@dataclass(kw_only=True)
class LoraOptions(_Adaptation):
    """Adapter options of a run; see `settle`."""

    rank: int | None = None
    """R: the rank of each update; null (lora=continued): that of the adapter that `init_from`
    names, with its alpha, rslora, targets and modules_to_save."""
    alpha: float | None = None
    """Scale of the updates: alpha / rank, or alpha / sqrt(rank) with `rslora`; null: see `rank`."""


class LoraLinear(nn.Linear):
    """A linear layer with a frozen weight and a trained low-rank update.

    Attributes:
        lora_A, lora_B: the factors, in fp32 until somebody converts them.
        seeds: (B,) one number per row of the batch that decides what dropout zeroes; None: nothing.
    """

    def __init__(self, base: nn.Linear, config: LoraConfig) -> None:
        nn.Module.__init__(self)  # nn.Linear's own would allocate and draw a weight
        assert base.bias is None
        self.in_features, self.out_features = base.in_features, base.out_features
        self.weight = base.weight.requires_grad_(False)
        self.register_parameter("bias", None)
        options = {"bias": False, "device": base.weight.device, "dtype": torch.float32}
        self.lora_A = nn.Linear(base.in_features, config.rank, **options)
        self.lora_B = nn.Linear(config.rank, base.out_features, **options)
        self.scale = config.scale
        self.dropout = config.dropout
        self.seeds: Tensor | None = None

    def forward(self, input: Float[Tensor, "*any I"]) -> Float[Tensor, "*any O"]:
        x = kept = input
        if self.seeds is not None:
            keep = dropout_mask(self.seeds, x.shape[-2], x.shape[-1], self.dropout)
            kept = x * keep / (1 - self.dropout)
        out = F.linear(x.reshape(-1, self.in_features), self.weight)
        low = self.lora_A(kept.reshape(-1, self.in_features))
        if torch.compiler.is_compiling():  # which adds in the pass that reads the sum next
            out = out + self.lora_B(low * self.scale)
        else:
            # One operation scales the update and adds it; as three, each passes over all of memory.
            out = torch.addmm(out, low, self.lora_B.weight.T, alpha=self.scale)
        return out.view(*x.shape[:-1], self.out_features)


def dropout_mask(
    seeds: Int[Tensor, " B"], length: int, width: int, rate: float
) -> Bool[Tensor, "B T I"]:
    """Mask of the inputs that dropout keeps.

    It is a hash of (seed of the row and layer, token, feature), so it depends on neither batch nor
    rank, and recomputation in the backward pass gives the same mask."""
    token, feature = (torch.arange(n, device=seeds.device) for n in (length, width))
    per_token = _mix(seeds[:, None] + _mix(token))
    return _mix(per_token[..., None] + _mix(feature)) >= int(rate * 2**32)


_MIX = 0x45D9F3B  # odd and below 2^31, so that no product of it leaves 63 bits


def _mix(x: Tensor) -> Tensor:
    """Scramble 32-bit numbers held in int64: xor-shift and multiply, twice."""
    x = x & 0xFFFFFFFF
    for _ in range(2):
        x = ((x ^ (x >> 16)) * _MIX) & 0xFFFFFFFF
    return x ^ (x >> 16)


def per_layer_seeds(seeds: Int[Tensor, " B"], number: int) -> Int[Tensor, " B"]:
    """The rows' seeds for the adapter of this number, so that no two adapters share a mask."""
    return _mix(seeds + _MIX * (number + 1))
