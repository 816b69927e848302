"""AdamW: which parameters decay, and at what rate each part learns."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from data.rows.curriculum_config import LrMultipliers
from model.transformer import Mistral
from training.adamw import RoundedAdamW
from training.parallelize import clean_named_parameters


@dataclass(kw_only=True)
class OptimConfig:
    """AdamW (Loshchilov and Hutter 2019) with gradient clipping."""

    lr: float = 3e-4
    """Peak learning rate; a stage may name its own."""
    beta1: float = 0.9
    beta2: float = 0.95
    eps: float = 1e-8
    weight_decay: float = 0.1
    """Decoupled decay of the matrices inside the blocks and of the rows of the head that train;
    embedding rows and norm weights are not decayed (a token that never occurs must keep its
    row)."""
    moment_dtype: str = "float32"
    """What the two moments are kept in: `float32`, or `bfloat16`, rounded by chance, for 12 bytes
    per weight (with its gradient) instead of 16."""
    clip_norm: float = 1.0
    """Gradients are scaled down to this global norm."""

    def __post_init__(self) -> None:
        for name in ("lr", "eps", "clip_norm"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                raise ValueError(f"optim.{name}={value}: must be positive and finite")
        if self.moment_dtype not in ("float32", "bfloat16"):
            raise ValueError(f"optim.moment_dtype={self.moment_dtype!r}: one of float32, bfloat16")
        for name in ("beta1", "beta2"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"optim.{name}={getattr(self, name)}: must lie in [0, 1)")
        if not (math.isfinite(self.weight_decay) and self.weight_decay >= 0):
            raise ValueError(f"optim.weight_decay={self.weight_decay}: must not be negative")

    @property
    def moment_bytes(self) -> int:
        """What a moment of one weight takes."""
        return {"float32": 4, "bfloat16": 2}[self.moment_dtype]


def build_optimizer(model: Mistral, config: OptimConfig) -> torch.optim.Optimizer:
    """AdamW over the trainable parameters: torch's, fused, or with moments in 16 bits ours.

    Each group has the `name` of the multiplier of its learning rate
    (`data.rows.curriculum_config.LrMultipliers`),
    those of embedding and head also the `rows` that may move (`training.freeze`), that of LoRA's B
    the `lr_ratio` of LoRA+.
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
    options = {"lr": config.lr, "betas": (config.beta1, config.beta2), "eps": config.eps}
    if config.moment_dtype == "bfloat16":
        return RoundedAdamW(groups, **options)
    return torch.optim.AdamW(groups, **options, fused=True)


def set_learning_rates(
    optimizer: torch.optim.Optimizer, lr: float, multipliers: LrMultipliers
) -> None:
    """Give each group its rate for the next update."""
    for group in optimizer.param_groups:
        group["lr"] = lr * getattr(multipliers, group["name"]) * group.get("lr_ratio", 1.0)


@torch.no_grad()
def clip_gradients(parameters: Iterable[nn.Parameter], max_norm: float) -> float:
    """Scale gradients down to a global norm where they exceed it; returns the norm before.

    torch's own norm adds up the squares of a tensor one after the other on a CPU. Over the four
    million elements of a small embedding that is short by 8e-5, and by 3e-5 for each half of it on
    two ranks, so that the clipped gradient would depend on the number of ranks.
    """
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    local = [grad.to_local() if isinstance(grad, DTensor) else grad for grad in gradients]
    # `sum` adds in pairs, and a few hundred tensors lose nothing in fp64.
    squares = torch.stack([part.square().sum(dtype=torch.float32).double() for part in local]).sum()
    if gradients and isinstance(gradients[0], DTensor):
        # Replicas hold the same gradient: only its shards are to be added up.
        dist.all_reduce(squares, group=gradients[0].device_mesh.get_group("shard"))
    norm = float(squares.sqrt())
    _scale(local, max_norm / (norm + 1e-6))
    return norm


def _scale(gradients: list[Tensor], factor: float) -> None:
    if not factor >= 1:  # a norm that is no number must not leave the gradient as if it were
        torch._foreach_mul_(gradients, factor)
