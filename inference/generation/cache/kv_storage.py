"""Storage of the keys and values of a cache: a ring of slots per layer and sequence.

Position p of a sequence is stored in slot p mod S, rotated by its true position. The number of
slots S never exceeds the window W (W keys, the query's own included), so a full ring holds exactly
the keys that the next query sees. While S < W (always, without a window) no key has been
overwritten, and S grows with the sequences.
Dims: N sequences, S slots, T tokens of a pass, P visible tokens, K key heads, E head width.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from model.config import ModelConfig

GROWTH = 256
"""Slots are added in multiples of this number, and at least half of the present slots."""


class KVStorage:
    """Keys and values of each layer, (N, K, S, E) each.

    Args:
        sequences: number N of sequences.
        capacity: tokens per sequence to allocate at once.

    Attributes:
        lengths: number of tokens of each sequence.
    """

    def __init__(
        self,
        config: ModelConfig,
        sequences: int,
        dtype: torch.dtype,
        device: torch.device | str,
        capacity: int,
    ) -> None:
        self.window = config.sliding_window
        self.lengths = [0] * sequences
        self.slots = self._bounded(capacity)
        shape = (sequences, config.num_key_value_heads, self.slots, config.head_size)
        layers = range(config.num_hidden_layers)
        self.keys = [torch.zeros(shape, dtype=dtype, device=device) for _ in layers]
        self.values = [torch.zeros(shape, dtype=dtype, device=device) for _ in layers]

    def _bounded(self, tokens: int) -> int:
        return tokens if self.window is None else min(tokens, self.window)

    def reserve(self, tokens: int) -> None:
        """Grow, if needed, to sequences of up to `tokens` tokens."""
        needed = self._bounded(tokens)
        if needed <= self.slots:
            return
        wanted = max(needed, self.slots + self.slots // 2)
        grown = self._bounded(-(-wanted // GROWTH) * GROWTH)
        for stored in (self.keys, self.values):
            for layer, old in enumerate(stored):
                stored[layer] = old.new_zeros(*old.shape[:2], grown, old.shape[3])
                stored[layer][:, :, : self.slots] = old
        self.slots = grown

    def keep(self, sequences: Sequence[int]) -> None:
        """Keep these sequences, in this order, and drop the others."""
        index = torch.tensor(sequences, device=self.keys[0].device)
        for stored in (self.keys, self.values):
            stored[:] = [x.index_select(0, index) for x in stored]
        self.lengths[:] = [self.lengths[n] for n in sequences]

    def store(
        self,
        layer: int,
        n: int,
        start: int,
        key: Float[Tensor, "T K E"],
        value: Float[Tensor, "T K E"],
    ) -> None:
        """Write keys and values of sequence n from position `start`; the last S of them stay."""
        stop = start + len(key)
        first = max(start, stop - self.slots)
        while first < stop:
            slot = first % self.slots
            count = min(stop - first, self.slots - slot)
            for stored, new in ((self.keys, key), (self.values, value)):
                part = new[first - start : first - start + count]
                stored[layer][n, :, slot : slot + count] = part.transpose(0, 1)
            first += count

    def history(self, layer: int, n: int) -> tuple[Float[Tensor, "P K E"], Float[Tensor, "P K E"]]:
        """Keys and values that the next query of sequence n still sees, oldest first."""
        length = self.lengths[n]
        first = 0 if self.window is None else max(0, length - self.window + 1)
        slots = torch.arange(first, length, device=self.keys[layer].device) % self.slots
        key, value = (x[layer][n].index_select(1, slots) for x in (self.keys, self.values))
        return key.transpose(0, 1), value.transpose(0, 1)
