"""Weights that arise from several folders, as `WeightSource`: computed as they are read.

Nothing is ever held but the rows that are asked for, so a merge costs no more memory than a copy:
`pretrained.safetensors_folder.write_folder` turns one into a folder, a run starts from one without
it.
"""

import hashlib
import math
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property, partial
from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor

from model.config import ModelConfig
from model.transformer import Mistral
from pretrained.adapter import TABLES, AdapterFolder
from pretrained.adapter_update import Kept
from pretrained.safetensors_folder import PretrainedFolder

ADAPTED = "adapters:"
"""Begins the digest of a base with adapters; no digest of a folder begins so."""
_CHUNK = 2**21  # weights that are held in fp64 at a time
_BLOCK_ROWS = 128  # rows that are merged together, at fixed places


class MergedAdapters:
    """A base with adapters merged into it as PEFT merges each: W + sum of weight * (merged - W).

    An update of low rank counts as weight * s * B A; what an adapter has trained whole counts as
    its difference to the base, and a single adapter of weight 1 gives its own rows, bit for bit.
    The bits of a matrix product depend on the number of its rows, so rows are merged in blocks at
    fixed places: a row has the same bits whichever other rows are read with it.

    Where an adapter has trained embedding and head of a tied model apart, as PEFT does unless
    `ensure_weight_tying` is set, the merged model is not tied. (PEFT's merge_and_unload puts an
    update of low rank into the shared table, and then computes something else than the adapter
    did.) One adapter that holds a resized embedding and head whole decides the size of the
    vocabulary; rows that the base does not have are its own, whatever its weight.

    Attributes:
        config, shapes: of the base, but for the size of the vocabulary and a head of its own.
        folder: of the base.
        base: what the adapters are merged into.
        adapters: with the weight of each.
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
        """What the base stores a tensor in."""
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


class ChatVector:
    """Ours + scale * (chat - base): the ability to follow instructions, moved without training.

    Huang et al. 2024 (Chat Vector), section 3. Where our vocabulary has grown, rows of embedding
    and head that all three have are moved, the others stay as they are.

    Attributes:
        config, shapes, folder: of ours.

    Raises:
        ValueError: the three are not of one shape.
    """

    def __init__(
        self, ours: PretrainedFolder, chat: PretrainedFolder, base: PretrainedFolder, scale: float
    ) -> None:
        self.config, self.shapes, self.folder = ours.config, ours.shapes, ours.folder
        self._ours, self._chat, self._base, self._scale = ours, chat, base, scale
        for other in (chat, base):
            _check_same_architecture(ours, other)
        _check_tuned_from(chat, base)
        heights = [x.config.num_tokens for x in (ours, chat, base)]
        self.shared_rows = min(heights)

    def dtype(self, name: str) -> torch.dtype:
        """What ours stores a tensor in."""
        return self._ours.dtype(name)

    @torch.no_grad()
    def read(self, name: str, rows: slice) -> Tensor:
        """Rows of one tensor, in fp32."""
        ours = self._ours.read(name, rows).to(torch.float32, copy=True)
        first, stop, _ = rows.indices(self.shapes[name][0])
        if name in TABLES:
            stop = min(stop, self.shared_rows)
        if stop > first:
            shared = slice(first, stop)
            change = self._chat.read(name, shared).float() - self._base.read(name, shared).float()
            # Not `alpha=`, which a vector unit may round once and the rest of a row twice.
            ours[: stop - first] += self._scale * change
        return ours


Folder = PretrainedFolder | MergedAdapters


class TaskArithmetic:
    """Base + sum of weight * (tuned - base).

    Task arithmetic (Ilharco et al. 2023, section 2); with one tuned model and a weight from 0 to 1
    a point of the straight line between two models (WiSE-FT, Wortsman et al. 2022, section 3).
    Computed in fp64 and rounded to fp32, so that what tuning has left as it was stays so bit for
    bit, and both ends of the line are the two models.

    Attributes:
        base: what was tuned.
        tuned: with the weight of each; at least one.
        shared_rows: rows of embedding and head that stand for the same pieces in all. Those from
            there on are new in the tuned model, of which there is one then: they are its own,
            whatever its weight.
        config, shapes, folder: of the only tuned model, or of the base if there are several.

    Raises:
        ValueError: they are not of one shape.
    """

    def __init__(
        self, base: Folder, tuned: Sequence[tuple[Folder, float]], *, shared_rows: int
    ) -> None:
        self.base, self.tuned, self.shared_rows = base, list(tuned), shared_rows
        self._like = base if len(self.tuned) > 1 else self.tuned[0][0]
        self.config, self.shapes = self._like.config, self._like.shapes
        self.folder: Path = self._like.folder
        height = base.config.vocab_size
        for other, _ in self.tuned:
            _check_same_architecture(base, other)
            _check_tuned_from(other, base)
            rows = other.config.vocab_size
            if rows < height or (rows > height and len(self.tuned) > 1):
                remedy = (
                    "only a vocabulary that grew can be blended"
                    if rows < height
                    else "new rows can be blended from one model alone"
                )
                raise ValueError(
                    f"{other.folder} has {rows} rows of the vocabulary, {base.folder} has "
                    f"{height}; {remedy}"
                )

    def at(self, weight: float) -> "TaskArithmetic":
        """Another point of the line, where there is one tuned model."""
        ((tuned, _),) = self.tuned
        return TaskArithmetic(self.base, [(tuned, weight)], shared_rows=self.shared_rows)

    def dtype(self, name: str) -> torch.dtype:
        """What the model whose shape this has stores a tensor in."""
        return self._like.dtype(name)

    @torch.no_grad()
    def read(self, name: str, rows: slice) -> Tensor:
        """Rows of one tensor, in fp32."""
        height, *rest = self.shapes[name]
        first, stop, _ = rows.indices(height)
        shared = stop
        if name in TABLES:
            shared = min(stop, max(first, self.shared_rows))
        mixed = torch.empty((max(0, stop - first), *rest))
        at_once = max(1, _CHUNK // math.prod(rest))
        for start in range(first, shared, at_once):
            chunk = slice(start, min(start + at_once, shared))
            mixed[start - first : chunk.stop - first] = self._mix(name, chunk)
        if shared < stop:
            mixed[shared - first :] = self._like.read(name, slice(shared, stop))
        return mixed

    def _mix(self, name: str, rows: slice) -> Tensor:
        (tuned, weight), *others = self.tuned
        if weight == 1 and not others:  # the sum would lose weights much smaller than the base's
            return tuned.read(name, rows)
        base = self.base.read(name, rows).double()
        mixed = base.clone()
        for tuned, weight in self.tuned:
            if weight:  # 0 times a difference would change the sign of a zero
                mixed += weight * (tuned.read(name, rows).double() - base)
        return mixed


def _check_tuned_from(tuned: Folder, base: Folder) -> None:
    """ValueError where what config.json says besides shapes shows that it was not."""
    for name in ("rope_theta", "num_attention_heads", "num_key_value_heads", "sliding_window"):
        one, two = (getattr(folder.config, name) for folder in (tuned, base))
        if one != two:
            raise ValueError(
                f"{tuned.folder} was not tuned from {base.folder}: {name} is {one} and {two}"
            )


def _check_same_architecture(ours: Folder, other: Folder) -> None:
    for name in sorted(ours.shapes.keys() | other.shapes.keys()):
        one, two = (tuple(folder.shapes.get(name, ())) for folder in (ours, other))
        if name in TABLES and one and two:
            one, two = one[1:], two[1:]  # the number of rows may differ
        if one != two:
            raise ValueError(
                f"{other.folder} has another architecture than {ours.folder}: {name} is "
                f"{two or 'absent'} there and {one or 'absent'} here"
            )
