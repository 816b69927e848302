"""Optimizers: settings, parameter groups, learning rates, gradient clipping."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from data.rows.curriculum_config import LrMultipliers
from model.transformer import Mistral
from training.adamw import AdamW, AdamWBF16
from training.optimizer import TrainingOptimizer
from training.parallelize import clean_named_parameters, local_part

OPTIMIZERS: dict[str, type[AdamW | AdamWBF16]] = {"float32": AdamW, "bfloat16": AdamWBF16}
"""Optimizer by `optim.moment_dtype`."""
CLIP_BYTES = 12
"""Memory traffic per trained weight of the gradient's norm (4) and of clipping (8)."""


@dataclass(kw_only=True)
class OptimConfig:
    """AdamW (Loshchilov and Hutter 2019) with gradient clipping."""

    lr: float = 3e-4
    """Peak learning rate; a stage may override it."""
    beta1: float = 0.9
    beta2: float = 0.95
    eps: float = 1e-8
    weight_decay: float = 0.1
    """Decoupled decay of the matrices inside the blocks and of the rows of the head that train;
    embedding rows and norm weights are not decayed (a token that never occurs must keep its
    row)."""
    moment_dtype: str = "float32"
    """Dtype of the two moments: `float32`, or `bfloat16` with stochastic rounding, which takes 12
    instead of 16 bytes per weight, gradient included."""
    clip_norm: float = 1.0
    """Largest global norm of the gradient; larger gradients are scaled down to it."""

    def __post_init__(self) -> None:
        for name in ("lr", "eps", "clip_norm"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                raise ValueError(f"optim.{name}={value}: must be positive and finite")
        if self.moment_dtype not in OPTIMIZERS:
            known = ", ".join(OPTIMIZERS)
            raise ValueError(f"optim.moment_dtype={self.moment_dtype!r}: one of {known}")
        for name in ("beta1", "beta2"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"optim.{name}={getattr(self, name)}: must be in [0, 1)")
        if not (math.isfinite(self.weight_decay) and self.weight_decay >= 0):
            raise ValueError(f"optim.weight_decay={self.weight_decay}: must not be negative")

    @property
    def optimizer(self) -> type[AdamW | AdamWBF16]:
        """Class of the optimizer."""
        return OPTIMIZERS[self.moment_dtype]


def build_optimizer(model: Mistral, config: OptimConfig) -> TrainingOptimizer:
    """Build the optimizer of the trainable parameters, in groups.

    Each group has a `name`, which selects its learning-rate multiplier
    (`data.rows.curriculum_config.LrMultipliers`). The groups of embedding and head also have the
    trained `rows` (`training.freeze`), and the group of LoRA's B has the `lr_ratio` of LoRA+ (Hayou
    et al. 2024).
    """
    decay, rows = config.weight_decay, (0, model.config.num_tokens)
    embeddings = {"name": "embeddings", "weight_decay": 0.0, "rows": rows, "params": []}
    head = {"name": "head", "weight_decay": decay, "rows": rows, "params": []}
    matrices = {"name": "layers", "weight_decay": decay, "params": []}
    norms = {"name": "layers", "weight_decay": 0.0, "params": []}
    ratio = model.lora.lr_ratio if model.lora else 1.0
    lora_b = {"name": "layers", "weight_decay": decay, "lr_ratio": ratio, "params": []}
    named = {"model.embed_tokens.weight": embeddings, "lm_head.weight": head}
    for name, parameter in clean_named_parameters(model):
        if parameter.requires_grad:
            by_shape = matrices if parameter.ndim >= 2 else norms
            group = lora_b if ".lora_B." in name else named.get(name, by_shape)
            group["params"].append(parameter)
    groups = [group for group in (embeddings, head, matrices, norms, lora_b) if group["params"]]
    betas = (config.beta1, config.beta2)
    return config.optimizer(groups, lr=config.lr, betas=betas, eps=config.eps)


def set_learning_rates(
    optimizer: torch.optim.Optimizer, lr: float, multipliers: LrMultipliers
) -> None:
    """Set the learning rate of each group for the next update."""
    for group in optimizer.param_groups:
        group["lr"] = lr * getattr(multipliers, group["name"]) * group.get("lr_ratio", 1.0)


@torch.no_grad()
def clip_gradients(parameters: Iterable[nn.Parameter], max_norm: float) -> float:
    """Scale gradients down to a global norm; returns the norm before scaling.

    On a CPU torch's own norm sums the squares of a tensor one by one. For the four million elements
    of a small embedding the sum is too small by 8e-5, and by 3e-5 for each half of the embedding on
    two ranks, so the clipped gradient would depend on the number of ranks.
    """
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    local = [local_part(grad) for grad in gradients]
    # `sum` adds in pairs; the sum over a few hundred tensors is exact enough in fp64.
    squares = torch.stack([part.square().sum(dtype=torch.float32).double() for part in local]).sum()
    if gradients and isinstance(gradients[0], DTensor):
        # Replicas have the same gradient, so the sum runs over the shards only.
        dist.all_reduce(squares, group=gradients[0].device_mesh.get_group("shard"))
    norm = float(squares.sqrt())
    _scale(local, max_norm / (norm + 1e-6))
    return norm


def _scale(gradients: list[Tensor], factor: float) -> None:
    if not factor >= 1:  # also for a norm that is NaN
        torch._foreach_mul_(gradients, factor)
