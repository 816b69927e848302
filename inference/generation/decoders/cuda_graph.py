"""GPU decoder: a decode step recorded as one CUDA graph that launches hundreds of kernels at once.

The lengths of the sequences are stored and counted on the device, so that one recording serves
every step. A batch that changes (sequences that finish, a storage that grows) is recorded again.
Products that share an input are one product: the weights of q, k, v and of gate, up are stored in
one tensor each, and the network's parameters become views of it with the same values.
"""

import weakref
from collections.abc import Callable, Sequence
from functools import partial

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from inference.generation.cache.cache import Cache
from inference.generation.cache.kv_storage import KVStorage
from inference.generation.decoders.guard import departure
from kernels.add_rms_norm import add_rms_norm
from kernels.decode import FEWEST_ROWS, attend_ring, rotate_and_store
from kernels.gemv import gemv
from kernels.launch import use_triton
from kernels.swiglu import swiglu_of_halves
from model.rotary import rotary_angles
from model.transformer import Block, Mistral

Mix = Callable[[Tensor], Tensor]
"""Queries, keys and values of a layer's new tokens -> the output of attention, before `o_proj`."""
PARAMETERS = {
    *(f"self_attn.{name}_proj.weight" for name in "qkvo"),
    *(f"mlp.{name}_proj.weight" for name in ("gate", "up", "down")),
    *("input_layernorm.weight", "post_attention_layernorm.weight"),
}
"""Parameters of a layer that this decoder computes, without those of adapters."""


def supports_cuda_graph(model: Mistral) -> bool:
    """Check if a step can be recorded: the stock network on a CUDA device, with triton.

    A layer with further parameters, such as a variant with QK-norm, is not supported.
    """
    size = model.config.head_size
    names = {name for name, _ in model.model.layers.named_parameters() if ".lora_" not in name}
    return (
        use_triton(model.lm_head.weight)
        and size >= FEWEST_ROWS
        and size & (size - 1) == 0
        and {name.partition(".")[2] for name in names} == PARAMETERS
        and departure(model) is None
    )


class _Products:
    """x [W1; W2; ...]^T as one product if all are plain, else one after the other."""

    # A weight that was joined in inference mode could never be trained again.
    @torch.inference_mode(False)
    def __init__(self, *linears: nn.Linear) -> None:
        self.linears = linears
        self.weight: Tensor | None = None
        if any(type(linear) is not nn.Linear for linear in linears):
            return
        weights = [linear.weight.detach() for linear in linears]
        rows = sum(map(len, weights))
        if _adjoin(weights):  # one matrix, or parts of one that another `_Products` has made
            self.weight = weights[0].as_strided((rows, weights[0].shape[1]), weights[0].stride())
            return
        self.weight = torch.cat(weights)
        parts = self.weight.split([len(weight) for weight in weights])
        for linear, part in zip(linears, parts, strict=True):
            linear.weight.data = part

    def __call__(
        self, x: Float[Tensor, "N I"], add: Float[Tensor, "N O"] | None = None
    ) -> Float[Tensor, "N O"]:
        if self.weight is not None:
            weight = self.weight
            return F.linear(x, weight) if add is None else torch.addmm(add, x, weight.T)
        outputs = [linear(x) for linear in self.linears]
        product = outputs[0] if len(outputs) == 1 else torch.cat(outputs, -1)
        return product if add is None else product + add


def _adjoin(weights: Sequence[Tensor]) -> bool:
    """True if the matrices are contiguous parts of one tensor."""
    ends = [weight.data_ptr() + weight.nbytes for weight in weights]
    return all(
        weight.data_ptr() == end
        and weight.untyped_storage().data_ptr() == weights[0].untyped_storage().data_ptr()
        for weight, end in zip(weights[1:], ends, strict=False)
    )


class _Layer:
    """One decoder layer."""

    def __init__(self, block: Block) -> None:
        attention, mlp = block.self_attn, block.mlp
        self.norms = (block.input_layernorm, block.post_attention_layernorm)
        self.qkv = _Products(attention.q_proj, attention.k_proj, attention.v_proj)
        self.o = _Products(attention.o_proj)
        self.gate_up, self.down = _Products(mlp.gate_proj, mlp.up_proj), _Products(mlp.down_proj)

    def several(self, x: Float[Tensor, "N D"], mix: Mix) -> Float[Tensor, "N D"]:
        """The layer on the newest token of each sequence."""
        before, between = self.norms
        mixed = self.o(mix(self.qkv(before(x))))
        h, x = add_rms_norm(mixed, x, between.weight, between.eps)
        return self.down(swiglu_of_halves(self.gate_up(h)), add=x)

    def single(self, x: Float[Tensor, "1 D"], mix: Mix) -> Float[Tensor, "1 D"]:
        """The same for one sequence, with the surrounding operations fused into the products."""
        qkv, o, gate_up, down = (
            products.weight for products in (self.qkv, self.o, self.gate_up, self.down)
        )
        if qkv is None or o is None or gate_up is None or down is None:
            return self.several(x, mix)
        before, between = self.norms
        x = gemv(mix(gemv(x, qkv, norm=before.weight, eps=before.eps)), o, add=x)
        gated = gemv(x, gate_up, norm=between.weight, eps=between.eps, gated=True)
        return gemv(gated, down, add=x)


class DecodeStep:
    """The step itself, on buffers that stay where they are.

    Attributes:
        tokens: (N,) the ids that come next.
        lengths: (N,) of the sequences before them; must be right whenever `run` is called.
    """

    def __init__(self, model: Mistral, layers: Sequence[_Layer], storage: KVStorage) -> None:
        self.config, self.model, self.layers = model.config, model, layers
        # Weak references: a recorded graph must not keep an unused storage alive.
        self.storage = weakref.ref(storage)
        self.stored = [weakref.ref(x) for x in (*storage.keys, *storage.values)]
        self.lengths = torch.tensor(storage.lengths, device=storage.keys[0].device)
        self.tokens = torch.zeros_like(self.lengths)

    def is_of(self, storage: KVStorage) -> bool:
        """True if the tensors of the storage are those of the recorded graph."""
        now = (*storage.keys, *storage.values)
        return all(x() is y for x, y in zip(self.stored, now, strict=True))

    def run(self) -> Float[Tensor, "N V"]:
        """Logits after the tokens, whose keys and values are stored; `lengths` grow by one."""
        config = self.config
        rotary = rotary_angles(self.lengths[:, None], config.head_size, config.rope_theta)
        cos, sin = (angle.flatten(1).contiguous() for angle in rotary)
        x = self.model.model.embed_tokens(self.tokens)  # (N, D)
        for number, layer in enumerate(self.layers):
            mix = partial(self._mix, number, cos, sin)
            x = layer.single(x, mix) if len(x) == 1 else layer.several(x, mix)
        self.lengths += 1
        norm, head = self.model.model.norm, self.model.lm_head.weight
        if len(x) == 1:
            return gemv(x, head, norm=norm.weight, eps=norm.eps)
        return F.linear(norm(x), head)

    def _mix(self, number: int, cos: Tensor, sin: Tensor, qkv: Tensor) -> Float[Tensor, "N HE"]:
        heads, storage = qkv.view(len(qkv), -1, self.config.head_size), self.storage()
        assert storage is not None
        stored = (storage.keys[number], storage.values[number])
        asking = self.config.num_attention_heads
        query = rotate_and_store(heads, cos, sin, self.lengths, *stored, asking)
        return attend_ring(query, *stored, self.lengths).flatten(1)


class CudaGraphDecoder:
    """Decode step: ids (N,) and a cache to logits (N, V), as `extend` computes them."""

    def __init__(self, model: Mistral) -> None:
        self.model = model
        self.layers: list[_Layer] = []
        self._step: DecodeStep | None = None
        self._graph: torch.cuda.CUDAGraph | None = None
        self._logits: Tensor | None = None
        self._counted: list[int] = []

    def __call__(self, ids: Int[Tensor, " N"], cache: Cache) -> Float[Tensor, "N V"]:
        storage = cache.storage
        assert len(ids) == len(storage.lengths) == len(cache.sequences)
        storage.reserve(max(storage.lengths) + 1)
        if self._step is None or self._graph is None or not self._step.is_of(storage):
            self._step, self._graph, self._logits = self._record(storage)
        if self._counted != storage.lengths:  # somebody else has gone on with these sequences
            self._step.lengths.copy_(torch.tensor(storage.lengths))
        self._step.tokens.copy_(ids)
        self._graph.replay()
        self._counted = [length + 1 for length in storage.lengths]
        storage.lengths[:] = self._counted
        assert self._logits is not None
        return self._logits.clone()

    def _record(self, storage: KVStorage) -> tuple[DecodeStep, torch.cuda.CUDAGraph, Tensor]:
        """A step, its recording, and where that puts the logits."""
        if not self.layers:
            blocks = self.model.model.layers
            self.layers = [_Layer(block) for block in blocks if isinstance(block, Block)]
        self._step = self._graph = self._logits = None  # frees the former's memory
        step = DecodeStep(self.model, self.layers, storage)
        lengths = step.lengths.clone()
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            step.run()  # compiles what is not compiled; writes only what the first replay writes
            step.lengths.copy_(lengths)
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            logits = step.run()
        self._counted = list(storage.lengths)
        return step, graph, logits
