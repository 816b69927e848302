"""Memory of one device on paper: weights and optimizer, activations, what sharding gathers, loss.

Every formula follows the tensors that `parallelize`, `train_step` and `model.loss` keep;
`tools.planning.simulate` counts the same by running that code without data. Sizes are bytes.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch

from kernels.lora_swiglu import MAX_RANK
from model.adapters import add_lora, check_rank
from model.config import ModelConfig
from model.lora.layer import LoraConfig
from model.loss import CHUNK_LOGITS
from model.transformer import Mistral


class Recipe(NamedTuple):
    """Bytes per trained weight: of all its states, and of the gradient among them."""

    state: int
    gradient: int


STATES = {
    "fp32 weights, gradients and moments (train.py)": Recipe(16, 4),
    "fp32 weights and gradients, bf16 moments (optim.moment_dtype=bfloat16)": Recipe(12, 4),
    "bf16 weights, gradients and moments": Recipe(8, 2),
}
"""The first two are what this project trains with; the last loses updates below 2^-8 of a
weight."""
TRAIN = STATES["fp32 weights, gradients and moments (train.py)"]
DRIVER_BYTES = int(1.5 * 2**30)
"""CUDA's context, NCCL's buffers and the allocator's gaps: an allowance, not a formula."""


@dataclass(frozen=True)
class Weights:
    """How many weights there are, and how many of them train.

    Attributes:
        block, block_trained: of one layer, adapter included.
        root, root_trained: embedding, final norm and head; a tied head counts once.
        head_trained: of the head's, those with a gradient.
        layers: number of layers.
    """

    block: int
    block_trained: int
    root: int
    root_trained: int
    head_trained: int
    layers: int

    @property
    def trained(self) -> int:
        """All weights with a gradient."""
        return self.layers * self.block_trained + self.root_trained

    @property
    def frozen(self) -> int:
        """All weights without."""
        return self.layers * self.block + self.root - self.trained


def count_weights(config: ModelConfig, lora: LoraConfig | None) -> Weights:
    """Counted on the network itself, built without memory; all layers are alike."""
    with torch.device("meta"):
        model = Mistral(config)
        if lora is not None:
            check_rank(model, lora)
            add_lora(model, lora)
    block = list(model.model.layers[0].parameters())
    inside = {id(parameter) for parameter in model.model.layers.parameters()}
    root = [parameter for parameter in model.parameters() if id(parameter) not in inside]
    head = model.lm_head.weight
    return Weights(
        block=sum(x.numel() for x in block),
        block_trained=sum(x.numel() for x in block if x.requires_grad),
        root=sum(x.numel() for x in root),
        root_trained=sum(x.numel() for x in root if x.requires_grad),
        head_trained=head.numel() if head.requires_grad else 0,
        layers=config.num_hidden_layers,
    )


def state_bytes(weights: Weights, shards: int, per_weight: int) -> int:
    """Trained weights with gradient and moments, frozen ones in bfloat16, cut in `shards` parts."""
    return -(-(weights.trained * per_weight + weights.frozen * 2) // shards)


def layer_activation_bytes(
    config: ModelConfig, lora: LoraConfig | None, *, compiled: bool = False
) -> int:
    """What autograd keeps of one token in one layer, in bfloat16, without recomputation.

    The input of each norm and of each group of projections (4 D), rotated queries, keys and values
    and the mixed values (2 H E + 2 K E), gate, up, silu(gate) and their product (4 F), in fp32 one
    number per norm and per head; with adapters the outputs of each A (7 R) besides. A frozen linear
    needs no input, but its adapter does. The compiler makes silu(gate) again, `model.lora.fused` on
    CUDA the product too.
    """
    heads = 2 * config.num_attention_heads + 2 * config.num_key_value_heads
    attention = 2 * heads * config.head_size + 4 * config.num_attention_heads + 8
    wide = 3 if compiled else 4
    if lora is not None and "all" in lora.targets and lora.rank <= MAX_RANK and not lora.dropout:
        wide = 2
    kept = 2 * (4 * config.hidden_size + wide * config.intermediate_size) + attention
    if lora is not None:
        kept += 2 * 7 * lora.rank
    return kept


def activation_bytes(
    config: ModelConfig,
    tokens: int,
    checkpointing: str,
    lora: LoraConfig | None = None,
    checkpointed_layers: int | None = None,
    *,
    other_layers: str = "none",
    compiled: bool = False,
) -> int:
    """What the whole network keeps from forward to backward for `tokens` tokens.

    `none`: everything in all layers. `full`: each layer's input, and everything of the one layer
    that is being recomputed. `selective` keeps the outputs of products and attention: input, q, k,
    v, mixed values, attention's and the feed-forward's result (not if compiled: nobody needs it),
    gate and up, with adapters the outputs of each A; and one layer's whole.
    Where some layers are not checkpointed the one that is recomputed is counted besides them,
    though they come first in backward: at most one layer too many.

    Args:
        checkpointed_layers: that `checkpointing` is for; None: all.
        other_layers: the same for the others, as in `ParallelConfig`.
        compiled: whether blocks are.
    """
    width, layers = config.hidden_size, config.num_hidden_layers
    whole = layer_activation_bytes(config, lora, compiled=compiled)
    if checkpointing == "none":
        return tokens * layers * whole
    # Products are kept before rotation, attention's inputs are made again from them.
    heads = 2 * config.num_attention_heads + 2 * config.num_key_value_heads
    results = (2 if compiled else 3) * width
    products = 2 * (results + heads * config.head_size + 2 * config.intermediate_size)
    products += 4 * config.num_attention_heads + (2 * 7 * lora.rank if lora else 0)
    kept = {"none": whole, "selective": products, "full": 2 * width}
    count = layers if checkpointed_layers is None else checkpointed_layers
    assert count <= layers
    return tokens * (count * kept[checkpointing] + (layers - count) * kept[other_layers] + whole)


def loss_bytes(config: ModelConfig, weights: Weights, tokens: int) -> int:
    """What `model.loss` adds at its peak, hidden states and their gradient left out; without the
    kernel that CUDA has, which holds more tokens and only in 16 bits.

    One chunk of logits in bfloat16, in fp32 with room for one more (the steps between have not been
    measured on a GPU) and as a gradient, the head's gradient in fp32, and one chunk's share of it
    in bfloat16.
    """
    rows = min(tokens, max(1, CHUNK_LOGITS // config.num_tokens))
    logits = rows * config.num_tokens * (2 + 4 + 4 + 2)
    return logits + weights.head_trained * (4 + 2)


@dataclass(frozen=True)
class Memory:
    """Peak of one device in bytes.

    Attributes:
        states: weights, gradients, moments, as far as they exist at that moment.
        activations: kept for backward, at the moment of the peak.
        gathered: bfloat16 copies of weights, and gradients that are not yet reduced.
        loss: logits and the head's gradient.
        moment: when the peak is: `loss`, `backward` (where it begins), `end of backward`, or
            `reduction` (of the root).
    """

    states: int
    activations: int
    gathered: int
    loss: int
    moment: str

    @property
    def total(self) -> int:
        """All of it, with an allowance for driver and allocator."""
        return self.states + self.activations + self.gathered + self.loss + DRIVER_BYTES


def peak_memory(
    config: ModelConfig,
    weights: Weights,
    *,
    tokens: int,
    checkpointing: str,
    shards: int,
    recipe: Recipe = TRAIN,
    accumulates: bool = True,
    compiled: bool = False,
    lora: LoraConfig | None = None,
    checkpointed_layers: int | None = None,
    other_layers: str = "none",
) -> Memory:
    """The largest of four moments.

    While the loss is computed, the root and the last block are gathered and all activations are
    alive; where backward begins, in the last layer, two blocks are gathered and one has gradients,
    in bfloat16 and again in fp32 for their reduction, beside the head's; where it ends, in the
    first layer, the same with the activations of that layer alone; when the root's gradients are
    reduced they exist in both, but no activations do. Between, memory changes evenly from layer to
    layer. A step's only micro-batch finds no gradients: they appear from layer to layer, as
    activations go. Frozen weights on one device are not gathered.

    Args:
        tokens: per micro-batch.
        shards: devices that share the weights.
        recipe: of `STATES`.
        accumulates: whether a step has several micro-batches.
        compiled: whether blocks are.
        checkpointed_layers, other_layers: those of `activation_bytes`.
    """
    states = state_bytes(weights, shards, recipe.state)
    before, late = states, states
    if not accumulates:
        before -= weights.trained * recipe.gradient // shards
        late -= (weights.root_trained + weights.block_trained) * recipe.gradient // shards
    whole = tokens * layer_activation_bytes(config, lora, compiled=compiled)
    activations = activation_bytes(
        *(config, tokens, checkpointing, lora, checkpointed_layers),
        other_layers=other_layers,
        compiled=compiled,
    )
    hidden = 2 * tokens * config.hidden_size
    kept = activations
    if checkpointing != "none":  # the layer that is recomputed exists only in backward
        kept -= whole
    root, block = 2 * weights.root, 2 * weights.block
    if lora is not None and shards == 1:
        root, block = 2 * weights.root_trained, 2 * weights.block_trained
    reducing = root + 2 * block + 2 * weights.head_trained + 6 * weights.block_trained
    moments = [
        # The final norm's input and output, and the gradient of the latter.
        Memory(
            before, kept + 3 * hidden, root + block, loss_bytes(config, weights, tokens), "loss"
        ),
        Memory(
            before,
            activations + 3 * hidden,
            reducing,
            0,
            "backward",
        ),
        Memory(late, whole + 2 * hidden, reducing, 0, "end of backward"),
        Memory(states, hidden, root + 6 * weights.root_trained, 0, "reduction"),
    ]
    return max(moments, key=lambda memory: memory.total)


def fewest_checkpointed(
    config: ModelConfig, weights: Weights, room: float, *, checkpointing: str, **options: Any
) -> int | None:
    """How many layers must be checkpointed for the peak to stay within `room` bytes; None: more
    than there are.

    Args:
        options: the others of `peak_memory`.
    """
    others = options.pop("other_layers", "none")
    for count in range(weights.layers + 1):
        kinds = (checkpointing, others) if count else (others, "none")
        options |= dict(zip(("checkpointing", "other_layers"), kinds, strict=True))
        options |= {"checkpointed_layers": count or None}
        if peak_memory(config, weights, **options).total <= room:
            return count
    return None
