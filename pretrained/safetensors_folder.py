"""HF folders of safetensors <-> the network: I/O, not translation, since the names are the same.

A `WeightSource` returns any rows of any tensor by name, so that a process (one of one, or one of
many that each keep a part) reads only the rows that it keeps. This file does not depend on ranks.
"""

import hashlib
import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Any, Protocol, runtime_checkable

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from model.config import ModelConfig, from_hf, to_hf
from model.transformer import Mistral
from model.weights import WeightSource, fill
from pretrained.settings import (
    GENERATION,
    NO_SETTINGS,
    FolderSettings,
    read_settings,
    settings_to_write,
)
from pretrained.weight_files import EMBEDDING, HEAD, INDEX, open_tensors
from storage.atomic import new_folder
from storage.json_file import read_object


@runtime_checkable
class NetworkSource(WeightSource, Protocol):
    """Source of all weights of a network."""

    config: ModelConfig

    def check(self, model: Mistral) -> None:
        """ValueError unless the tensors are those of this network."""
        ...


@runtime_checkable
class SavedTokenizer(Protocol):
    """Interface of a tokenizer that `save_pretrained` writes."""

    @property
    def bos_id(self) -> int | None:
        """The token that begins a text, where there is one."""
        ...

    @property
    def eos_id(self) -> int | None:
        """The token that ends a text."""
        ...

    def save(self, folder: Path) -> None:
        """Write the tokenizer files."""
        ...


class PretrainedFolder:
    """An HF folder opened for reading; tensors stay on disk until they are read.

    Opening checks everything that needs no reading of tensors, in the same way for every command.

    Attributes:
        config: the shape of the network.
        shapes: the shape of every tensor of the network; a tied head is none.
        settings: settings of the folder other than the network.
        digest: sha256 over names, shapes and some rows of every tensor, see `telling_rows`: tells
            one model from another, but not a damaged file from a sound one.

    Raises:
        ValueError: no config.json, a key of it that is not supported, no safetensors, or tensors
            that are missing, unexpected, misshapen or of no floating dtype.
    """

    def __init__(self, folder: Path | str) -> None:
        self.folder = Path(folder)
        path = self.folder / "config.json"
        if not path.is_file():
            raise ValueError(f"{self.folder}: no config.json; give an HF model folder")
        raw = read_object(path)
        try:
            self.config = from_hf(raw)
        except ValueError as error:
            raise ValueError(f"{self.folder}: {error}") from None
        self.settings = read_settings(self.folder)
        self._tensors = open_tensors(self.folder, self.config)
        # A tied head that is stored as well is compared with the embedding where rows are read.
        self._stored_head = (
            self._tensors.pop(HEAD, None) if self.config.tie_word_embeddings else None
        )
        self.shapes = {name: tensor.shape for name, tensor in self._tensors.items()}
        if self._stored_head is not None:
            for row in telling_rows(self.config.vocab_size, self.config):
                self.read(EMBEDDING, slice(row, row + 1))

    def check(self, model: nn.Module) -> None:
        """Compare names and shapes with a model's parameters, before anything is read.

        Raises:
            ValueError: the model has other parameters than config.json means.
        """
        wanted = {name: parameter.shape for name, parameter in model.named_parameters()}
        problems = sorted(
            f"{name} has shape {tuple(self.shapes.get(name, ()))} in the folder and "
            f"{tuple(wanted.get(name, ()))} in the network"
            for name in wanted.keys() | self.shapes.keys()
            if self.shapes.get(name) != wanted.get(name)
        )
        if problems:
            raise ValueError(f"{self.folder}: " + "; ".join(problems))

    def read(self, name: str, rows: slice) -> Tensor:
        """Rows of one tensor; only they are read from disk.

        Raises:
            ValueError: a value is infinite or NaN, or a tied head differs from the embedding.
        """
        tensor = self._tensors[name].read(rows)
        if tensor.numel() and not all(map(math.isfinite, torch.stack(tensor.aminmax()).tolist())):
            raise ValueError(
                f"{self._tensors[name].path}: {name} holds values that are infinite or NaN; the "
                "weights are damaged, take another copy or an earlier checkpoint"
            )
        if name == EMBEDDING and self._stored_head is not None:
            head = self._stored_head.read(rows)
            kind = torch.promote_types(tensor.dtype, head.dtype)
            if not torch.equal(tensor.to(kind), head.to(kind)):
                raise ValueError(
                    f"{self.folder}: tie_word_embeddings is true, but {HEAD} is stored and differs "
                    f"from {EMBEDDING}; set tie_word_embeddings to false in config.json if both "
                    "are meant, or remove the head from the file"
                )
        return tensor

    def dtype(self, name: str) -> torch.dtype:
        """Storage dtype of a tensor."""
        return self._tensors[name].read(slice(0, 0)).dtype

    @cached_property
    def digest(self) -> str:
        return digest_of(self.read, self.shapes, self.config)


def digest_of(
    read: Callable[[str, slice], Tensor], shapes: Mapping[str, torch.Size], config: ModelConfig
) -> str:
    """`PretrainedFolder.digest` of weights from any source."""
    digest = hashlib.sha256()
    for name, shape in sorted(shapes.items()):
        digest.update(f"{name} {tuple(shape)}".encode())
        for row in telling_rows(shape[0], config):
            rows = read(name, slice(row, row + 1)).contiguous().reshape(-1)
            digest.update(rows.view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def telling_rows(height: int, config: ModelConfig) -> list[int]:
    """Rows that show whether a tensor is the same: 32 over its height, and the outer new ids."""
    spread = {place * (height - 1) // 31 for place in range(32)}
    new = {config.num_base_ids or 0, config.num_tokens - 1}
    return sorted(spread | {row for row in new if row < height})


def load_pretrained(
    folder: Path | str,
    *,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
    backend: str = "banded",
) -> Mistral:
    """Read an HF folder into one process; host memory peaks at about the weights kept.

    Raises:
        ValueError: the folder is not readable, or does not fit its config.json.
    """
    return load_network(PretrainedFolder(folder), dtype=dtype, device=device, backend=backend)


def load_network(
    source: NetworkSource,
    *,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
    backend: str = "banded",
) -> Mistral:
    """Read a network into one process, from a folder or from what is computed from several.

    Raises:
        ValueError: its tensors do not fit its shape.
    """
    with torch.device("meta"):
        model = Mistral(source.config, backend=backend)
    source.check(model)
    model.to(dtype).to_empty(device=device).tie_weights()
    fill(model, source)
    return model


def save_pretrained(
    model: Mistral, folder: Path | str, tokenizer: SavedTokenizer | None = None
) -> None:
    """Write an HF folder: `write_folder` for a model that lives in one process."""
    write_folder(folder, model.config, model.named_parameters(), tokenizer=tokenizer)


def write_folder(
    folder: Path | str,
    config: ModelConfig,
    tensors: Iterable[tuple[str, Tensor]],
    *,
    tokenizer: SavedTokenizer | None = None,
    settings: FolderSettings = NO_SETTINGS,
    dtype: torch.dtype | None = None,
    max_shard_bytes: int = 5_000_000_000,
    files: Mapping[str, bytes] = MappingProxyType({}),
) -> None:
    """Write config.json, generation_config.json, safetensors and tokenizer files.

    Tensors are taken one at a time and held until their shard is full. The folder appears
    complete or not at all.

    Args:
        tensors: (name, tensor); each name once, tied tensors under their first name.
        settings: what the folder that the weights come from says besides the network.
        dtype: what floating tensors are converted to; None keeps theirs.
        max_shard_bytes: a further file begins where one would outgrow this.
        files: what else belongs into the folder, by name.

    Raises:
        ValueError: the folder exists.
    """
    with new_folder(folder) as partial:
        dtypes = _write_tensors(partial, tensors, dtype, max_shard_bytes)
        ids = (None, None) if tokenizer is None else (tokenizer.bos_id, tokenizer.eos_id)
        others, generation = settings_to_write(settings, config, *ids)
        one = {"dtype": dtypes.pop()} if len(dtypes) == 1 else {}
        _write_json(partial / "config.json", to_hf(config, kept=others, **one))
        _write_json(partial / GENERATION, generation)
        if tokenizer is not None:
            tokenizer.save(partial)
        for name, content in files.items():
            (partial / name).write_bytes(content)


def _write_tensors(
    partial: Path,
    tensors: Iterable[tuple[str, Tensor]],
    dtype: torch.dtype | None,
    max_shard_bytes: int,
) -> set[str]:
    """Write the safetensors and their index; returns the dtypes they hold."""
    total_bytes, shards, dtypes = 0, [], set()
    for shard in _shards(tensors, dtype, max_shard_bytes):
        path = partial / f"part-{len(shards):05d}.safetensors"
        save_file(shard, path, metadata={"format": "pt"})
        shards.append((path, list(shard)))
        total_bytes += sum(tensor.nbytes for tensor in shard.values())
        dtypes |= {str(tensor.dtype).removeprefix("torch.") for tensor in shard.values()}
        del shard  # or it would be held while the next one fills
    _name_shards(partial, shards, total_bytes)
    return dtypes


def _shards(
    tensors: Iterable[tuple[str, Tensor]], dtype: torch.dtype | None, max_bytes: int
) -> Iterator[dict[str, Tensor]]:
    shard: dict[str, Tensor] = {}
    used = 0
    for name, tensor in tensors:
        kept = tensor.detach().to(device="cpu", dtype=dtype or tensor.dtype).contiguous()
        if shard and used + kept.nbytes > max_bytes:
            yield shard
            shard, used = {}, 0
        shard[name] = kept
        used += kept.nbytes
    yield shard


def _name_shards(folder: Path, shards: list[tuple[Path, list[str]]], total_bytes: int) -> None:
    """Give the parts their HF names, which need the number of parts; write the index."""
    if len(shards) == 1:
        shards[0][0].rename(folder / "model.safetensors")
        return
    weight_map: dict[str, str] = {}
    for number, (path, names) in enumerate(shards, 1):
        final = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        path.rename(folder / final)
        weight_map |= dict.fromkeys(names, final)
    _write_json(folder / INDEX, {"metadata": {"total_size": total_bytes}, "weight_map": weight_map})


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    text = json.dumps(content, indent=2, ensure_ascii=False)
    path.write_text(text + "\n", encoding="utf-8")
