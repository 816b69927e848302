"""Merged rows of one matrix of the base under an adapter, in fp32.

The formulas are those of PEFT's merge (`peft.tuners.lora`): W + s B A (Hu et al. 2021, section
4.1), with DoRA scaled to the trained magnitude m of every output, m (W + s B A) / ||W + s B A||
(Liu et al. 2024, equation 5); or the stored rows themselves.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

_CHUNK = 4096  # rows of an embedding whose norms are summed at a time

Read = Callable[[str, slice | tuple[slice, slice]], Tensor]
"""A part of a tensor of the adapter, by its name there."""
ReadBase = Callable[[slice], Tensor]
"""Rows of the matrix that is changed."""
Kept = dict[str, Tensor]
"""Values that an update computes once from a whole matrix, for all of its rows."""


@dataclass(frozen=True)
class Whole:
    """A tensor that was trained whole."""

    name: str

    def names(self) -> list[str]:
        return [self.name]

    def merged(self, read: Read, base: ReadBase, rows: slice, kept: Kept) -> Tensor:  # noqa: ARG002
        """As it is stored, bit for bit."""
        return read(self.name, rows)

    def change(self, read: Read, base: ReadBase, rows: slice, kept: Kept) -> Tensor:
        return self.merged(read, base, rows, kept).float() - base(rows).float()


@dataclass(frozen=True)
class TokenRows:
    """Some rows of a table, trained whole.

    Attributes:
        rows: which; None: those of the embedding that the head is tied to.
    """

    name: str
    rows: tuple[int, ...] | None

    def names(self) -> list[str]:
        return [self.name]

    def merged(self, read: Read, base: ReadBase, rows: slice, kept: Kept) -> Tensor:  # noqa: ARG002
        assert self.rows is not None
        assert rows.start is not None
        merged = base(rows).to(torch.float32, copy=True)
        new = read(self.name, slice(None)).float()
        for place, row in enumerate(self.rows):
            if rows.start <= row < rows.start + len(merged):
                merged[row - rows.start] = new[place]
        return merged

    def change(self, read: Read, base: ReadBase, rows: slice, kept: Kept) -> Tensor:
        return self.merged(read, base, rows, kept) - base(rows).float()


@dataclass(frozen=True)
class LowRank:
    """An update of low rank.

    Attributes:
        a, b: names of the factors: of a linear A (R, in) and B (out, R), of an embedding A (R, V)
            and B (D, R), whose product is transposed.
        magnitude: name of DoRA's magnitudes, (out,) or (D,); None without DoRA.
    """

    a: str
    b: str
    scale: float
    embedding: bool = False
    magnitude: str | None = None

    def names(self) -> list[str]:
        return [self.a, self.b] + ([] if self.magnitude is None else [self.magnitude])

    def merged(self, read: Read, base: ReadBase, rows: slice, kept: Kept) -> Tensor:
        updated = base(rows).float() + self._product(read, rows)
        if self.magnitude is None:
            return updated
        if not self.embedding:
            norms = torch.linalg.vector_norm(updated, dim=1, keepdim=True)
            return read(self.magnitude, rows).float()[:, None] / norms * updated
        if self.magnitude not in kept:
            kept[self.magnitude] = self._column_norms(read, base)
        return read(self.magnitude, slice(None)).float() / kept[self.magnitude] * updated

    def change(self, read: Read, base: ReadBase, rows: slice, kept: Kept) -> Tensor:
        if self.magnitude is None:
            return self._product(read, rows)
        return self.merged(read, base, rows, kept) - base(rows).float()

    def _product(self, read: Read, rows: slice) -> Tensor:
        if not self.embedding:
            a, b = read(self.a, slice(None)).float(), read(self.b, rows).float()
            return self.scale * (b @ a)
        a, b = read(self.a, (slice(None), rows)).float(), read(self.b, slice(None)).float()
        return self.scale * (a.T @ b.T)

    def _column_norms(self, read: Read, base: ReadBase) -> Tensor:
        """Of the updated embedding over all of its rows, (D,)."""
        height = read(self.a, slice(None)).shape[1]
        squares = torch.zeros(read(self.b, slice(None)).shape[0], dtype=torch.float64)
        for first in range(0, height, _CHUNK):
            rows = slice(first, min(first + _CHUNK, height))
            squares += (base(rows).float() + self._product(read, rows)).double().square().sum(0)
        return squares.sqrt().float()


Update = Whole | TokenRows | LowRank
"""A changed matrix: the `names` of the tensors that it is made from, its rows `merged`, and their
`change` from those of the base, in fp32."""
