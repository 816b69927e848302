"""A base with adapters merged into it, as `WeightSource`: rows are computed as they are read.

Only the rows of one `read` are in memory, so a merge needs no more memory than a copy.
`pretrained.safetensors_folder.write_folder` writes such weights; a run can start from them
directly.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property, partial
from itertools import pairwise

import torch
from torch import Tensor

from model.config import ModelConfig
from model.transformer import Mistral
from pretrained.adapter import TABLES, AdapterFolder
from pretrained.adapter_update import Kept
from pretrained.safetensors_folder import PretrainedFolder

ADAPTED = "adapters:"
"""Begins the digest of a base with adapters; no digest of a folder begins so."""
_BLOCK_ROWS = 128  # rows that are merged together, at fixed places


class MergedAdapters:
    """A base with adapters merged into it as PEFT merges each: W + sum of weight * (merged - W).

    An update of low rank counts as weight * s * B A; what an adapter has trained whole counts as
    its difference to the base, and a single adapter of weight 1 gives its own rows, bit for bit.
    The bits of a matrix product depend on the number of its rows, so rows are merged in blocks at
    fixed places: a row has the same bits whichever other rows are read with it.

    If an adapter trained embedding and head of a tied model independently, as PEFT does unless
    `ensure_weight_tying` is set, the merged model is not tied. (PEFT's merge_and_unload adds a
    low-rank update to the shared table, which gives other results than the adapter.) A single
    adapter that contains a whole, resized embedding and head decides the size of the
    vocabulary; rows that the base does not have are its own, whatever its weight.

    Attributes:
        config, shapes: those of the base, except for the vocabulary's size and a separate head.
        folder: folder of the base.
        base: the base.
        adapters: (adapter, weight).
        digest: sha256 over the digest of the base and, for each adapter, its weight, settings and
            stored tensors (some rows, as in `PretrainedFolder.digest`), behind `ADAPTED`. No
            product enters the digest, so the processor does not change it. A folder that the
            merge is written to has another digest.

    Raises:
        ValueError: an adapter does not fit the base, or an adapter's digest names another one.
    """

    def __init__(
        self, base: PretrainedFolder, adapters: Sequence[tuple[AdapterFolder, float]]
    ) -> None:
        self.base, self.adapters, self.folder = base, list(adapters), base.folder
        for adapter, _ in adapters:
            adapter.check(base)
        self.config: ModelConfig = _merged_config(base, [adapter for adapter, _ in adapters])
        self.shapes = dict(base.shapes)
        for table in TABLES:
            width = base.shapes[TABLES[0]][1]
            self.shapes[table] = torch.Size((self.config.vocab_size, width))
        if self.config.tie_word_embeddings:
            del self.shapes[TABLES[1]]
        self._tuned = [(_Tuned(base, adapter), weight) for adapter, weight in adapters]

    def check(self, model: Mistral) -> None:
        """Compare the base with the network that it is for; see `PretrainedFolder.check`."""
        if self.config != self.base.config:
            with torch.device("meta"):
                model = Mistral(self.base.config)
        self.base.check(model)

    def dtype(self, name: str) -> torch.dtype:
        """Storage dtype of a tensor in the base."""
        return self.base.dtype(_name_in(self.base, name))

    @cached_property
    def digest(self) -> str:
        parts = [self.base.digest]
        for adapter, weight in self.adapters:
            parts.append(f"{float(weight)} {adapter.digest(self.base.config)}")
        return ADAPTED + hashlib.sha256("\n".join(parts).encode()).hexdigest()

    @torch.no_grad()
    def read(self, name: str, rows: slice) -> Tensor:
        """Rows of one tensor; in fp32 where something is merged into them."""
        height = self.shapes[name][0]
        first, stop, _ = rows.indices(height)
        if first >= stop or not any(tuned.changes(name) for tuned, _ in self._tuned):
            return self.base.read(_name_in(self.base, name), rows)
        # A block ends too where the base has no more rows.
        shared = min(height, self.base.shapes[_name_in(self.base, name)][0])
        borders = sorted({*range(0, height, _BLOCK_ROWS), shared, height})
        blocks = [
            slice(begin, end) for begin, end in pairwise(borders) if begin < stop and end > first
        ]
        merged = torch.cat([self._merge(name, block, shared) for block in blocks])
        return merged[first - blocks[0].start : stop - blocks[0].start]

    def _merge(self, name: str, rows: slice, shared: int) -> Tensor:
        """A block of rows, which lie before or behind the last row that the base has."""
        changing = [(tuned, weight) for tuned, weight in self._tuned if tuned.changes(name)]
        if rows.start >= shared or (len(self._tuned) == 1 and changing[0][1] == 1):
            ((tuned, _),) = changing
            return tuned.merged(name, rows)
        base = self.base.read(_name_in(self.base, name), rows)
        merged = base.to(torch.float32, copy=True)  # `base` may be the mapped file itself
        for tuned, weight in changing:
            merged += weight * tuned.change(name, rows, base)
        return merged


class _Tuned:
    """A base with one adapter of weight 1."""

    def __init__(self, base: PretrainedFolder, adapter: AdapterFolder) -> None:
        self._base, self._adapter = base, adapter
        self._kept: Kept = {}

    def changes(self, name: str) -> bool:
        """Check if a tensor differs from that of the base."""
        return self._source(name) in self._adapter.updates or self._stored(name) is not None

    def merged(self, name: str, rows: slice) -> Tensor:
        """Rows of a tensor that the adapter changes."""
        update = self._adapter.updates.get(self._source(name))
        if update is None:
            return self._before(name, rows)
        before = partial(self._before, name)
        return update.merged(self._adapter.read, before, rows, self._kept)

    def change(self, name: str, rows: slice, base: Tensor) -> Tensor:
        """The same less the rows of the base, in fp32."""
        update = self._adapter.updates.get(self._source(name))
        if update is None or self._stored(name) is not None:
            return self.merged(name, rows).float() - base.float()
        before = partial(self._before, name)
        return update.change(self._adapter.read, before, rows, self._kept)

    def _source(self, name: str) -> str:
        """The tensor whose update counts; of a tied head that follows, the embedding."""
        tied = self._base.config.tie_word_embeddings and self._adapter.head_follows
        return TABLES[0] if tied and name == TABLES[1] else name

    def _stored(self, name: str) -> str | None:
        if name not in TABLES:
            return None
        return self._adapter.base_name(self._source(name), self._base.config)

    def _before(self, name: str, rows: slice) -> Tensor:
        """Rows of what the update is added to."""
        if (stored := self._stored(name)) is not None:
            return self._adapter.read(stored, rows)
        return self._base.read(_name_in(self._base, name), rows)


class ContinuedAdapter:
    """A base with the tensors of an adapter, unmerged: `WeightSource` of a model that went through
    `add_lora` with the adapter's settings."""

    def __init__(self, base: PretrainedFolder, adapter: AdapterFolder) -> None:
        self._base, self._adapter = base, adapter

    def read(self, name: str, rows: slice) -> Tensor:
        """Rows of one tensor."""
        source = self._adapter if name in self._adapter.shapes else self._base
        return source.read(name, rows)


def _name_in(base: PretrainedFolder, name: str) -> str:
    """Under which name a base has a tensor: where it is tied, the head is the embedding."""
    return TABLES[0] if base.config.tie_word_embeddings and name == TABLES[1] else name


def _merged_config(base: PretrainedFolder, adapters: Sequence[AdapterFolder]) -> ModelConfig:
    """The shape of a base with adapters.

    Raises:
        ValueError: several adapters, of which one has another vocabulary than the base.
    """
    config = base.config
    rows = {adapter.vocabulary(config) for adapter in adapters} | {config.vocab_size}
    if len(rows) > 1:
        if len(adapters) > 1:
            raise ValueError(
                f"{', '.join(str(adapter.folder) for adapter in adapters)} on {base.folder}: "
                f"vocabularies of {' and '.join(map(str, sorted(rows)))} rows; an adapter that has "
                "another one than its base can only be merged alone"
            )
        height = adapters[0].vocabulary(config)
        new = None if (config.num_base_ids or 0) > height else config.num_base_ids
        config = replace(config, vocab_size=height, num_padded_ids=0, num_base_ids=new)
    if config.tie_word_embeddings and not all(adapter.head_follows for adapter in adapters):
        config = replace(config, tie_word_embeddings=False)
    return config


Folder = PretrainedFolder | MergedAdapters
