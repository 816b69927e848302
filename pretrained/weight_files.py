"""The safetensors of an HF folder: which files are read, and what they must hold.

transformers decides which files count: `model.safetensors` where it exists, else the shards of the
index. Tensors that are missing, unexpected, misshapen, not floating or stored twice are refused by
name before any is read.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from model.config import ModelConfig
from model.transformer import Mistral
from storage.json_file import read_object, shown

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"
_FLOATING = ("F64", "F32", "F16", "BF16")
# Old Llama folders store the rotary frequencies, which follow from the config.
_DERIVED_SUFFIX = "rotary_emb.inv_freq"
_MOST_PROBLEMS = 12

# Wrappers of a network in training; their names become part of the saved names.
_WRAPPERS = {
    "_orig_mod.": "a compiled network",
    "module.": "a network wrapped for data parallelism",
    "_fsdp_wrapped_module.": "a network wrapped by FSDP",
    "_checkpoint_wrapped_module.": "a network with activation checkpointing",
    "base_model.model.": "a PEFT model that was not merged",
    "language_model.": "the text part of a vision model",
}


@dataclass(frozen=True)
class StoredTensor:
    """A tensor on disk.

    Attributes:
        path, file: where it is stored; the opened file.
        name: what the file calls it.
    """

    path: Path
    file: Any
    name: str

    def read(self, rows: slice) -> Tensor:
        """Some rows; only they are read from disk."""
        return self.file.get_slice(self.name)[rows]

    @property
    def shape(self) -> torch.Size:
        """Its shape."""
        return torch.Size(self.file.get_slice(self.name).get_shape())

    @property
    def kind(self) -> str:
        """Its dtype as safetensors spells it: F32, BF16, I8, ..."""
        return self.file.get_slice(self.name).get_dtype()


def open_tensors(folder: Path, config: ModelConfig) -> dict[str, StoredTensor]:
    """Open all tensors of a folder, by their names in the network.

    A tied head that is stored as well is among them, under its own name; where only the head is
    stored, the embedding is read from it, as transformers does.

    Raises:
        ValueError: a file is missing, damaged or out of the folder, or the tensors do not fit.
    """
    wanted = weight_shapes(config)
    tensors: dict[str, StoredTensor] = {}
    files = _files(folder)
    _check_index(folder, (name for names in files.values() for name in names or ()), wanted)
    for path, names in files.items():
        file = _open(path)
        stored = set(file.keys())
        if absent := sorted(set(names or ()) - stored):
            raise ValueError(f"{path}: {INDEX} promises {absent[0]}, the file lacks it")
        for name in sorted(stored):
            if name in tensors:
                raise ValueError(
                    f"{folder}: {name} is stored twice, in {tensors[name].path.name} and "
                    f"{path.name}; remove one of them"
                )
            if not name.endswith(_DERIVED_SUFFIX):
                tensors[name] = StoredTensor(path, file, name)
    if config.tie_word_embeddings and HEAD in tensors and EMBEDDING not in tensors:
        tensors[EMBEDDING] = tensors.pop(HEAD)
    _check(folder, tensors, wanted)
    return tensors


def weight_shapes(config: ModelConfig) -> dict[str, torch.Size]:
    """The shape of every tensor of a network, by name; a tied head is none."""
    with torch.device("meta"):
        model = Mistral(replace(config, num_hidden_layers=1))
    shapes: dict[str, torch.Size] = {}
    for name, parameter in model.named_parameters():
        first = "model.layers.0."
        if not name.startswith(first):
            shapes[name] = parameter.shape
            continue
        for layer in range(config.num_hidden_layers):
            shapes[f"model.layers.{layer}.{name.removeprefix(first)}"] = parameter.shape
    return shapes


def _files(folder: Path) -> dict[Path, list[str] | None]:
    """The files that are read, with the names that the index places in each."""
    if (single := folder / SINGLE).is_file():
        return {single: None}
    index = folder / INDEX
    if not index.is_file():
        raise ValueError(
            f"{folder}: neither {SINGLE} nor {INDEX}; only safetensors are read, convert .bin "
            "files and other formats first (open them in transformers and call save_pretrained)"
        )
    weight_map = read_object(index).get("weight_map")
    if not isinstance(weight_map, dict):
        raise ValueError(
            f"{index}: weight_map={shown(weight_map)} is not an object; copy the damaged file again"
        )
    files: dict[Path, list[str] | None] = {}
    for name, file in weight_map.items():
        if not isinstance(file, str) or not _is_bare(file):
            raise ValueError(
                f"{index}: {name} is in {shown(file)}, which is not the name of a "
                "safetensors file in this folder"
            )
        names = files.setdefault(folder / file, [])
        assert names is not None
        names.append(name)
    return files


def _is_bare(name: str) -> bool:
    """True for the name of a file without any folder. What a link of that name leads to is not
    asked: the hub's cache is made of links."""
    return name.endswith(".safetensors") and not re.search(r"[/\\\0]", name)


def _open(path: Path) -> Any:
    if not path.is_file():  # a pipe would be waited for
        raise ValueError(f"{path}: the file is missing, or no regular file")
    try:
        return safe_open(path, framework="pt")
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path}: {error}; the file is missing or damaged") from None


def _check(
    folder: Path, tensors: Mapping[str, StoredTensor], wanted: Mapping[str, torch.Size]
) -> None:
    """ValueError for tensors that are missing, unexpected, misshapen or of no floating dtype."""
    shapes = {HEAD: wanted[EMBEDDING], **wanted}
    problems = [f"missing {name}" for name in sorted(wanted.keys() - tensors.keys())]
    problems += [f"unexpected {name}" for name in sorted(tensors.keys() - shapes.keys())]
    for name in sorted(tensors.keys() & shapes.keys()):
        shape, kind = tensors[name].shape, tensors[name].kind
        if shape != shapes[name]:
            means = tuple(shapes[name])
            problems.append(f"{name} has shape {tuple(shape)}, config.json means {means}")
        if kind not in _FLOATING:
            problems.append(
                f"{name} is stored as {kind}; only {', '.join(_FLOATING)} are read, convert it"
            )
    if problems:
        raise ValueError(f"{folder}: {_listed(problems)}{_hint(set(tensors), wanted)}")


def _check_index(folder: Path, names: Iterable[str], wanted: Mapping[str, torch.Size]) -> None:
    """ValueError for names that the network does not have, before many files are opened."""
    known = {HEAD, *wanted}
    listed = {name for name in names if not name.endswith(_DERIVED_SUFFIX)}
    if problems := [f"unexpected {name}" for name in sorted(listed - known)]:
        raise ValueError(f"{folder}: {_listed(problems)}{_hint(listed, wanted)}")


def _listed(problems: list[str]) -> str:
    more = len(problems) - _MOST_PROBLEMS
    return "; ".join(problems[:_MOST_PROBLEMS]) + (f"; and {more} more" if more > 0 else "")


def _hint(found: set[str], wanted: Mapping[str, torch.Size]) -> str:
    """Origin of foreign tensor names, with a remedy."""
    for marker, what in _WRAPPERS.items():
        if any(marker in name and name.replace(marker, "") in wanted for name in found):
            return f" (the names hold {marker!r}, as {what} is saved: remove it from the names)"
    if any(f"model.{name}" in wanted for name in found):
        return (
            " (the names lack 'model.', as the bare network without its head is saved: save the "
            "model for causal language modelling)"
        )
    if {"tok_embeddings.weight", "output.weight"} & found:
        return (
            " (the names are those of the publisher's own format: convert it with the script that "
            "transformers has for the family)"
        )
    if any(".lora_" in name for name in found):
        return " (an adapter that was not merged: merge it with PEFT first)"
    if "score.weight" in found:
        return " (a classifier: its head is not that of a language model)"
    return ""
