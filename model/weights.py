"""Sources of weights and the copying of their rows into a network.

A `WeightSource` returns any rows of any tensor by name, so that a process (one of one, or one of
many that each keep a part) reads only the rows that it keeps. This file knows no ranks.
"""

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn

READERS = 4
"""Tensors that are read at a time."""


@runtime_checkable
class WeightSource(Protocol):
    """Where weights come from."""

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
