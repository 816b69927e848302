"""A linear layer with a low-rank update beside its frozen weight: W x + s B A x.

Hu et al. 2021 (LoRA), section 4.1. `model.lora` puts it into a network; `model.adapted` computes
several of them, or a feed-forward of them, at a time.
"""

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

if TYPE_CHECKING:
    from model.lora import LoraConfig


class LoraLinear(nn.Linear):
    """A linear layer with a trained low-rank update beside its frozen weight.

    Attributes:
        lora_A, lora_B: the factors, in fp32 until somebody converts them.
        seeds: (B,) one number per row of the batch that decides what dropout zeroes; None: nothing.
    """

    def __init__(self, base: nn.Linear, config: "LoraConfig") -> None:
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
    """What dropout keeps: a hash of (seed of the row and layer, token, feature), so that it depends
    on neither batch nor rank, and recomputation in the backward pass finds the same."""
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


def salted(seeds: Int[Tensor, " B"], number: int) -> Int[Tensor, " B"]:
    """The rows' seeds for the adapter of this number, so that no two drop alike."""
    return _mix(seeds + _MIX * (number + 1))
