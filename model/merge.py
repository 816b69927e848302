"""Weights that arise from several folders, as `WeightSource`: computed in fp32 as they are read.

Nothing is ever held but the rows that are asked for, so a merge costs no more memory than a copy:
`model.weights.write_folder` turns one into a folder, a run starts from one without it.
"""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from model.adapter import AdapterFolder
from model.config import ModelConfig
from model.lora import SAVED_NAMES
from model.transformer import Mistral
from model.weights import PretrainedFolder


class MergedAdapters:
    """A base with adapters merged into it: W + sum of weight * s * B A.

    What an adapter has trained whole (`modules_to_save`) counts as its difference to the base; a
    single adapter of weight 1 gives its own rows, bit for bit.

    Attributes:
        config, shapes, folder: of the base.

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

    @torch.no_grad()
    def read(self, name: str, rows: slice) -> Tensor:
        """Rows of one tensor; in fp32 where something is merged into them."""
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
            merged.add_(change, alpha=weight)
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
        for name in ("rope_theta", "num_attention_heads", "num_key_value_heads", "sliding_window"):
            one, two = (getattr(folder.config, name) for folder in (chat, base))
            if one != two:
                raise ValueError(
                    f"{chat.folder} was not tuned from {base.folder}: {name} is {one} and {two}"
                )
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
            ours[: stop - first].add_(change, alpha=self._scale)
        return ours


def _check_same_architecture(ours: PretrainedFolder, other: PretrainedFolder) -> None:
    for name in sorted(ours.shapes.keys() | other.shapes.keys()):
        one, two = (tuple(folder.shapes.get(name, ())) for folder in (ours, other))
        if name in SAVED_NAMES.values() and one and two:
            one, two = one[1:], two[1:]  # the number of rows may differ
        if one != two:
            raise ValueError(
                f"{other.folder} has another architecture than {ours.folder}: {name} is "
                f"{two or 'absent'} there and {one or 'absent'} here"
            )
