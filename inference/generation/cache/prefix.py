"""Many continuations of one prefix in one pass, without a copy of the prefix for each.

A `Prefix` holds the keys and values of a text; nothing writes into it. `Branches` are tokens that
continue from its end: trees of a trunk (a question) and branches from the trunk's end (answers),
laid end to end without padding. A token sees the prefix, its trunk and its branch, within its
window; its position is its distance from the start of the prefix.
Dims: T tokens of a pass, S stored tokens, H query heads, K key heads, E head width.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from model.config import ModelConfig

QUERY_BLOCK = 128
"""Queries that are attended to at a time."""


@dataclass(frozen=True)
class Prefix:
    """Keys and values of a text.

    Attributes:
        length: tokens of the text.
        keys, values: (K, S, E) of each layer, of the last S tokens, rotated; S is at most W - 1,
            because later tokens see no more. Empty for an empty text.
    """

    length: int = 0
    keys: tuple[Float[Tensor, "K S E"], ...] = ()
    values: tuple[Float[Tensor, "K S E"], ...] = ()

    @property
    def stored(self) -> int:
        """Number S of the last tokens whose keys and values are kept."""
        return self.keys[0].shape[1] if self.keys else 0


class Tree(NamedTuple):
    """Tokens that continue a prefix: the trunk, then each branch from the trunk's end."""

    trunk: int
    branches: tuple[int, ...] = ()

    @property
    def size(self) -> int:
        """Number of tokens of trunk and branches."""
        return self.trunk + sum(self.branches)


class _Block(NamedTuple):
    """Some queries and their keys: stored keys from `first` on, and keys of the pass."""

    queries: slice
    first: int
    own: slice
    mask: Float[Tensor, "t keys"]


class Branches:
    """Context of one pass of tokens that continue a prefix: `model(tokens, context=Branches(...))`.

    The tokens are one row: of each tree the trunk, then its branches. The pass adds nothing to the
    prefix; `extended` returns the longer prefix, for a single trunk.

    Args:
        config: of the network.
        prefix: the text before the tokens.
        trees: sizes of each tree.
        device: of the network.
        extend: keep the keys and values that `extended` needs.
    """

    def __init__(
        self,
        config: ModelConfig,
        prefix: Prefix,
        trees: Sequence[Tree],
        device: torch.device | str,
        *,
        extend: bool = False,
    ) -> None:
        assert not extend or (len(trees) == 1 and not trees[0].branches)
        self.window, self.prefix = config.sliding_window, prefix
        self.trees, self.extend = trees, extend
        self.starts = [0, *accumulate(tree.size for tree in trees)]
        self.offsets: list[int] = []  # of each token from the prefix's end
        branch: list[int] = []  # branch of each token; 0 is the trunk
        tree: list[int] = []
        for n, (trunk, branches) in enumerate(trees):
            self.offsets += range(trunk)
            branch += [0] * trunk
            for number, count in enumerate(branches, 1):
                self.offsets += range(trunk, trunk + count)
                branch += [number] * count
            tree += [n] * trees[n].size
        index = torch.tensor([self.offsets, branch, tree], device=device)
        self.positions: Int[Tensor, "1 T"] = index[:1] + prefix.length
        self.branch, self.tree = index[1], index[2]
        self.layer = 0
        self.blocks: list[_Block] = []
        self.keys: list[Tensor] = []
        self.values: list[Tensor] = []

    def mix(
        self,
        query: Float[Tensor, "1 T H E"],
        key: Float[Tensor, "1 T K E"],
        value: Float[Tensor, "1 T K E"],
    ) -> Float[Tensor, "1 T H E"]:
        """Attention of each token to the prefix, its trunk and its branch."""
        if not self.blocks:  # the same masks for all layers, in the dtype of the activations
            self.blocks = [self._block(*borders, query.dtype) for borders in self._borders()]
        q = query[0].unflatten(1, (key.shape[2], -1)).permute(1, 2, 0, 3)  # (K, H / K, T, E)
        new = [x[0].transpose(0, 1) for x in (key, value)]  # (K, T, E)
        old = [x[self.layer] if x else None for x in (self.prefix.keys, self.prefix.values)]
        self.layer += 1
        out = torch.empty_like(query)
        for queries, first, own, mask in self.blocks:
            k, v = (
                x[:, own] if before is None else torch.cat([before[:, first:], x[:, own]], 1)
                for before, x in zip(old, new, strict=True)
            )
            # Heads that share a key head read it without a copy.
            k, v = (x[:, None].expand(*q.shape[:2], -1, -1) for x in (k, v))
            block = F.scaled_dot_product_attention(q[:, :, queries], k, v, attn_mask=mask)
            out[0, queries] = block.flatten(0, 1).transpose(0, 1)
        if self.extend:
            for kept, before, x in zip((self.keys, self.values), old, new, strict=True):
                whole = x if before is None else torch.cat([before, x], 1)
                keep = whole.shape[1] if self.window is None else self.window - 1
                # A copy, so that the memory of dropped tokens is freed.
                kept.append(whole[:, max(0, whole.shape[1] - keep) :].clone())
        return out

    def extended(self) -> Prefix:
        """The prefix with the trunk of this pass, after the pass."""
        assert self.keys, "ask for extend=True, and run the pass first"
        length = self.prefix.length + self.trees[0].trunk
        return Prefix(length, tuple(self.keys), tuple(self.values))

    def _borders(self) -> list[tuple[int, int, int]]:
        """(start, stop) of each block of queries, and the tree of its first one."""
        borders, tree, total = [], 0, self.starts[-1]
        for start in range(0, total, QUERY_BLOCK):
            while self.starts[tree + 1] <= start:
                tree += 1
            borders.append((start, min(total, start + QUERY_BLOCK), tree))
        return borders

    def _block(self, start: int, stop: int, tree: int, dtype: torch.dtype) -> _Block:
        oldest = self.prefix.length - self.prefix.stored
        first, own = 0, self.starts[tree]  # trees that begin inside the block are part of it
        if self.window is not None:
            lowest = min(self.offsets[start:stop]) - self.window + 1
            first = min(self.prefix.stored, max(0, lowest + self.prefix.length - oldest))
            in_tree = self.offsets[start : min(stop, self.starts[tree + 1])]
            # Of a trunk, which may be long, only what is in reach; branches are taken whole.
            own += min(self.trees[tree].trunk, max(0, min(in_tree) - self.window + 1))
        own = slice(own, stop)
        queries, position = slice(start, stop), self.positions[0]
        before = torch.arange(oldest + first, self.prefix.length, device=position.device)
        i, j = position[queries, None], torch.cat([before, position[own]])
        related = (self.tree[queries, None] == self.tree[own]) & (
            (self.branch[own] == 0) | (self.branch[queries, None] == self.branch[own])
        )
        seen = (i >= j) & F.pad(related, (len(before), 0), value=True)
        if self.window is not None:
            seen &= i - j < self.window
        mask = torch.zeros(seen.shape, dtype=dtype, device=seen.device)
        return _Block(queries, first, own, mask.masked_fill_(~seen, -torch.inf))
