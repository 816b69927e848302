"""Folders -> one HF folder: adapters merged into their base, a chat vector added, or a plain copy.

Everything is refused before the first tensor is read, and the folder appears complete or not at
all. Memory peaks at about two shards, since weights are computed as they are written.
"""

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise, zip_longest
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from model.adapter import AdapterFolder
from model.merge import ChatVector, MergedAdapters
from model.weights import PretrainedFolder, write_folder
from tokenizer.tokenizer import Tokenizer
from training.export import TEMPLATE_FILE
from training.inputs import final_folder, open_folder
from training.open_model import open_tokenizer_of
from training.parallelize import DTYPES

MERGES = ("none", "adapters", "chat_vector")


@dataclass(kw_only=True)
class ExportConfig:
    """What becomes one HF folder."""

    folder: str
    """HF folder, finished run or adapter folder; an adapter is merged into its base."""
    out: str
    """Folder to create."""
    merge: str = "none"
    """`none`; `adapters`: the sum of several, see `adapters`; `chat_vector`: add scale * (chat -
    base) (Huang et al. 2024)."""
    adapters: list[str] = field(default_factory=list)
    """merge=adapters: runs or adapter folders that were all trained on `folder`."""
    weights: list[float] = field(default_factory=list)
    """merge=adapters: what the update of each is multiplied with."""
    chat: str | None = None
    """merge=chat_vector: a model that follows instructions."""
    base: str | None = None
    """merge=chat_vector: what `chat` was tuned from. Else: the base of an adapter, where it does
    not lie where the adapter says."""
    scale: float = 1.0
    """merge=chat_vector: how much of the difference is added."""
    dtype: str = "stored"
    """`stored`: each tensor in the dtype it has in `folder` (or in the adapter's base); `float32`,
    `bfloat16`. Arithmetic is fp32 in any case."""
    max_shard_gib: float = 4.5
    """A further file begins where one would outgrow this; a merge holds about twice as much."""

    def __post_init__(self) -> None:
        if self.merge not in MERGES:
            raise ValueError(f"merge={self.merge!r}: one of {', '.join(MERGES)}")
        if self.dtype not in ("stored", *DTYPES):
            raise ValueError(f"dtype={self.dtype!r}: one of stored, {', '.join(DTYPES)}")
        if not self.max_shard_gib > 0:
            raise ValueError(f"max_shard_gib={self.max_shard_gib}: must be positive")
        for value in (self.scale, *self.weights):
            if not math.isfinite(value):
                raise ValueError(f"scale={self.scale}, weights={self.weights}: must be finite")
        needed = {"adapters": ("adapters", "weights"), "chat_vector": ("chat", "base")}
        for name in needed.get(self.merge, ()):
            if not getattr(self, name):
                raise ValueError(f"merge={self.merge} needs {name}")
        if self.merge == "adapters" and self.base:
            raise ValueError("base has no meaning with merge=adapters: `folder` is the base")
        for merge, names in (("adapters", ("adapters", "weights")), ("chat_vector", ("chat",))):
            for name in names:
                if getattr(self, name) and self.merge != merge:
                    raise ValueError(f"{name} has no meaning with merge={self.merge}; drop it")
        if len(self.adapters) != len(self.weights):
            pairs = list(zip_longest(self.adapters, self.weights))
            raise ValueError(f"weights: one for each of adapters is needed, not {pairs}")


Merged = PretrainedFolder | MergedAdapters | ChatVector


def export_folder(config: ExportConfig, *, progress: bool = True) -> None:
    """Write the folder.

    Raises:
        ValueError: something does not exist or fit, or `out` exists.
    """
    out = Path(config.out)
    if out.exists():
        raise ValueError(f"out={out} exists; choose another folder or remove it")
    source = open_merge(config)
    folders = [config.chat, *config.adapters, config.folder, source.folder]
    places = [final_folder(folder) for folder in folders if folder is not None]
    # The tokenizer is ours, not that of the chat model.
    tokenizer = open_tokenizer_of(places[1 if config.chat else 0 :])
    tokenizer.check_exportable()
    template = next(filter(None, map(_chat_template, places)), None)
    write_folder(
        out,
        source.config,
        _tensors(source, config.dtype, progress),
        tokenizer=tokenizer,
        max_shard_bytes=int(config.max_shard_gib * 2**30),
        files={} if template is None else {TEMPLATE_FILE: template},
    )


def open_merge(config: ExportConfig) -> Merged:
    """The weights that the folder will hold.

    Raises:
        ValueError: something does not exist or fit.
    """
    if config.merge == "none":
        return open_folder(config.folder, config.base)
    ours = _open_plain("folder", config.folder)
    if config.merge == "adapters":
        adapters = [AdapterFolder(final_folder(path)) for path in config.adapters]
        return MergedAdapters(ours, list(zip(adapters, config.weights, strict=True)))
    assert config.chat is not None
    assert config.base is not None
    chat, base = _open_plain("chat", config.chat), _open_plain("base", config.base)
    _check_same_pieces([ours, chat, base])
    return ChatVector(ours, chat, base, config.scale)


def _open_plain(key: str, path: str) -> PretrainedFolder:
    """A model of its own, which no adapter is."""
    try:
        opened = open_folder(path)
    except ValueError as error:
        raise ValueError(f"{key}={path}: {error}") from None
    if not isinstance(opened, PretrainedFolder):
        raise ValueError(f"{key}={path} is an adapter; merge it into its base first (merge=none)")
    return opened


def _check_same_pieces(folders: list[PretrainedFolder]) -> None:
    """ValueError where equal ids would mean different pieces, as far as tokenizers lie there."""
    opened = [(f.folder, t) for f in folders if (t := _open_tokenizer(f.folder)) is not None]
    shared = min((t.vocab_size for _, t in opened), default=0)
    for (one, ours), (other, theirs) in pairwise(opened):
        for id in range(shared):
            if ours.piece(id) != theirs.piece(id):
                raise ValueError(
                    f"{other} has another vocabulary than {one}: id {id} is "
                    f"{theirs.piece(id)!r} there and {ours.piece(id)!r} here, so their rows "
                    "cannot be added"
                )


def _chat_template(folder: Path) -> bytes | None:
    """The template of a folder, in the file of its own or in older folders' tokenizer_config."""
    if (path := folder / TEMPLATE_FILE).is_file():
        return path.read_bytes()
    path = folder / "tokenizer_config.json"
    if not path.is_file():
        return None
    template = json.loads(path.read_text(encoding="utf-8")).get("chat_template")
    return template.encode() if isinstance(template, str) else None


def _open_tokenizer(folder: Path) -> Tokenizer | None:
    files = ("tokenizer.model", "tokenizer.json")
    return Tokenizer.open(folder) if any((folder / name).is_file() for name in files) else None


def _tensors(source: Merged, dtype: str, progress: bool) -> Iterator[tuple[str, Tensor]]:
    with torch.no_grad():
        for name in tqdm(sorted(source.shapes), "tensors", disable=not progress):
            tensor = source.read(name, slice(None))
            wanted = source.dtype(name) if dtype == "stored" else DTYPES[dtype]
            # A mapped file is copied, so that a shard does not keep many files' pages.
            yield name, tensor.to(wanted, copy=True)
