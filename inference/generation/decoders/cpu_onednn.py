"""A decode step whose weights lie as few-row products want them, for CPUs.

With one to a few dozen rows, a product costs the reading of its weights, and PyTorch's own `linear`
reads them more slowly than memory allows, on some processors several times (docs/generation.md).
Here q, k, v are one product, over weights that oneDNN has laid out in blocks, and what follows a
product happens in it. A single row in fp32 instead meets the plain weights: as it comes on Intel's
processors, where MKL reads them as fast as memory allows, and on others in a batched product over
slices. The laid-out weights are a copy, made when first needed, of the weights as they are then:
low-rank updates are merged into it, and a change of the network asks for a new `PackedMistral`.
"""

from functools import cache
from pathlib import Path

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from inference.generation.cache.cache import Cache
from inference.generation.decoders.guard import departure
from model.lora_linear import LoraLinear
from model.norm import RMSNorm
from model.rotary import rotary_angles, rotate
from model.transformer import Block, Mistral

_HINT = 8
"""Rows that the layout is made for; it serves any number."""


def can_pack(model: Mistral) -> bool:
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


class PackedLinear:
    """One product x [W1; W2; ...]^T in place of several, with what follows it.

    Args:
        linears: without biases, of equally many inputs.
    """

    def __init__(self, *linears: nn.Linear) -> None:
        self.weights = [merged(linear) for linear in linears]
        self.slices = [_sliced(weight) for weight in self.weights] if _mkl_is_slow() else None
        self.plain_row = self.weights[0].dtype == torch.float32
        self.packed: Tensor | None = None

    def __call__(
        self, x: Float[Tensor, "N I"], *, add: Tensor | None = None, times: Tensor | None = None
    ) -> Float[Tensor, "N O"]:
        """The product, plus or times a tensor of its shape."""
        if len(x) == 1 and self.plain_row:
            out = self._row(x)
            if add is not None:
                out = out + add
            return out if times is None else out * times
        weight = self._pack()
        if add is not None:
            return torch.ops.mkldnn._linear_pointwise.binary(x, add, weight, None, "add")
        if times is not None:
            return torch.ops.mkldnn._linear_pointwise.binary(x, times, weight, None, "mul")
        return torch.ops.mkldnn._linear_pointwise(x, weight, None, "none", [], "")

    def silu(self, x: Float[Tensor, "N I"]) -> Float[Tensor, "N O"]:
        """silu of the product."""
        if len(x) == 1 and self.plain_row:
            return F.silu(self._row(x))
        return torch.ops.mkldnn._linear_pointwise(x, self._pack(), None, "swish", [], "")

    def _row(self, x: Float[Tensor, "1 I"]) -> Float[Tensor, "1 O"]:
        if self.slices is None:
            parts = [F.linear(x, weight) for weight in self.weights]
            return parts[0] if len(parts) == 1 else torch.cat(parts, -1)
        width = x.shape[1]
        parts = []
        for weight in self.slices:
            # These strides make MKL read the slices side by side; others are five times slower.
            column = x.as_strided((len(weight), width, 1), (0, 1, width))
            parts.append(torch.bmm(weight, column).view(1, -1))
        return parts[0] if len(parts) == 1 else torch.cat(parts, -1)

    def _pack(self) -> Tensor:
        packed = self.packed
        if packed is None:
            whole = self.weights[0] if len(self.weights) == 1 else torch.cat(self.weights)
            packed = self.packed = torch.ops.mkldnn._reorder_linear_weight(whole, _HINT)
        return packed


@cache
def _mkl_is_slow() -> bool:
    """Whether MKL's products of one row leave most of the memory's rate unused: not on Intel's."""
    file = Path("/proc/cpuinfo")
    return not (file.exists() and "GenuineIntel" in file.read_text(encoding="utf-8"))


def merged(linear: nn.Linear) -> Tensor:
    """The weight, with the linear's adapter if it has one."""
    weight = linear.weight.detach()
    if isinstance(linear, LoraLinear):
        a, b = linear.lora_A.weight.detach().float(), linear.lora_B.weight.detach().float()
        return (weight.float() + linear.scale * (b @ a)).to(weight.dtype)
    return weight


def _sliced(weight: Tensor) -> Float[Tensor, "slices rows I"]:
    """Views of a matrix, several for each thread."""
    count, wanted = 1, 4 * torch.get_num_threads()
    while count < wanted and weight.shape[0] % (2 * count) == 0:
        count *= 2
    return weight.unflatten(0, (count, -1))


class _Norm:
    """RMSNorm of a few rows, in fewer operations."""

    def __init__(self, norm: RMSNorm) -> None:
        width = norm.weight.shape[0]
        # x / sqrt(mean(x^2) + eps) = x sqrt(D) / sqrt(|x|^2 + D eps)
        self.weight = norm.weight.detach().float() * width**0.5
        self.eps = torch.tensor(width * norm.eps, dtype=torch.float32)

    def __call__(self, x: Float[Tensor, "N D"]) -> Float[Tensor, "N D"]:
        exact = x.float()
        size = torch.linalg.vector_norm(exact, dim=-1, keepdim=True)
        scale = torch.addcmul(self.eps, size, size).rsqrt_()
        return (exact * scale * self.weight).to(x.dtype)


class _Layer:
    """One decoder layer."""

    def __init__(self, block: Block) -> None:
        attention, mlp = block.self_attn, block.mlp
        self.norms = (_Norm(block.input_layernorm), _Norm(block.post_attention_layernorm))
        self.qkv = PackedLinear(attention.q_proj, attention.k_proj, attention.v_proj)
        self.o = PackedLinear(attention.o_proj)
        self.gate, self.up = PackedLinear(mlp.gate_proj), PackedLinear(mlp.up_proj)
        self.down = PackedLinear(mlp.down_proj)


class PackedMistral:
    """The network's decode step: `packed(tokens, cache)` is `model(tokens, cache=cache)`."""

    def __init__(self, model: Mistral) -> None:
        self.config = config = model.config
        self.backend = model.backend
        self.heads = (config.num_attention_heads, config.num_key_value_heads)
        self.embed_tokens, self.norm = model.model.embed_tokens, _Norm(model.model.norm)
        self.layers = [_Layer(block) for block in model.model.layers if isinstance(block, Block)]
        self.head = PackedLinear(model.lm_head)

    def __call__(self, tokens: Int[Tensor, "N 1"], cache: Cache) -> Float[Tensor, "N 1 V"]:
        queries, keys = self.heads
        step = cache.begin(tokens, None, self.backend)
        rotary = rotary_angles(step.positions, self.config.head_size, self.config.rope_theta)
        x = self.embed_tokens(tokens[:, 0])  # (N, D)
        for number, layer in enumerate(self.layers):
            qkv = layer.qkv(layer.norms[0](x)).view(len(x), 1, -1, self.config.head_size)
            turned = rotate(qkv[:, :, : queries + keys], rotary)
            query, key = turned.split(self.heads, 2)
            mixed = step.attend(number, query, key, qkv[:, :, queries + keys :])
            x = layer.o(mixed.flatten(1), add=x)
            h = layer.norms[1](x)
            x = layer.down(layer.up(h, times=layer.gate.silu(h)), add=x)
        step.finish()
        return self.head(self.norm(x))[:, None]
