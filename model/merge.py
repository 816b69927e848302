"""Weights that arise from several folders, as `WeightSource`: computed as they are read.

Nothing is ever held but the rows that are asked for, so a merge costs no more memory than a copy:
`model.weights.write_folder` turns one into a folder, a run starts from one without it.
"""

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import asdict
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from model.adapter import AdapterFolder
from model.config import ModelConfig
from model.lora import SAVED_NAMES, LoraConfig
from model.transformer import Mistral
from model.weights import PretrainedFolder, digest_of

ADAPTED = "adapters:"
"""Begins the digest of a base with adapters; no digest of a folder begins so."""
_CHUNK = 2**21  # weights that are held in fp64 at a time
_BLOCK_ROWS = 128  # rows that are merged together, at fixed places
_TRAINING_ONLY = ("dropout", "lr_ratio")  # settings of an adapter that a merge does not read
_PLAIN = asdict(LoraConfig(rank=1, alpha=1.0))


class MergedAdapters:
    """A base with adapters merged into it: W + sum of weight * s * B A.

    What an adapter has trained whole (`modules_to_save`) counts as its difference to the base; a
    single adapter of weight 1 gives its own rows, bit for bit. The bits of a matrix product depend
    on the number of its rows, so rows are merged in blocks at fixed places: a row has the same bits
    whichever other rows are read with it.

    Attributes:
        config, shapes, folder: of the base.
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
        self.config: ModelConfig = base.config
        self.shapes = base.shapes
        self.folder: Path = base.folder
        self._base, self._adapters = base, list(adapters)
        for adapter, _ in adapters:
            check_fit(adapter, base)

    def check(self, model: Mistral) -> None:
        """Compare the base with a model's parameters; see `PretrainedFolder.check`."""
        self._base.check(model)

    def dtype(self, name: str) -> torch.dtype:
        """What the base stores a tensor in."""
        return self._base.dtype(name)

    @cached_property
    def digest(self) -> str:
        parts = [self._base.digest]
        for adapter, weight in self._adapters:
            # Without the default values, so that a new field changes no digest.
            settings = {
                name: value
                for name, value in asdict(adapter.config).items()
                if name not in _TRAINING_ONLY and value != _PLAIN[name]
            }
            tensors = digest_of(adapter.read, adapter.shapes, self.config)
            parts.append(json.dumps([float(weight), settings, tensors], sort_keys=True))
        return ADAPTED + hashlib.sha256("\n".join(parts).encode()).hexdigest()

    @torch.no_grad()
    def read(self, name: str, rows: slice) -> Tensor:
        """Rows of one tensor; in fp32 where something is merged into them."""
        height = self.shapes[name][0]
        first, stop, _ = rows.indices(height)
        changed = {name, f"{name.removesuffix('.weight')}.lora_A.weight"}
        if first >= stop or not any(
            changed & adapter.shapes.keys() for adapter, _ in self._adapters
        ):
            return self._base.read(name, rows)
        start = first // _BLOCK_ROWS * _BLOCK_ROWS
        blocks = [
            self._merge(name, slice(place, min(place + _BLOCK_ROWS, height)))
            for place in range(start, stop, _BLOCK_ROWS)
        ]
        return torch.cat(blocks)[first - start : stop - start]

    def _merge(self, name: str, rows: slice) -> Tensor:
        base = self._base.read(name, rows)
        update = name.removesuffix(".weight")
        merged: Tensor | None = None
        for adapter, weight in self._adapters:
            if name in adapter.shapes:
                saved = adapter.read(name, rows)
                if weight == 1 and len(self._adapters) == 1:
                    return saved
                change = saved.float() - base.float()
            elif f"{update}.lora_A.weight" in adapter.shapes:
                a = adapter.read(f"{update}.lora_A.weight", slice(None)).float()  # (R, in)
                b = adapter.read(f"{update}.lora_B.weight", rows).float()  # (rows, R)
                change = adapter.config.scale * (b @ a)
            else:
                continue
            if merged is None:
                merged = base.to(torch.float32, copy=True)  # `base` may be the mapped file itself
            merged += weight * change
        return base if merged is None else merged


def check_fit(adapter: AdapterFolder, base: PretrainedFolder) -> None:
    """ValueError unless an adapter was trained on this base, as far as can be told."""
    with torch.device("meta"):
        model = Mistral(base.config)
    adapter.add_to(model)
    adapter.check(model, base)


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
        if name in SAVED_NAMES.values():
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
        if name in SAVED_NAMES.values():
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
        if name in SAVED_NAMES.values() and one and two:
            one, two = one[1:], two[1:]  # the number of rows may differ
        if one != two:
            raise ValueError(
                f"{other.folder} has another architecture than {ours.folder}: {name} is "
                f"{two or 'absent'} there and {one or 'absent'} here"
            )
