"""AdamW: which parameters decay, and what a step needs to know."""

import math
from dataclasses import dataclass

import torch
from torch import nn

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
    """Decoupled decay of the matrices inside the blocks and of the head; embedding rows and norm
    weights are not decayed (a token that never occurs must keep its row)."""
    clip_norm: float = 1.0
    """Gradients are scaled down to this global norm."""

    def __post_init__(self) -> None:
        for name in ("lr", "eps", "clip_norm"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                raise ValueError(f"optim.{name}={value}: must be positive and finite")
        for name in ("beta1", "beta2"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"optim.{name}={getattr(self, name)}: must lie in [0, 1)")
        if not (math.isfinite(self.weight_decay) and self.weight_decay >= 0):
            raise ValueError(f"optim.weight_decay={self.weight_decay}: must not be negative")


def build_optimizer(model: nn.Module, config: OptimConfig) -> torch.optim.AdamW:
    """Fused AdamW over the trainable parameters."""
    decayed, kept = [], []
    for name, parameter in clean_named_parameters(model):
        if parameter.requires_grad:
            matrix = parameter.ndim >= 2 and not name.endswith("embed_tokens.weight")
            (decayed if matrix else kept).append(parameter)
    return torch.optim.AdamW(
        [
            {"params": decayed, "weight_decay": config.weight_decay},
            {"params": kept, "weight_decay": 0.0},
        ],
        lr=config.lr,
        betas=(config.beta1, config.beta2),
        eps=config.eps,
        fused=True,
    )
