"""CPU decoder: the network's own forward pass over weights in the layout that oneDNN prefers.

A decode step multiplies one to a few dozen rows with every matrix, so its time is that of reading
the weights. `torch.nn.functional.linear` reads them more slowly than memory allows, and oneDNN
reads a copy in blocks 1.4 to 2.7 times as fast at Mistral-7B's layer shape
(docs/results/performance.md). One row in fp32 gains nothing and uses the plain weights. The copies
are made at first use, with adapters merged; a change of the network needs a new `OneDnnDecoder`.
"""

import copy

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from inference.generation.cache.cache import Cache, extend
from inference.generation.decoders.guard import departure
from model.lora.layer import LoraLinear
from model.transformer import Mistral

_LAYOUT_ROWS = 8
"""Rows that the layout is optimised for; any number of rows may be multiplied."""


def supports_onednn(model: Mistral) -> bool:
    """Decide if a packed copy works here: stock network, CPU, dtype, MKL and oneDNN."""
    libraries = torch.backends.mkldnn.is_available() and torch.backends.mkl.is_available()
    if not libraries or departure(model) is not None:
        return False
    dtype = model.lm_head.weight.dtype
    adapted = any(isinstance(module, LoraLinear) for module in model.modules())
    return (
        all(p.device.type == "cpu" for p in model.parameters())
        and dtype in (torch.float32, torch.bfloat16)
        # A small update would be lost in rounding the sum to bfloat16.
        and (dtype == torch.float32 or not adapted)
    )


class OneDnnDecoder:
    """Decode step: ids (N,) and a cache to logits (N, V), as `extend` computes them."""

    def __init__(self, model: Mistral) -> None:
        # A copy of the modules, which shares all parameters.
        self.network = copy.deepcopy(model, {id(p): p for p in model.parameters()})
        for name, module in list(self.network.named_modules()):
            if isinstance(module, nn.Linear) and ".lora_" not in name:
                parent, _, leaf = name.rpartition(".")
                setattr(self.network.get_submodule(parent), leaf, OneDnnLinear(module))

    def __call__(self, ids: Int[Tensor, " N"], cache: Cache) -> Float[Tensor, "N V"]:
        return extend(self.network, ids[:, None], cache)


class OneDnnLinear(nn.Linear):
    """A linear layer without bias whose weight has a copy that few rows are multiplied with faster.

    Attributes:
        weight: of the layer, with its adapter merged.
        packed: oneDNN's copy, made at first use.
    """

    def __init__(self, linear: nn.Linear) -> None:
        nn.Module.__init__(self)  # nn.Linear's own would allocate and draw a weight
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.weight = nn.Parameter(_merged(linear), requires_grad=False)
        self.register_parameter("bias", None)
        self.packed: Tensor | None = None

    def forward(self, input: Float[Tensor, "*any I"]) -> Float[Tensor, "*any O"]:
        rows = input.reshape(-1, self.in_features)
        if len(rows) == 1 and rows.dtype == torch.float32:
            out = F.linear(rows, self.weight)
        else:
            packed = self.packed
            if packed is None:  # threads that meet here make the same copy
                packed = torch.ops.mkldnn._reorder_linear_weight(self.weight, _LAYOUT_ROWS)
                self.packed = packed
            out = torch.ops.mkldnn._linear_pointwise(rows, packed, None, "none", [], "")
        return out.view(*input.shape[:-1], self.out_features)


def _merged(linear: nn.Linear) -> Tensor:
    """The weight, with the linear's adapter if it has one."""
    weight = linear.weight.detach()
    if isinstance(linear, LoraLinear):
        a, b = linear.lora_A.weight.detach().float(), linear.lora_B.weight.detach().float()
        return (weight.float() + linear.scale * (b @ a)).to(weight.dtype)
    return weight
