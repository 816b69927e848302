"""Contract of an optimizer: what checkpoints and planning need to know about its state."""

from abc import ABC, abstractmethod
from typing import ClassVar

import torch
from torch import Tensor

WEIGHT_AND_GRADIENT_BYTES = 8
"""Bytes of a weight and its gradient, both in fp32."""


class TrainingOptimizer(torch.optim.Optimizer, ABC):
    """Base of the optimizers in `training.optim.OPTIMIZERS`.

    Attributes:
        summary: state in words, with the setting that selects the optimizer.
        state_bytes: state of one weight, in bytes.
        update_bytes: memory traffic of one weight's update, in bytes.
    """

    summary: ClassVar[str]
    state_bytes: ClassVar[int]
    update_bytes: ClassVar[int]

    @abstractmethod
    def state_template(self, parameter: Tensor) -> dict[str, Tensor]:
        """State of a parameter before its first update, which a checkpoint can be loaded into."""
