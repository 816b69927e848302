"""Export of one HF folder: merged adapters, a chat vector, task arithmetic, a blend, or a copy.

Inputs are checked before the first tensor is read, and the folder is written completely or not at
all. Weights are computed while they are written, so memory peaks at about two shards. Only a blend
within a budget has a whole network in memory, in fp32, to measure its loss.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise, zip_longest
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from model.device import DTYPES
from pretrained.adapter import AdapterFolder
from pretrained.folder import final_folder, open_folder, own_tokenizer
from pretrained.load import open_tokenizer_of
from pretrained.merged import Folder, MergedAdapters
from pretrained.safetensors_folder import PretrainedFolder, write_folder
from pretrained.settings import FolderSettings, read_settings
from tokenizer.chat import end_of_turn
from tokenizer.folder import JSON, MODEL, MoreIdsThanRows, check_rows, read_templates
from tokenizer.tokenizer import Tokenizer
from tools.merging.arithmetic import ChatVector, TaskArithmetic
from tools.merging.general_loss import AsWritten
from tools.merging.interpolate import RECORD, BlendConfig, describe_blend, fit_budget

_FIELDS = {
    "none": (),
    "adapters": ("adapters", "weights"),
    "task_arithmetic": ("tuned", "weights"),
    "chat_vector": ("chat", "base"),
}
"""Kind of merge -> the fields that it needs; no other kind takes them."""


@dataclass(kw_only=True)
class ExportConfig(BlendConfig):
    """Inputs of one HF folder."""

    folder: str
    """HF folder, finished run, or adapter folder, which is merged into its base."""
    out: str
    """Folder to create."""
    merge: str = "none"
    """`none`; `adapters`: weighted sum of several adapters; `task_arithmetic`: weighted sum of
    several tuned models; `chat_vector`: add scale * (chat - base) (Huang et al. 2024)."""
    adapters: list[str] = field(default_factory=list)
    """merge=adapters: runs or adapter folders, all trained on `folder`."""
    tuned: list[str] = field(default_factory=list)
    """merge=task_arithmetic: models, all tuned from `folder`. Written is folder + sum of weight *
    (tuned - folder) (Ilharco et al. 2023)."""
    weights: list[float] = field(default_factory=list)
    """merge=adapters, task_arithmetic: factor of each update."""
    chat: str | None = None
    """merge=chat_vector: an instruction-tuned model."""
    base: str | None = None
    """merge=chat_vector: the base of `chat`. Otherwise: the base of an adapter, if it is not at the
    path in the adapter's settings."""
    scale: float = 1.0
    """merge=chat_vector: factor of the difference."""
    dtype: str = "stored"
    """`stored` (the dtype of each tensor in `folder`, or in the adapter's base), `float32` or
    `bfloat16`. Arithmetic is in fp32 or fp64."""
    max_shard_gib: float = 4.5
    """Largest size of one file of weights, in GiB; a merge needs about twice as much memory."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.merge not in _FIELDS:
            raise ValueError(f"merge={self.merge!r}: one of {', '.join(_FIELDS)}")
        if self.dtype not in ("stored", *DTYPES):
            raise ValueError(f"dtype={self.dtype!r}: one of stored, {', '.join(DTYPES)}")
        if not 0 < self.max_shard_gib < math.inf:
            raise ValueError(f"max_shard_gib={self.max_shard_gib}: must be positive and finite")
        for value in (self.scale, *self.weights):
            if not math.isfinite(value):
                raise ValueError(f"scale={self.scale}, weights={self.weights}: must be finite")
        if self.blend is not None and self.merge != "none":
            raise ValueError(
                f"blend has no meaning with merge={self.merge}; export the merge first"
            )
        for name in _FIELDS[self.merge]:
            if not getattr(self, name):
                raise ValueError(f"merge={self.merge} needs {name}")
        if self.merge in ("adapters", "task_arithmetic") and self.base:
            raise ValueError(f"base has no meaning with merge={self.merge}: `folder` is the base")
        for name in ("adapters", "tuned", "weights", "chat"):
            if getattr(self, name) and name not in _FIELDS[self.merge]:
                raise ValueError(f"{name} has no meaning with merge={self.merge}; drop it")
        parts = self.adapters or self.tuned
        if len(parts) != len(self.weights):
            pairs = list(zip_longest(parts, self.weights))
            name = "tuned" if self.tuned else "adapters"
            raise ValueError(f"weights: give one for each of {name}; the pairs are {pairs}")


Merged = PretrainedFolder | MergedAdapters | ChatVector | TaskArithmetic


def export_folder(config: ExportConfig, *, progress: bool = True) -> None:
    """Write the folder.

    Raises:
        ValueError: an input does not exist or does not fit, or `out` exists.
    """
    out = Path(config.out)
    if out.exists():
        raise ValueError(f"out={out} exists; choose another folder or remove it")
    source = open_merge(config)
    folders = [config.chat, *config.adapters, *config.tuned, config.folder, source.folder]
    places = [final_folder(folder) for folder in folders if folder is not None]
    say: Callable[[str], None] = print if progress else (lambda _: None)
    # The tokenizer is that of `folder`, not that of the chat model.
    tokenizer = _tokenizer(source, places[1 if config.chat else 0 :], say)
    settings, dropped = _settings(source, config)
    if tokenizer is not None:
        templates = next(filter(None, map(read_templates, places)), {})
        if templates != tokenizer.templates:
            tokenizer = tokenizer.with_templates(templates)
        tokenizer.check_exportable()
        if not isinstance(source, PretrainedFolder):
            settings = settings.ended_by(end_of_turn(tokenizer))
    for line in dropped:
        say(line)
    files = {}
    if isinstance(source, TaskArithmetic):
        assert tokenizer is not None
        fit = None
        if config.max_general_bits_per_byte is not None:
            base_tokenizer = own_tokenizer(source.base.folder) or tokenizer
            fit = fit_budget(config, source, (base_tokenizer, tokenizer), config.dtype, say)
            source = source.at(fit.weight)
        files[RECORD] = describe_blend(source, fit)
    write_folder(
        out,
        source.config,
        _tensors(source, config.dtype, progress),
        tokenizer=tokenizer,
        settings=settings,
        max_shard_bytes=int(config.max_shard_gib * 2**30),
        files=files,
    )


def _tokenizer(
    source: Merged, places: Sequence[Path], say: Callable[[str], None]
) -> Tokenizer | None:
    """The tokenizer to write; None if the tokenizer of an adapter's base has more ids than the base
    has rows.

    PEFT trains on such a base without a change, so the merged weights are right, but the tokenizer
    does not fit them. A plain folder with such a tokenizer, or an adapter folder that contains one,
    is refused.
    """
    try:
        tokenizer = open_tokenizer_of(list(places))
        check_rows(source.folder, tokenizer.vocab_size, source.config.vocab_size)
    except MoreIdsThanRows as error:
        others = [place for place in places if place != source.folder]
        brought = any((place / name).is_file() for place in others for name in (MODEL, JSON))
        if brought or not isinstance(source, MergedAdapters):
            raise
        say(f"{error}. The merged folder is written without a tokenizer; add one that fits")
        return None
    return tokenizer


def _settings(source: Merged, config: ExportConfig) -> tuple[FolderSettings, list[str]]:
    """Settings of the folder other than its network, and one line per set of dropped settings."""
    settings = read_settings(source.folder)
    others: list[Path] = []
    if isinstance(source, ChatVector):
        assert config.chat is not None
        others = [final_folder(config.chat)]
    elif isinstance(source, TaskArithmetic) and len(source.tuned) > 1:
        others = [tuned.folder for tuned, _ in source.tuned]
    lines = []
    for other in others:
        assert isinstance(source, ChatVector | TaskArithmetic)
        settings, differ = settings.joined(read_settings(other), source.shared_rows)
        if differ:
            lines.append(
                f"generation_config.json: {', '.join(differ)} are taken from {source.folder}, not "
                f"from {other}"
            )
    return settings, lines


def open_merge(config: ExportConfig) -> Merged:
    """Weights of the new folder.

    Raises:
        ValueError: an input does not exist or does not fit.
    """
    if config.blend is not None:
        # A search within a budget starts at weight 1.
        weight = 1.0 if config.blend_weight is None else config.blend_weight
        base = _open("blend", config.blend)
        return _task_arithmetic(base, [(open_folder(config.folder, config.base), weight)])
    if config.merge == "none":
        return open_folder(config.folder, config.base)
    if config.merge == "task_arithmetic":
        opened = [_open("tuned", path) for path in config.tuned]
        return _task_arithmetic(
            _open("folder", config.folder), list(zip(opened, config.weights, strict=True))
        )
    ours = _open_plain("folder", config.folder)
    if config.merge == "adapters":
        adapters = [AdapterFolder(final_folder(path)) for path in config.adapters]
        return MergedAdapters(ours, list(zip(adapters, config.weights, strict=True)))
    assert config.chat is not None
    assert config.base is not None
    chat, base = _open_plain("chat", config.chat), _open_plain("base", config.base)
    _check_same_pieces([ours, chat, base])
    return ChatVector(ours, chat, base, config.scale)


def _task_arithmetic(base: Folder, tuned: list[tuple[Folder, float]]) -> TaskArithmetic:
    """Task arithmetic with the number of rows whose pieces the models share."""
    models = [base, *(model for model, _ in tuned)]
    _check_same_pieces(models)
    tokens = [model.config.num_tokens for model in models]
    heights = {model.config.vocab_size for model in models}
    shared = base.config.vocab_size
    sizes = {t.vocab_size for m in models if (t := own_tokenizer(m.folder)) is not None}
    if len(heights) > 1 or len(sizes) > 1:
        shared = min(*tokens, *sizes)  # padding of the base may be a new piece elsewhere
    return TaskArithmetic(base, tuned, shared_rows=shared)


def _open(key: str, path: str) -> Folder:
    try:
        return open_folder(path)
    except ValueError as error:
        raise ValueError(f"{key}={path}: {error}") from None


def _open_plain(key: str, path: str) -> PretrainedFolder:
    """Open a model that is not an adapter."""
    opened = _open(key, path)
    if not isinstance(opened, PretrainedFolder):
        raise ValueError(f"{key}={path} is an adapter; merge it into its base first (merge=none)")
    return opened


def _check_same_pieces(folders: Sequence[Folder]) -> None:
    """ValueError if an id means different pieces in two folders; folders may lack a tokenizer."""
    opened = [(f.folder, t) for f in folders if (t := own_tokenizer(f.folder)) is not None]
    shared = min((t.vocab_size for _, t in opened), default=0)
    for (one, ours), (other, theirs) in pairwise(opened):
        for id in range(shared):
            if ours.piece(id) != theirs.piece(id):
                raise ValueError(
                    f"the vocabularies of {one} and {other} differ: id {id} is {ours.piece(id)!r} "
                    f"and {theirs.piece(id)!r}, so their rows cannot be added; use models with "
                    "the same tokenizer"
                )


def _tensors(source: Merged, dtype: str, progress: bool) -> Iterator[tuple[str, Tensor]]:
    written = AsWritten(source, dtype)
    with torch.no_grad():
        for name in tqdm(sorted(source.shapes), "tensors", disable=not progress):
            # A copy, so that a shard in memory does not keep the pages of mapped files.
            tensor = source.read(name, slice(None))
            yield name, tensor.to(written.dtype(name), copy=True)
