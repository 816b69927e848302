"""Keys and values of earlier tokens, so that a new token costs one token's work.

They lie in rings (`inference.generation.cache.kv_storage`). Sequences differ in length; nothing is
padded.

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

from inference.generation.cache.kv_storage import Ring
from model.attention import attention, attention_after, prepare_documents
from model.config import ModelConfig
from model.documents import Documents

GRAIN = 64
"""Tokens are left out of a pass in multiples of it: odd shapes cost more than they spare."""


@runtime_checkable
class Step(Protocol):
    """What one forward pass does to a cache; all layers share it.

    Attributes:
        positions: of the pass's tokens, in their sequences.
        last: where the last token of each sequence lies in the flattened pass, if only they are
            asked for; None: all are.
    """

    positions: Int[Tensor, "B T"]
    last: Int[Tensor, " N"] | None

    def narrow(self, layers: int) -> Int[Tensor, " M"] | None:
        """Where in the flattened pass the only tokens lie that the last so many layers need; None:
        all that there are. From then on the pass has no others."""
        ...

    def attend(
        self,
        layer: int,
        query: Float[Tensor, "A Q H E"],
        key: Float[Tensor, "B T K E"],
        value: Float[Tensor, "B T K E"],
    ) -> Float[Tensor, "A Q H E"]:
        """Store the keys and values of one layer, and let the queries see what they may.

        Queries are of all tokens, (B, T, H, E), or, where `last` is given, of those: (N, 1, H, E).
        """
        ...

    def finish(self) -> None:
        """Count the tokens, once all layers have stored theirs."""
        ...


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


class _Newest:
    """Attention of the newest token of each sequence: it sees all that its ring holds.

    Args:
        lengths: of the sequences, this token included.
        ring: that its key and value have been stored in.
    """

    def __init__(self, lengths: list[int], ring: Ring) -> None:
        device = ring.keys[0].device
        visible = [min(length, ring.slots) for length in lengths]
        self.used = max(visible)
        self.mask: Tensor | None = None
        if min(visible) < self.used:
            index = torch.arange(self.used, device=device)
            hidden = index >= torch.tensor(visible, device=device)[:, None]
            mask = torch.zeros(hidden.shape, dtype=ring.keys[0].dtype, device=device)
            self.mask = mask.masked_fill_(hidden, -torch.inf)[:, None, None]  # (N, 1, 1, used)

    def attend(
        self,
        query: Float[Tensor, "N 1 H E"],
        keys: Float[Tensor, "N K S E"],
        values: Float[Tensor, "N K S E"],
    ) -> Float[Tensor, "N 1 H E"]:
        # The heads that share a key head are its queries, so no key is repeated in memory.
        grouped = query.reshape(len(query), keys.shape[1], -1, query.shape[-1])  # (N, K, H / K, E)
        seen = slice(None, self.used)
        out = F.scaled_dot_product_attention(
            grouped, keys[:, :, seen], values[:, :, seen], attn_mask=self.mask
        )
        return out.reshape(query.shape)


class _Decode:
    """One further token of every sequence."""

    def __init__(self, ring: Ring, device: torch.device) -> None:
        ring.reserve(max(ring.lengths) + 1)
        self.ring = ring
        self.last: Tensor | None = None
        self.positions = torch.tensor(ring.lengths, device=device)[:, None]
        slots = [length % ring.slots for length in ring.lengths]
        self.newest = _Newest([length + 1 for length in ring.lengths], ring)
        # One slice where all write the same slot, else one scatter.
        self.slot = slots[0] if len(set(slots)) == 1 else None
        self.slots = torch.tensor(slots, device=device)
        self.rows = torch.arange(len(slots), device=device)

    def narrow(self, layers: int) -> Tensor | None:
        del layers
        return None

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
        return self.newest.attend(query, keys, values)

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
        self.starts = [ring.lengths[n] for n in sequences]  # of the pass, in each sequence
        self.places = [slice(*pair) for pair in pairwise(borders)]
        counts = [place.stop - place.start for place in self.places]
        self.stops = [s + count for s, count in zip(self.starts, counts, strict=True)]
        ring.reserve(max(self.stops))
        self.documents = documents
        if not any(self.starts):
            self.documents = prepare_documents(documents, ring.window, backend)
        device = documents.positions.device
        shift = torch.tensor(self.starts, device=device)
        shift = shift.repeat_interleave(documents.cu_seqlens.diff())
        self.positions = documents.positions + shift.view(documents.positions.shape)
        self.last: Tensor | None = documents.cu_seqlens[1:].long() - 1
        self.fresh = not any(self.starts)

    def narrow(self, layers: int) -> Int[Tensor, " M"] | None:
        """The final layer's ring and last query ask for W tokens, each layer before for W - 1 more;
        what a first one of those has not seen, none of them will be asked for."""
        if self.ring.window is None or not self.fresh:
            return None
        reach = -(-(layers * (self.ring.window - 1) + 1) // GRAIN) * GRAIN
        counts = [min(place.stop - place.start, reach) for place in self.places]
        kept = [
            torch.arange(place.stop - count, place.stop)
            for place, count in zip(self.places, counts, strict=True)
        ]
        index = torch.cat(kept).to(self.documents.positions.device)
        if 8 * len(index) > 7 * self.places[-1].stop:  # hardly worth the copy
            return None
        self.starts = [stop - count for stop, count in zip(self.stops, counts, strict=True)]
        segments = torch.arange(1, len(counts) + 1).repeat_interleave(torch.tensor(counts))
        documents = Documents.from_segments(segments[None].int()).to(index.device)
        borders = documents.cu_seqlens.tolist()
        self.places = [slice(*pair) for pair in pairwise(borders)]
        self.documents = prepare_documents(documents, self.ring.window, self.backend)
        self.last = documents.cu_seqlens[1:].long() - 1
        return index

    def attend(
        self,
        layer: int,
        query: Float[Tensor, "A Q H E"],
        key: Float[Tensor, "B T K E"],
        value: Float[Tensor, "B T K E"],
    ) -> Float[Tensor, "A Q H E"]:
        # Before storing, which may overwrite keys that the first of the pass's queries see.
        all_ask = query.shape[:2] == key.shape[:2]
        out = self._attend_all(layer, query, key, value) if all_ask else None
        keys, values = key.flatten(0, 1), value.flatten(0, 1)
        for n, start, place in zip(self.sequences, self.starts, self.places, strict=True):
            self.ring.store(layer, n, start, keys[place], values[place])
        return self._attend_last(layer, query) if out is None else out

    def _attend_all(self, layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        if not self.fresh:
            return self._continued(layer, query, key, value)
        options = {"window": self.ring.window, "backend": self.backend}
        return attention(query, key, value, self.documents, **options)

    def _attend_last(self, layer: int, query: Tensor) -> Tensor:
        """From the ring, which holds what the last queries see and nothing else."""
        stored = (x[layer][self.sequences] for x in (self.ring.keys, self.ring.values))
        return _Newest(self.stops, self.ring).attend(query, *stored)

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
        for n, stop in zip(self.sequences, self.stops, strict=True):
            self.ring.lengths[n] = stop
