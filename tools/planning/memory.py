"""Memory of one device on paper: weights and optimizer, activations, gathered weights, loss.

The formulas follow the tensors of `parallelize`, `train_step` and `model.loss`.
`tools.planning.simulate` runs that code without data and counts the same. Sizes are in bytes.
"""

from dataclasses import dataclass, replace
from typing import NamedTuple

from kernels.lora_swiglu import MAX_RANK
from model.loss import CHUNK_LOGITS
from tools.planning.run import PlannedRun, WeightCounts
from training.optim import OPTIMIZERS
from training.optimizer import WEIGHT_AND_GRADIENT_BYTES


class StateBytes(NamedTuple):
    """Bytes per trained weight: weight, gradient and moments together, and the gradient alone."""

    total: int
    gradient: int


STATES = {
    f"fp32 weights and gradients, {one.summary}": StateBytes(
        WEIGHT_AND_GRADIENT_BYTES + one.state_bytes, 4
    )
    for one in OPTIMIZERS.values()
} | {"bf16 weights, gradients and moments": StateBytes(8, 2)}
"""Optimizers of this project, and bf16 throughout, which loses updates below 2^-8 of a weight."""
FP32 = next(iter(STATES.values()))
DRIVER_BYTES = int(1.5 * 2**30)
"""Allowance for CUDA's context, NCCL's buffers and gaps of the allocator."""


def state_bytes(weights: WeightCounts, shards: int, per_weight: int) -> int:
    """Trained weights with gradient and moments, and frozen bfloat16 weights, on one of `shards`
    devices."""
    return -(-(weights.trained * per_weight + weights.frozen * 2) // shards)


def layer_activation_bytes(run: PlannedRun) -> int:
    """Activations that autograd keeps per token and layer, in bfloat16, without recomputation.

    They are the input of each norm and of each group of projections (4 D), rotated queries, keys
    and values and the mixed values (2 H E + 2 K E), gate, up, silu(gate) and their product (4 F),
    one fp32 number per norm and per head, and with adapters the output of each A (7 R). A frozen
    linear needs no input, but its adapter does. The compiler recomputes silu(gate); the fused
    adapters on CUDA recompute the product as well.
    """
    config, lora = run.model, run.lora
    heads = 2 * config.num_attention_heads + 2 * config.num_key_value_heads
    attention = 2 * heads * config.head_size + 4 * config.num_attention_heads + 8
    wide = 3 if run.compiled else 4
    if lora is not None and "all" in lora.targets and lora.rank <= MAX_RANK and not lora.dropout:
        wide = 2
    adapters = 2 * 7 * lora.rank if lora else 0
    return 2 * (4 * config.hidden_size + wide * config.intermediate_size) + attention + adapters


def activation_bytes(run: PlannedRun) -> int:
    """Activations of a micro-batch in the whole network between forward and backward.

    `none` keeps everything in all layers. `full` keeps the input of each layer, and everything of
    the one layer that is recomputed. `selective` keeps the outputs of matrix products and
    attention (input, q, k, v, mixed values, results of attention and, if not compiled, of the
    feed-forward, gate and up, with adapters the output of each A), and everything of one layer. If
    some layers are not checkpointed, the recomputed layer is counted in addition to them although
    they come first in backward: at most one layer too many.
    """
    config, layers = run.model, run.weights.layers
    whole = layer_activation_bytes(run)
    if run.checkpointing == "none":
        return run.tokens * layers * whole
    # Products are kept before rotation; attention's inputs are recomputed from them.
    heads = 2 * config.num_attention_heads + 2 * config.num_key_value_heads
    results = (2 if run.compiled else 3) * config.hidden_size
    products = 2 * (results + heads * config.head_size + 2 * config.intermediate_size)
    products += 4 * config.num_attention_heads + (2 * 7 * run.lora.rank if run.lora else 0)
    kept = {"none": whole, "selective": products, "full": 2 * config.hidden_size}
    count = layers if run.checkpointed_layers is None else run.checkpointed_layers
    assert count <= layers
    per_token = count * kept[run.checkpointing] + (layers - count) * kept[run.other_layers] + whole
    return run.tokens * per_token


def loss_bytes(run: PlannedRun) -> int:
    """Peak memory of `model.loss` without hidden states and their gradient.

    One chunk of logits in bfloat16, in fp32 with a second copy (not measured on a GPU) and as a
    gradient; the head's gradient in fp32, and one chunk's share of it in bfloat16. The Triton
    kernel on CUDA has larger chunks, in 16 bits only, and is not counted.
    """
    rows = min(run.tokens, max(1, CHUNK_LOGITS // run.model.num_tokens))
    return rows * run.model.num_tokens * (2 + 4 + 4 + 2) + run.weights.head_trained * (4 + 2)


@dataclass(frozen=True)
class PeakMemory:
    """Peak of one device in bytes.

    Attributes:
        moment: moment of the peak: `loss`, `backward` (its start), `end of backward`, or
            `reduction` (of the root's gradients).
        states: weights, gradients and moments that exist at that moment.
        activations: activations that exist at that moment.
        gathered: bfloat16 copies of weights, and gradients before their reduction.
        loss: logits and the head's gradient.
    """

    moment: str
    states: int
    activations: int
    gathered: int
    loss: int = 0

    @property
    def total(self) -> int:
        """Sum with the allowance for driver and allocator."""
        return self.states + self.activations + self.gathered + self.loss + DRIVER_BYTES


def peak_memory(
    run: PlannedRun, *, shards: int, state: StateBytes = FP32, accumulates: bool = True
) -> PeakMemory:
    """The largest of four moments of a step.

    During the loss, the root and the last block are gathered and all activations exist. At the
    start of backward, in the last layer, two blocks are gathered, and the gradients of one block
    exist in bfloat16 and, for their reduction, in fp32, together with the gradient of the head. At
    the end of backward, in the first layer, the same exists with the activations of that layer
    only. During the reduction of the root's gradients these exist in both dtypes, and no
    activations do. Between these moments memory changes evenly from layer to layer. In a step of
    one micro-batch, gradients appear layer by layer as activations are freed. Frozen weights on
    one device are not gathered.

    Args:
        shards: devices that share the weights.
        state: one of `STATES`.
        accumulates: the step has several micro-batches.
    """
    weights, hidden = run.weights, 2 * run.tokens * run.model.hidden_size
    states = state_bytes(weights, shards, state.total)
    early, late = states, states
    if not accumulates:
        early -= weights.trained * state.gradient // shards
        late -= (weights.root_trained + weights.block_trained) * state.gradient // shards
    layer = run.tokens * layer_activation_bytes(run)
    activations = activation_bytes(run)
    # The recomputed layer exists in backward only.
    forward = activations - (layer if run.checkpointing != "none" else 0)
    root, block = 2 * weights.root, 2 * weights.block
    if run.lora is not None and shards == 1:
        root, block = 2 * weights.root_trained, 2 * weights.block_trained
    backward = root + 2 * block + 2 * weights.head_trained + 6 * weights.block_trained
    moments = [
        # The final norm's input and output, and the gradient of the output.
        PeakMemory("loss", early, forward + 3 * hidden, root + block, loss_bytes(run)),
        PeakMemory("backward", early, activations + 3 * hidden, backward),
        PeakMemory("end of backward", late, layer + 2 * hidden, backward),
        PeakMemory("reduction", states, hidden, root + 6 * weights.root_trained),
    ]
    return max(moments, key=lambda memory: memory.total)


def min_checkpointed_layers(
    run: PlannedRun,
    room: float,
    *,
    shards: int,
    state: StateBytes = FP32,
    accumulates: bool = True,
) -> int | None:
    """The smallest number of layers with the kind `run.checkpointing` whose peak is within `room`
    bytes; None if all layers are too few."""
    for count in range(run.weights.layers + 1):
        tried = replace(run, checkpointed_layers=count)
        if count == 0:
            kind = run.other_layers
            tried = replace(run, checkpointing=kind, checkpointed_layers=None, other_layers="none")
        memory = peak_memory(tried, shards=shards, state=state, accumulates=accumulates)
        if memory.total <= room:
            return count
    return None
