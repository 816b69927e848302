"""The tensors of an adapter as PEFT names them, and what each name means."""

import math
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

WEIGHTS = "adapter_model.safetensors"
PICKLED = "adapter_model.bin"
PREFIX = "base_model.model."
BASE_DIGEST = "base_digest"
_DTYPES = ("F64", "F32", "F16", "BF16")  # as safetensors calls them

# Ends of tensor names after the name of the module; of two that match, the longer one is first.
_ENDS = (
    *("lora_A.weight", "lora_B.weight", "lora_embedding_A", "lora_embedding_B"),
    *("lora_magnitude_vector", "lora_magnitude_vector.weight"),
    *("token_adapter.trainable_tokens_delta", "token_adapter.base_layer.weight"),
    *("base_layer.weight", "original_module.weight", "modules_to_save.weight", "weight"),
)
# What a whole module is saved with where `save_embedding_layers` is set: the module as it was, and
# itself once more.
COPIES = {"original_module.weight", "modules_to_save.weight"}
# The base as training found it, a vocabulary that was resized included.
STORED_BASE = {"base_layer.weight", "token_adapter.base_layer.weight"}
# State of training that no forward pass reads (VeLoRA, MonteCLoRA).
_TRAINING_ONLY = (".lora_velora_embed", ".lora_monteclora_sampler.")


class AdapterTensors:
    """The file of an adapter's tensors, opened for reading; names are those without PEFT's prefix.

    Attributes:
        base_digest: digest of the base in the file's metadata.
        shapes: of all tensors but those that only training reads.
        modules: the ends of the names of each module's tensors, by the name of the module.

    Raises:
        ValueError: the file is missing or damaged, or its tensors are not those of LoRA.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / WEIGHTS
        self._file = _open_weights(folder)
        self._keys: dict[str, str] = {}  # of the tensors in the file, by their names here
        self.base_digest: str | None = (self._file.metadata() or {}).get(BASE_DIGEST)
        self.shapes = self._stored_shapes()
        self.modules = _by_module(folder, self.shapes)

    def _stored_shapes(self) -> dict[str, torch.Size]:
        """Of all tensors but what only training reads, by their names without the prefix."""
        shapes = {}
        for key in self._file.keys():  # noqa: SIM118 not a dict
            if not key.startswith(PREFIX):
                raise ValueError(
                    f"{self._path}: {key} does not begin with {PREFIX}, so that PEFT passes "
                    "it over; save the adapter from the model that PEFT returned"
                )
            if any(part in key for part in _TRAINING_ONLY):
                continue
            stored = self._file.get_slice(key)
            if stored.get_dtype() not in _DTYPES:
                raise ValueError(
                    f"{self._path}: {key} is stored in {stored.get_dtype()}; only "
                    f"{', '.join(_DTYPES)} are read, so save the adapter without quantization"
                )
            name = _DEFAULT.sub("", key.removeprefix(PREFIX))
            if name in shapes:
                raise ValueError(
                    f"{self._path}: {name} is there twice, once with the name of an adapter "
                    "(default); remove one of the tensors"
                )
            shapes[name], self._keys[name] = torch.Size(stored.get_shape()), key
        return shapes

    def read(self, name: str, rows: slice | tuple[slice, slice]) -> Tensor:
        """Rows of one tensor, or a part of a matrix; only they are read from disk.

        Raises:
            ValueError: a value is infinite or NaN.
        """
        part = self._file.get_slice(self._keys[name])[rows]
        if part.numel() and not all(map(math.isfinite, torch.stack(part.aminmax()).tolist())):
            raise ValueError(
                f"{self._path}: {name} holds values that are infinite or NaN; the adapter "
                "is damaged, take another copy or an earlier checkpoint"
            )
        return part


def _open_weights(folder: Path) -> Any:
    path = folder / WEIGHTS
    if not path.is_file() and (folder / PICKLED).is_file():
        raise ValueError(
            f"{folder} has its weights in {PICKLED}, and only {WEIGHTS} is read; convert it, in "
            'that folder: python -c "import torch, safetensors.torch as s; s.save_file({k: '
            f"v.clone() for k, v in torch.load('{PICKLED}', weights_only=True).items()}}, "
            f"'{WEIGHTS}')\""
        )
    if not path.is_file():
        raise ValueError(f"{folder}: no {WEIGHTS}; the adapter is incomplete, copy the file there")
    try:
        return safe_open(path, framework="pt")
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path}: {error}; the file is damaged") from None


_WITH_NAME = re.compile(
    r"\.(?:lora_(?:A|B|embedding_A|embedding_B|magnitude_vector)|modules_to_save"
    r"|trainable_tokens_delta)\.(?!(?:weight|bias)$)(?P<name>\w+)(?:\.weight)?$"
)
"""Names of tensors in memory, with the name of their adapter, which PEFT's files leave out."""
_DEFAULT = re.compile(r"(?<=\.lora_[AB])\.default(?=\.weight$)")
"""The one name of an adapter, and its places, with which PEFT (0.21) reads the factors as well."""


def _by_module(folder: Path, names: Iterable[str]) -> dict[str, set[str]]:
    """Module -> the ends of the names of its tensors."""
    modules: dict[str, set[str]] = {}
    for name in sorted(names):
        if found := _WITH_NAME.search(name):
            raise ValueError(
                f"{folder / WEIGHTS}: {name} has the name of an adapter ({found['name']}), as in "
                "memory and not as in PEFT's files; save the adapter with PEFT's "
                f"save_pretrained, or remove .{found['name']} from the names of the tensors"
            )
        end = next((end for end in _ENDS if name.endswith(f".{end}")), None)
        if end is None:
            raise ValueError(
                f"{folder / WEIGHTS}: {name} belongs to a kind of adapter that is not implemented; "
                "where PEFT can merge this kind (merge_and_unload), give the merged folder"
            )
        modules.setdefault(name.removesuffix(f".{end}"), set()).add(end)
    return modules
