"""Sources of weights, initial weights, and the copying of their rows into a network.

A `WeightSource` returns any rows of any tensor by name, so that a process (one of one, or one of
many that each keep a part) reads only the rows that it keeps. This file does not depend on ranks.
"""

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from model.seeded import seeded_generator
from model.transformer import Mistral

READERS = 4
"""Tensors that are read at a time."""


@runtime_checkable
class WeightSource(Protocol):
    """A source of weights."""

    def read(self, name: str, rows: slice) -> Tensor:
        """Rows of one tensor, on the CPU, in the dtype they are stored in; called from threads."""
        ...


def fill(model: nn.Module, source: WeightSource) -> None:
    """Copy every tensor of an unsharded model from a source, a few at a time."""
    copy_rows(source, ((name, slice(None), x) for name, x in model.named_parameters()))


def copy_rows(source: WeightSource, wanted: Iterable[tuple[str, slice, Tensor]]) -> None:
    """Copy rows of tensors to where they belong; a disk is not idle while others are copied."""

    @torch.no_grad()  # which every thread says for itself
    def copy(name: str, rows: slice, place: Tensor) -> None:
        place.copy_(source.read(name, rows))

    with ThreadPoolExecutor(READERS) as pool:
        list(pool.map(lambda each: copy(*each), wanted))


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
        """Rows of one tensor in fp32; the whole tensor is drawn for every part."""
        shape = self._shapes[name]
        if len(shape) == 1:
            return torch.ones(shape)[rows]
        std = self.config.initializer_range
        if name.endswith(("o_proj.weight", "down_proj.weight")):
            std /= (2 * self.config.num_hidden_layers) ** 0.5
        generator = seeded_generator(self.seed, name)
        return torch.empty(shape).normal_(0.0, std, generator=generator)[rows]
