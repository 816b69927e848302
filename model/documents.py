"""Borders of documents in a batch of packed rows.

They are computed once per batch on the host and shared by all layers, in the form that each
attention backend needs: segment ids for masks, cumulative lengths for varlen kernels.
"""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Int
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask


def copy_to(device: torch.device, x: Tensor) -> Tensor:
    """A tensor on a device, for whose copy the host does not wait.

    Copies from pageable memory are staged and may synchronise with earlier work of the device
    ("API synchronization behavior" in NVIDIA's manual), so the memory is pinned first.
    """
    if x.device.type == "cpu" and device.type == "cuda":
        x = x.contiguous().pin_memory()  # an expanded tensor cannot be pinned as it is
    return x.to(device, non_blocking=True)


@dataclass(frozen=True)
class Documents:
    """The documents of a batch.

    Attributes:
        segments: number of the document within its row, from 1; 0 is padding, which attends only
            to itself.
        positions: distance of a token from the start of its document in the row.
        cu_seqlens: start of each document in the flattened batch, then B * T.
        max_seqlen: length of the longest document, a Python int (a tensor would make kernels wait
            for the device).
        block_mask: flex attention's form of the same, if that backend runs.
    """

    segments: Int[Tensor, "B T"]
    positions: Int[Tensor, "B T"]
    cu_seqlens: Int[Tensor, " N"]
    max_seqlen: int
    block_mask: BlockMask | None = None

    @classmethod
    def from_segments(cls, segments: Int[Tensor, "B T"]) -> "Documents":
        """Find the documents: maximal runs of one segment number within a row.

        A number must not come back after another in the same row: backends that compare numbers
        would join documents that backends that compare borders separate.
        """
        rows, length = segments.shape
        starts = torch.ones_like(segments, dtype=torch.bool)
        starts[:, 1:] = segments[:, 1:] != segments[:, :-1]
        first = starts.flatten().nonzero().squeeze(1)
        cu_seqlens = torch.cat([first, first.new_tensor([rows * length])])
        lengths = cu_seqlens.diff()
        positions = torch.arange(rows * length, device=segments.device)
        positions = positions - torch.repeat_interleave(first, lengths)
        return cls(
            segments=segments,
            positions=positions.view(rows, length),
            cu_seqlens=cu_seqlens.to(torch.int32),
            max_seqlen=int(lengths.max()),
        )

    @classmethod
    def whole_rows(cls, rows: int, length: int, device: torch.device) -> "Documents":
        """One document per row."""
        return cls(
            segments=torch.ones(rows, length, dtype=torch.int32, device=device),
            positions=torch.arange(length, device=device).expand(rows, length),
            cu_seqlens=torch.arange(0, rows * length + 1, length, dtype=torch.int32, device=device),
            max_seqlen=length,
        )

    def to(self, device: torch.device) -> "Documents":
        """Copy the tensors to a device without waiting for it."""
        return replace(
            self,
            segments=copy_to(device, self.segments),
            positions=copy_to(device, self.positions),
            cu_seqlens=copy_to(device, self.cu_seqlens),
        )

    def count_pairs(self, window: int | None) -> int:
        """(query, key) pairs that attention must score: the exact band inside each document.

        A document of n tokens has n * w - w * (w - 1) / 2 of them, with w = min(window, n).
        Padding counts for nothing.
        """
        first = self.cu_seqlens[:-1].long()
        real = self.segments.flatten()[first] > 0
        lengths = self.cu_seqlens.long().diff()[real]
        width = lengths if window is None else lengths.clamp(max=window)
        return int((lengths * width - width * (width - 1) // 2).sum())
