"""Arithmetic on the weights of whole models, as `WeightSource`: rows are computed as they are read.

Only the rows of one `read` are in memory, so a merge needs no more memory than a copy.
"""

import math
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from pretrained.adapter import TABLES
from pretrained.merged import Folder
from pretrained.safetensors_folder import PretrainedFolder

_CHUNK = 2**21  # weights that are in memory in fp64 at a time


class ChatVector:
    """ours + scale * (chat - base): instruction following without training.

    Huang et al. 2024 (Chat Vector), section 3. If the vocabulary of `ours` has grown, only the rows
    of embedding and head that all three models have are changed.

    Attributes:
        config, shapes, folder: those of `ours`.
        shared_rows: number of rows of embedding and head that all three have.

    Raises:
        ValueError: the three models differ in architecture.
    """

    def __init__(
        self, ours: PretrainedFolder, chat: PretrainedFolder, base: PretrainedFolder, scale: float
    ) -> None:
        self.config, self.shapes, self.folder = ours.config, ours.shapes, ours.folder
        self._ours, self._chat, self._base, self._scale = ours, chat, base, scale
        for other in (chat, base):
            _check_same_architecture(ours, other)
        _check_tuned_from(chat, base)
        self.shared_rows = min(x.config.num_tokens for x in (ours, chat, base))

    def dtype(self, name: str) -> torch.dtype:
        """Storage dtype of a tensor in `ours`."""
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
            # `alpha=` would round once in a vector unit and twice in the rest of a row.
            ours[: stop - first] += self._scale * change
        return ours


class TaskArithmetic:
    """Base + sum of weight * (tuned - base).

    Task arithmetic (Ilharco et al. 2023, section 2). One tuned model and a weight from 0 to 1 give
    a point on the straight line between two models (WiSE-FT, Wortsman et al. 2022, section 3).
    The sum is computed in fp64 and rounded to fp32, so that weights that tuning left unchanged stay
    equal bit for bit, and both ends of the line equal the two models.

    Attributes:
        base: the model before tuning.
        tuned: (tuned model, weight), at least one.
        shared_rows: number of rows of embedding and head whose pieces are the same in all models.
            Later rows are new in the tuned model, which must then be the only one; they are copied
            from it for every weight.
        config, shapes, folder: those of the only tuned model, or of the base if there are several.

    Raises:
        ValueError: the models differ in architecture, or a vocabulary shrank.
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
        """The same line at another weight; needs exactly one tuned model."""
        ((tuned, _),) = self.tuned
        return TaskArithmetic(self.base, [(tuned, weight)], shared_rows=self.shared_rows)

    def dtype(self, name: str) -> torch.dtype:
        """Storage dtype of a tensor."""
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
        if weight == 1 and not others:  # a sum would lose weights much smaller than the base's
            return tuned.read(name, rows)
        base = self.base.read(name, rows).double()
        mixed = base.clone()
        for tuned, weight in self.tuned:
            if weight:  # adding 0 would change the sign of -0.0
                mixed += weight * (tuned.read(name, rows).double() - base)
        return mixed


def _check_tuned_from(tuned: Folder, base: Folder) -> None:
    """ValueError if settings of config.json show that the model was not tuned from this base."""
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
