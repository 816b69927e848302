"""Weights of a model that starts from nothing."""

import hashlib

import torch
from torch import Tensor

from model.transformer import Mistral


class InitialWeights:
    """Fresh weights as a pure function of (config, seed, name): equal however they are spread.

    Normal with `initializer_range`; projections into the residual stream are narrowed by
    sqrt(2 * layers) (Radford et al. 2019, section 2.3), so that depth does not widen it.
    """

    def __init__(self, model: Mistral, seed: int) -> None:
        self.config = model.config
        self.seed = seed
        self._shapes = {name: parameter.shape for name, parameter in model.named_parameters()}

    def read(self, name: str, rows: slice) -> Tensor:
        """Rows of one tensor in fp32; the whole tensor is drawn, whatever part is asked for."""
        shape = self._shapes[name]
        if len(shape) == 1:
            return torch.ones(shape)[rows]
        std = self.config.initializer_range
        if name.endswith(("o_proj.weight", "down_proj.weight")):
            std /= (2 * self.config.num_hidden_layers) ** 0.5
        digest = hashlib.sha256(f"{self.seed}/{name}".encode()).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(digest[:8], "big", signed=True))
        return torch.empty(shape).normal_(0.0, std, generator=generator)[rows]
