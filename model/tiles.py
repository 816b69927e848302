"""Tensors in pieces that a CPU keeps in its cache while several operations pass over them."""

from collections.abc import Iterator

import torch
from torch import Tensor

TILE = 1 << 17
"""Elements that one thread works on at a time."""


def worth_tiling(x: Tensor) -> bool:
    """Whether an operation in pieces, with its backward pass by hand, is to be taken: on an eager
    CPU, unless it generates token by token.

    Compilers fuse torch's own, and on a GPU nothing of it has been measured.
    """
    if x.device.type != "cpu" or torch.compiler.is_compiling():
        return False
    return torch.is_grad_enabled() or x.numel() > TILE


def tile_rows(width: int) -> int:
    """Rows of that many elements in one piece, over all threads."""
    return max(1, TILE * torch.get_num_threads() // width)


def tiles(*tensors: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """The tensors, alike in all but the last dim, in the same pieces of their rows: (N, D) each.

    What is written to a piece is written to its tensor, which therefore has to be contiguous; the
    others are copied where they are not.
    """
    rows = tile_rows(tensors[0].shape[-1])
    pieces = (x.reshape(-1, x.shape[-1]).split(rows) for x in tensors)
    return zip(*pieces, strict=True)
