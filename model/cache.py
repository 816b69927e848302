"""Keys and values of earlier tokens, so that a new token costs one token's work.

Each layer keeps a ring of S slots per sequence; position p lies in slot p mod S, rotated at its
true position. S never exceeds the window W (W keys, the query's own included), so a full ring holds
exactly the keys that the next query sees. While S < W (always, without a window) nothing has been
overwritten, and the ring grows as sequences do. Sequences differ in length; nothing is padded.

A pass that was broken off half-way leaves a cache that must not be used again.
Dims: N sequences, S slots, T tokens of a pass, H query heads, K key heads, E head width.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from model.attention import attention, attention_after, prepare_documents
from model.config import ModelConfig
from model.documents import Documents

GROWTH = 256
"""Slots are added in multiples of it, and at least half of what is there."""


@runtime_checkable
class Step(Protocol):
    """What one forward pass does to a cache; all layers share it.

    Attributes:
        positions: of the pass's tokens, in their sequences.
        last: where the last token of each sequence lies in the flattened pass; None: every token
            is one.
    """

    positions: Int[Tensor, "B T"]
    last: Int[Tensor, " N"] | None

    def attend(
        self,
        layer: int,
        query: Float[Tensor, "B T H E"],
        key: Float[Tensor, "B T K E"],
        value: Float[Tensor, "B T K E"],
    ) -> Float[Tensor, "B T H E"]:
        """Store the keys and values of one layer, and let the queries see what they may."""
        ...

    def finish(self) -> None:
        """Count the tokens, once all layers have stored theirs."""
        ...


class Ring:
    """The storage: of each layer (N, K, S, E) keys and as many values."""

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
        """Make room for sequences of up to so many tokens."""
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
        """Drop all other sequences, and take these in this order."""
        index = torch.tensor(sequences, device=self.keys[0].device)
        for stored in (self.keys, self.values):
            stored[:] = [x.index_select(0, index) for x in stored]
        self.lengths[:] = [self.lengths[n] for n in sequences]

    def store(self, layer: int, n: int, start: int, key: Tensor, value: Tensor) -> None:
        """Write keys and values (T, K, E) of positions `start` and on; the last S of them stay."""
        stop = start + len(key)
        first = max(start, stop - self.slots)
        while first < stop:
            slot = first % self.slots
            count = min(stop - first, self.slots - slot)
            for stored, new in ((self.keys, key), (self.values, value)):
                part = new[first - start : first - start + count]
                stored[layer][n, :, slot : slot + count] = part.transpose(0, 1)
            first += count

    def history(self, layer: int, n: int) -> tuple[Tensor, Tensor]:
        """Keys and values (P, K, E) that the next query still sees, oldest first."""
        length = self.lengths[n]
        first = 0 if self.window is None else max(0, length - self.window + 1)
        slots = torch.arange(first, length, device=self.keys[layer].device) % self.slots
        key, value = (x[layer][n].index_select(1, slots) for x in (self.keys, self.values))
        return key.transpose(0, 1), value.transpose(0, 1)


class Cache:
    """A batch of sequences that a network goes on from: `model(tokens, cache=cache)`.

    Args:
        config: of the network.
        sequences: how many; all begin empty.
        dtype, device: of the network's activations.
        capacity: tokens per sequence to make room for at once; more are made room for on the way.
    """

    def __init__(
        self,
        config: ModelConfig,
        sequences: int,
        *,
        dtype: torch.dtype,
        device: torch.device | str = "cpu",
        capacity: int = 0,
    ) -> None:
        self.ring = Ring(config, sequences, dtype, device, capacity)
        self.sequences = list(range(sequences))

    @property
    def lengths(self) -> list[int]:
        """Tokens that each sequence has seen."""
        return [self.ring.lengths[n] for n in self.sequences]

    def of(self, sequences: Sequence[int]) -> "Cache":
        """The same storage, where a prefill extends these sequences only."""
        view = object.__new__(Cache)
        view.ring = self.ring
        view.sequences = [self.sequences[n] for n in sequences]
        return view

    def keep(self, sequences: Sequence[int]) -> None:
        """Let the other sequences go; the cost is a copy of what stays."""
        assert len(self.sequences) == len(self.ring.lengths), "a view cannot drop sequences"
        self.ring.keep(sequences)
        self.sequences = list(range(len(sequences)))

    def begin(self, tokens: Int[Tensor, "B T"], documents: Documents | None, backend: str) -> Step:
        """Prepare one pass.

        Args:
            tokens: one per sequence, (N, 1); or several per sequence: a row each, or, with
                `documents`, one document each, laid end to end.
            documents: where the pieces of the sequences lie; no padding.
            backend: of the attention inside a pass.
        """
        if documents is None and tokens.shape[1] == 1:
            assert len(tokens) == len(self.ring.lengths) == len(self.sequences)
            return _Decode(self.ring, tokens.device)
        if documents is None:
            rows, length = tokens.shape
            documents = Documents.whole_rows(rows, length, tokens.device)
        return _Prefill(self.ring, self.sequences, documents, backend)


class _Decode:
    """One further token of every sequence."""

    def __init__(self, ring: Ring, device: torch.device) -> None:
        ring.reserve(max(ring.lengths) + 1)
        self.ring = ring
        self.last: Tensor | None = None
        self.positions = torch.tensor(ring.lengths, device=device)[:, None]
        slots = [length % ring.slots for length in ring.lengths]
        visible = [min(length + 1, ring.slots) for length in ring.lengths]
        self.used = max(visible)
        # One slice where all write the same slot, else one scatter.
        self.slot = slots[0] if len(set(slots)) == 1 else None
        self.slots = torch.tensor(slots, device=device)
        self.rows = torch.arange(len(slots), device=device)
        self.mask: Tensor | None = None
        if min(visible) < self.used:
            index = torch.arange(self.used, device=device)
            hidden = index >= torch.tensor(visible, device=device)[:, None]
            mask = torch.zeros(hidden.shape, dtype=ring.keys[0].dtype, device=device)
            self.mask = mask.masked_fill_(hidden, -torch.inf)[:, None, None]  # (N, 1, 1, used)

    def attend(
        self,
        layer: int,
        query: Float[Tensor, "N 1 H E"],
        key: Float[Tensor, "N 1 K E"],
        value: Float[Tensor, "N 1 K E"],
    ) -> Float[Tensor, "N 1 H E"]:
        keys, values = self.ring.keys[layer], self.ring.values[layer]
        if self.slot is not None:
            keys[:, :, self.slot] = key[:, 0]
            values[:, :, self.slot] = value[:, 0]
        else:
            keys[self.rows, :, self.slots] = key[:, 0]
            values[self.rows, :, self.slots] = value[:, 0]
        # The heads that share a key head are its queries, so no key is repeated in memory.
        grouped = query.reshape(len(query), keys.shape[1], -1, query.shape[-1])  # (N, K, H / K, E)
        seen = slice(None, self.used)
        out = F.scaled_dot_product_attention(
            grouped, keys[:, :, seen], values[:, :, seen], attn_mask=self.mask
        )
        return out.reshape(query.shape)

    def finish(self) -> None:
        self.ring.lengths[:] = [length + 1 for length in self.ring.lengths]


class _Prefill:
    """Several tokens of some sequences: empty ones through the packed backend, all at once."""

    def __init__(
        self, ring: Ring, sequences: list[int], documents: Documents, backend: str
    ) -> None:
        borders = documents.cu_seqlens.tolist()
        assert len(borders) == len(sequences) + 1, "one document per sequence"
        self.ring, self.sequences, self.backend = ring, sequences, backend
        self.starts = [ring.lengths[n] for n in sequences]
        self.places = [slice(*pair) for pair in pairwise(borders)]
        counts = [place.stop - place.start for place in self.places]
        ring.reserve(max(s + count for s, count in zip(self.starts, counts, strict=True)))
        self.documents = documents
        if not any(self.starts):
            self.documents = prepare_documents(documents, ring.window, backend)
        device = documents.positions.device
        shift = torch.tensor(self.starts, device=device)
        shift = shift.repeat_interleave(documents.cu_seqlens.diff())
        self.positions = documents.positions + shift.view(documents.positions.shape)
        self.last: Tensor | None = documents.cu_seqlens[1:].long() - 1

    def attend(
        self,
        layer: int,
        query: Float[Tensor, "B T H E"],
        key: Float[Tensor, "B T K E"],
        value: Float[Tensor, "B T K E"],
    ) -> Float[Tensor, "B T H E"]:
        window = self.ring.window
        if any(self.starts):
            out = self._continued(layer, query, key, value)
        else:
            options = {"window": window, "backend": self.backend}
            out = attention(query, key, value, self.documents, **options)
        keys, values = key.flatten(0, 1), value.flatten(0, 1)
        for n, start, place in zip(self.sequences, self.starts, self.places, strict=True):
            self.ring.store(layer, n, start, keys[place], values[place])
        return out

    def _continued(self, layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Each sequence against the keys it has, and its own."""
        q, k, v = (x.flatten(0, 1) for x in (query, key, value))  # (B * T, heads, E)
        out = torch.empty_like(q)
        for n, place in zip(self.sequences, self.places, strict=True):
            old_key, old_value = self.ring.history(layer, n)
            keys, values = torch.cat([old_key, k[place]]), torch.cat([old_value, v[place]])
            out[place] = attention_after(q[place], keys, values, self.ring.window)
        return out.view_as(query)

    def finish(self) -> None:
        for n, place in zip(self.sequences, self.places, strict=True):
            self.ring.lengths[n] += place.stop - place.start
