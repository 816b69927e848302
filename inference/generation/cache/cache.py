"""KV cache: keys and values of earlier tokens, so that a new token costs the work of one token.

Sequences differ in length and nothing is padded; `kv_storage` holds their keys and values. A pass
over new tokens is an `AttentionContext`, which the network's forward takes in place of packed
documents. A pass that was interrupted leaves a cache that must not be used again.
Dims: N sequences, S slots, B rows and T tokens of a pass, H query heads, K key heads, E head width.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from inference.generation.cache.kv_storage import KVStorage
from model.attention import AttentionContext, PackedContext, attention_after
from model.config import ModelConfig
from model.documents import Documents
from model.transformer import Mistral


@runtime_checkable
class CachePass(AttentionContext, Protocol):
    """One forward pass over new tokens of a cache.

    Attributes:
        last: `logits_to_keep` of the network for the last token of each sequence.
    """

    last: int | Int[Tensor, " N"]

    def finish(self) -> None:
        """Count the tokens, after all layers have stored their keys and values."""
        ...


class Cache:
    """A batch of sequences with the keys and values of their tokens.

    Args:
        config: of the network.
        sequences: number of sequences; all are empty.
        dtype, device: of the network's activations.
        capacity: tokens per sequence to allocate at once; the storage grows when more come.
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
        self.storage = KVStorage(config, sequences, dtype, device, capacity)
        self.sequences = list(range(sequences))

    @property
    def lengths(self) -> list[int]:
        """Number of tokens of each sequence."""
        return [self.storage.lengths[n] for n in self.sequences]

    def of(self, sequences: Sequence[int]) -> "Cache":
        """A view of some sequences, for a prefill that extends only these."""
        view = object.__new__(Cache)
        view.storage = self.storage
        view.sequences = [self.sequences[n] for n in sequences]
        return view

    def keep(self, sequences: Sequence[int]) -> None:
        """Drop the other sequences; the cost is a copy of the ones that stay."""
        assert len(self.sequences) == len(self.storage.lengths), "a view cannot drop sequences"
        self.storage.keep(sequences)
        self.sequences = list(range(len(sequences)))

    def begin(
        self, tokens: Int[Tensor, "B T"], documents: Documents | None, backend: str
    ) -> CachePass:
        """Prepare one pass over new tokens; see `extend`.

        Args:
            backend: attention backend for tokens that begin their sequences.
        """
        rows, length = tokens.shape
        if documents is None and length == 1:
            assert rows == len(self.storage.lengths) == len(self.sequences)
            return DecodePass(self.storage, tokens.device)
        if documents is None:
            documents = Documents.whole_rows(rows, length, tokens.device)
        else:
            assert rows == 1, "pieces of sequences are laid end to end in one row"
        return PrefillPass(self.storage, self.sequences, documents, backend)


def extend(
    model: Mistral, tokens: Int[Tensor, "B T"], cache: Cache, documents: Documents | None = None
) -> Float[Tensor, "N V"]:
    """Add tokens to the sequences of a cache; returns the logits after each sequence.

    Args:
        tokens: one per sequence, (N, 1); several per sequence, a row each; or, with `documents`, a
            piece of each sequence, laid end to end in one row.
        documents: the pieces of the sequences, in order and without padding.
    """
    cache_pass = cache.begin(tokens, documents, model.backend)
    logits = model(tokens, context=cache_pass, logits_to_keep=cache_pass.last)
    cache_pass.finish()
    return logits.flatten(0, 1)


class DecodePass:
    """One further token of every sequence."""

    def __init__(self, storage: KVStorage, device: torch.device) -> None:
        storage.reserve(max(storage.lengths) + 1)
        self.storage = storage
        self.positions = torch.tensor(storage.lengths, device=device)[:, None]
        self.last: int | Tensor = 1
        self.layer = 0
        slots = [length % storage.slots for length in storage.lengths]
        # One slice if all sequences write the same slot, else one scatter.
        self.slot = slots[0] if len(set(slots)) == 1 else None
        self.slots = torch.tensor(slots, device=device)
        self.rows = torch.arange(len(slots), device=device)
        visible = [min(length + 1, storage.slots) for length in storage.lengths]
        self.used = max(visible)
        self.mask = self._hide_beyond(visible, device) if min(visible) < self.used else None

    def _hide_beyond(self, visible: list[int], device: torch.device) -> Float[Tensor, "N 1 1 used"]:
        index = torch.arange(self.used, device=device)
        hidden = index >= torch.tensor(visible, device=device)[:, None]
        mask = torch.zeros(hidden.shape, dtype=self.storage.keys[0].dtype, device=device)
        return mask.masked_fill_(hidden, -torch.inf)[:, None, None]

    def mix(
        self,
        query: Float[Tensor, "N 1 H E"],
        key: Float[Tensor, "N 1 K E"],
        value: Float[Tensor, "N 1 K E"],
    ) -> Float[Tensor, "N 1 H E"]:
        """Store the newest key and value of each sequence; its query sees all that are stored."""
        keys, values = self.storage.keys[self.layer], self.storage.values[self.layer]
        self.layer += 1
        if self.slot is not None:
            keys[:, :, self.slot] = key[:, 0]
            values[:, :, self.slot] = value[:, 0]
        else:
            keys[self.rows, :, self.slots] = key[:, 0]
            values[self.rows, :, self.slots] = value[:, 0]
        # Heads that share a key head are its queries, so that no key is repeated in memory.
        grouped = query.reshape(len(query), keys.shape[1], -1, query.shape[-1])  # (N, K, H / K, E)
        keys, values = keys[:, :, : self.used], values[:, :, : self.used]
        out = F.scaled_dot_product_attention(grouped, keys, values, attn_mask=self.mask)
        return out.reshape(query.shape)

    def finish(self) -> None:
        self.storage.lengths[:] = [length + 1 for length in self.storage.lengths]


class PrefillPass:
    """Several tokens of some sequences: empty ones with the packed backend, all at once."""

    def __init__(
        self, storage: KVStorage, sequences: list[int], documents: Documents, backend: str
    ) -> None:
        borders = documents.cu_seqlens.tolist()
        assert len(borders) == len(sequences) + 1, "one document per sequence"
        self.storage, self.sequences = storage, sequences
        self.starts = [storage.lengths[n] for n in sequences]  # of the pass, in each sequence
        self.places = [slice(*pair) for pair in pairwise(borders)]  # in the flattened pass
        counts = [place.stop - place.start for place in self.places]
        self.stops = [s + count for s, count in zip(self.starts, counts, strict=True)]
        storage.reserve(max(self.stops))
        self.packed: PackedContext | None = None
        if not any(self.starts):
            self.packed = PackedContext.of(documents, storage.window, backend)
        shift = torch.tensor(self.starts, device=documents.positions.device)
        shift = shift.repeat_interleave(documents.cu_seqlens.diff())
        self.positions = documents.positions + shift.view(documents.positions.shape)
        one_row = len(documents.positions) == 1
        self.last: int | Tensor = documents.cu_seqlens[1:].long() - 1 if one_row else 1
        self.layer = 0

    def mix(
        self,
        query: Float[Tensor, "B T H E"],
        key: Float[Tensor, "B T K E"],
        value: Float[Tensor, "B T K E"],
    ) -> Float[Tensor, "B T H E"]:
        """Store the keys and values; queries see those stored before and the pass's own."""
        # Attention first: storing may overwrite keys that the first queries of the pass see.
        if self.packed is not None:
            out = self.packed.mix(query, key, value)
        else:
            out = self._continued(query, key, value)
        keys, values = key.flatten(0, 1), value.flatten(0, 1)
        for n, start, place in zip(self.sequences, self.starts, self.places, strict=True):
            self.storage.store(self.layer, n, start, keys[place], values[place])
        self.layer += 1
        return out

    def _continued(
        self,
        query: Float[Tensor, "B T H E"],
        key: Float[Tensor, "B T K E"],
        value: Float[Tensor, "B T K E"],
    ) -> Float[Tensor, "B T H E"]:
        """Attention of each sequence to its stored keys and its new ones."""
        q, k, v = (x.flatten(0, 1) for x in (query, key, value))  # (B * T, heads, E)
        out = torch.empty_like(q)
        for n, place in zip(self.sequences, self.places, strict=True):
            old_key, old_value = self.storage.history(self.layer, n)
            keys, values = torch.cat([old_key, k[place]]), torch.cat([old_value, v[place]])
            out[place] = attention_after(q[place], keys, values, self.storage.window)
        return out.view_as(query)

    def finish(self) -> None:
        for n, stop in zip(self.sequences, self.stops, strict=True):
            self.storage.lengths[n] = stop
