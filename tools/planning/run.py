"""A training run to plan: network, batch and checkpointing, and the weights of the network."""

from dataclasses import dataclass

import torch

from model.adapters import add_lora, check_rank
from model.config import ModelConfig
from model.lora.layer import LoraConfig
from model.transformer import Mistral


@dataclass(frozen=True)
class WeightCounts:
    """Numbers of weights, and of those that train.

    Attributes:
        block, block_trained: in one layer, adapter included.
        root, root_trained: in embedding, final norm and head; a tied head counts once.
        head_trained: weights of the head with a gradient.
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
        """All weights without a gradient."""
        return self.layers * self.block + self.root - self.trained


def count_weights(config: ModelConfig, lora: LoraConfig | None) -> WeightCounts:
    """Count the weights of the network, built without memory; all layers have the same shape."""
    with torch.device("meta"):
        model = Mistral(config)
        if lora is not None:
            check_rank(model, lora)
            add_lora(model, lora)
    block = list(model.model.layers[0].parameters())
    inside = {id(parameter) for parameter in model.model.layers.parameters()}
    root = [parameter for parameter in model.parameters() if id(parameter) not in inside]
    head = model.lm_head.weight
    return WeightCounts(
        block=sum(x.numel() for x in block),
        block_trained=sum(x.numel() for x in block if x.requires_grad),
        root=sum(x.numel() for x in root),
        root_trained=sum(x.numel() for x in root if x.requires_grad),
        head_trained=head.numel() if head.requires_grad else 0,
        layers=config.num_hidden_layers,
    )


@dataclass(frozen=True)
class PlannedRun:
    """A run on rows of one document each.

    Attributes:
        model, lora, weights: the network.
        row_length, micro_batch_rows, tokens_per_step: the batch.
        checkpointing, checkpointed_layers, other_layers, compiled: as in `ParallelConfig`.
    """

    model: ModelConfig
    lora: LoraConfig | None
    weights: WeightCounts
    row_length: int
    micro_batch_rows: int
    tokens_per_step: int
    checkpointing: str
    checkpointed_layers: int | None = None
    other_layers: str = "none"
    compiled: bool = False

    @property
    def tokens(self) -> int:
        """Tokens of one micro-batch."""
        return self.micro_batch_rows * self.row_length

    @property
    def checkpointed_share(self) -> float:
        """Share of the layers with the kind `checkpointing`."""
        if self.checkpointing == "none":
            return 0.0
        count = self.checkpointed_layers
        return 1.0 if count is None else count / self.weights.layers

    @property
    def recomputed_share(self) -> float:
        """Share of the layers of which backward recomputes a part or all."""
        return self.checkpointed_share if self.other_layers == "none" else 1.0

    def micro_batches(self, gpus: int) -> int:
        """Micro-batches per device and step; the last may be partly empty and takes as long."""
        rows = self.tokens_per_step // self.row_length
        return -(-rows // (gpus * self.micro_batch_rows))
