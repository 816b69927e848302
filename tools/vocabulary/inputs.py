"""Inputs of vocabulary growth: the fields of the command, and the files that they name."""

import math
import os
from dataclasses import dataclass, field
from pathlib import Path

from sentencepiece import SentencePieceProcessor
from sentencepiece.sentencepiece_model_pb2 import (
    ModelProto,  # pyright: ignore[reportAttributeAccessIssue] protobuf makes it at run time
)

from model.device import choose_device
from pretrained.merged import MergedAdapters
from pretrained.safetensors_folder import PretrainedFolder
from storage.errors import why_no_file
from tokenizer.expansion.candidates import (
    Source,
    check_base,
    model_pieces,
    read_model,
    sample_texts,
    word_pieces,
)
from tokenizer.expansion.rules import Rules
from tokenizer.expansion.spans import bare_processor
from tokenizer.folder import FolderFiles, check_rows
from tokenizer.tokenizer import Tokenizer
from tools.vocabulary.corpora import Corpus, open_corpus
from tools.vocabulary.init_rows import Init
from training.sources import open_weights

LEARNED = "learned"
"""Name of the candidates that are learned from the corpora."""


@dataclass(kw_only=True)
class GrowConfig:
    """Base model, corpora, size of the grown vocabulary and initialisation of its new rows."""

    base: str
    """HF folder or run folder with a sentencepiece tokenizer.model."""
    corpus: list[str]
    """Corpora from which pieces are learned and chosen: prepared sources, or files and globs that
    prepare_data can read; relative to the working directory or to `root`. A file below `root` may
    be named without its ending."""
    root: str = "."
    """Folder that contains the corpora."""
    weights: list[float] | None = None
    """Relative share of each corpus in the sample; null: equal shares."""
    protect: list[str] = field(default_factory=list)
    """Corpora whose text keeps its tokens: a piece that could be merged in them is refused."""
    measure: list[str] = field(default_factory=list)
    """Further corpora that the report measures and that pieces are not learned from."""
    candidates: list[str] = field(default_factory=list)
    """Files with further candidates: sentencepiece `.model`, and `.txt` with one word per line."""
    learn: bool = True
    """Learn candidates from the corpora; false uses only those of `candidates`."""
    target_vocab_size: int
    """Number of pieces of the grown tokenizer, reserved ones included."""
    reserved: int = 96
    """Number of reserved pieces `<|sym1|>`, ... at the end, for later symbols; Chinese-Mistral has
    96."""
    pad_to_multiple_of: int = 128
    """Embedding and head are padded to a multiple of this number of rows. Padding rows get
    probability 0 and are exported as `suppress_tokens`."""
    rules: Rules = field(default_factory=lambda: Rules(scripts=None))
    """Rules for new pieces; the default scripts are the main script of each corpus."""
    init: str = "mean_subtoken"
    """Initial values of new rows: mean_subtoken, first_subtoken, or eeve (mean_subtoken for the
    embedding, first_subtoken for the head); see tools/vocabulary/init_rows.py."""
    head_init: str | None = None
    """The same for the head; null: as `init`."""
    out: str
    """HF folder to create; it is written completely or not at all."""
    text_field: str = "text"
    """Field of a JSON line, or column of a Parquet file, with the text."""
    held_out_fraction: float = 0.01
    """Share of the documents of text files that are held out to measure on, as in
    prepare_data."""
    byte_budget: int = 100_000_000
    """UTF-8 bytes of the sample from which pieces are learned and chosen."""
    loss_bytes: int = 10_000
    """UTF-8 bytes of held-out text per corpus on which the initialisations are compared before any
    training; 0: no comparison (a large model needs a GPU for it)."""
    device: str = "auto"
    """Device of this comparison: auto, cpu or cuda."""
    seed: int = 0
    """Seed of the sample."""

    def __post_init__(self) -> None:
        for name in ("base", "corpus", "out"):
            if not getattr(self, name):
                raise ValueError(f"{name} is empty; give {name}=...")
        if self.weights is not None and len(self.weights) != len(self.corpus):
            raise ValueError(
                f"weights={self.weights}: give one weight for each of {len(self.corpus)} corpora"
            )
        for weight in self.weights or ():
            if not (math.isfinite(weight) and weight > 0):
                raise ValueError(f"weights={self.weights}: must be positive")
        for name, least in (
            *(("target_vocab_size", 1), ("reserved", 0), ("pad_to_multiple_of", 1)),
            *(("byte_budget", 1), ("seed", 0)),
        ):
            if getattr(self, name) < least:
                raise ValueError(f"{name}={getattr(self, name)}: must be at least {least}")
        if not (self.learn or self.candidates):
            raise ValueError(
                "learn=false without candidates: there is nothing to choose from; name files"
            )
        if not 0 <= self.held_out_fraction < 1:
            raise ValueError(f"held_out_fraction={self.held_out_fraction}: must be in [0, 1)")
        if self.loss_bytes < 0:
            raise ValueError(
                f"loss_bytes={self.loss_bytes}: give a number of bytes, or 0 for no comparison"
            )


@dataclass(frozen=True)
class Base:
    """Model whose vocabulary is grown.

    Attributes:
        weights: its folder, checked.
        tokenizer, model: content of its tokenizer.model.
        bare: processor of the same model without dummy prefix.
        init: initialisation of new rows.
    """

    weights: PretrainedFolder
    tokenizer: Tokenizer
    model: ModelProto
    bare: SentencePieceProcessor
    init: Init


def open_base(config: GrowConfig) -> Base:
    """Open the base; ValueError if its vocabulary cannot be grown or `out` exists."""
    _check_out(Path(config.out))
    choose_device(config.device, local_rank=0)
    try:
        weights = open_weights(config.base)
    except ValueError as error:
        raise ValueError(f"base{str(error).removeprefix('init_from')}") from None
    if isinstance(weights, MergedAdapters):
        raise ValueError(
            f"base={config.base} is an adapter; merge it first (python -m scripts.export "
            f"folder={config.base} out=<folder>) and name that folder"
        )
    assert weights is not None
    path = weights.folder / "tokenizer.model"
    if not path.is_file():
        raise ValueError(
            f"base={config.base}: no tokenizer.model; growth needs a sentencepiece vocabulary"
        )
    tokenizer, model = Tokenizer.open(path), read_model(path)
    check_base(model)
    check_rows(weights.folder, tokenizer.vocab_size, weights.config.vocab_size)
    _check_added_tokens(weights.folder, tokenizer.vocab_size)
    init = Init.parse(config.init, config.head_init, tied=weights.config.tie_word_embeddings)
    return Base(weights, tokenizer, model, bare_processor(model), init)


@dataclass(frozen=True)
class Corpora:
    """Corpora by their use."""

    training: list[Corpus]
    protected: list[Corpus]
    measured: list[Corpus]

    def to_measure(self, sample: dict[str, list[str]]) -> dict[str, tuple[str, list[str]]]:
        """Corpus name -> (kind of text, texts); call it after the sample was drawn."""
        measures = {}
        for corpus in (*self.training, *self.protected):
            kind = "held out" if corpus.held_out else "no held-out text: the sample"
            measures[corpus.name] = kind, corpus.held_out or sample[corpus.name]
        for corpus in self.measured:
            measures[corpus.name] = "only measured", corpus.first_texts()
            if not any(measures[corpus.name][1]):
                raise ValueError(f"measure: {corpus.name} has no text; remove it")
        return measures


def _check_out(out: Path) -> None:
    if out.exists():
        raise ValueError(f"out={out} exists; choose another folder or remove it")
    parent = next(folder for folder in out.absolute().parents if folder.exists())
    if not (parent.is_dir() and os.access(parent, os.W_OK)):
        raise ValueError(f"out={out}: {parent} is not a writable folder; choose another")


def _check_added_tokens(folder: Path, pieces: int) -> None:
    """ValueError if HF files add tokens after the pieces: new pieces would take their rows."""
    added = FolderFiles.read(folder).added()
    if lost := sorted(token.content for id, token in added.items() if id >= pieces):
        raise ValueError(
            f"base={folder}: {', '.join(lost)} were added after the {pieces} pieces of "
            "tokenizer.model and would lose their rows; use the model without them, or add them to "
            "tokenizer.model"
        )


def open_corpora(config: GrowConfig, tokenizer: Tokenizer) -> Corpora:
    """Find every corpus; ValueError if one does not exist or two have one name."""
    training, protected, measured = (
        [
            open_corpus(
                entry,
                config.root,
                tokenizer,
                text_field=config.text_field,
                held_out_fraction=config.held_out_fraction,
            )
            for entry in entries
        ]
        for entries in (config.corpus, config.protect, config.measure)
    )
    names = [corpus.name for corpus in (*training, *protected, *measured)]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(
            f"corpus, protect, measure: {', '.join(twice)} is named twice; name a corpus "
            "once (every corpus is measured), or rename one of two files with the same name"
        )
    return Corpora(training, protected, measured)


def draw_sample(
    corpora: list[Corpus], weights: list[float] | None, config: GrowConfig
) -> dict[str, list[str]]:
    """Texts of each corpus within the byte budget, in proportion to `weights` (None: equal).

    Raises:
        ValueError: a corpus has no text, or a record without text.
    """
    sources = {
        corpus.name: Source(corpus.training_texts(), weight)
        for corpus, weight in zip(corpora, weights or [1.0] * len(corpora), strict=True)
    }
    return sample_texts(sources, byte_budget=config.byte_budget, seed=config.seed)


def named_candidates(paths: list[str]) -> dict[str, list[str]]:
    """File name -> candidates; ValueError if two files have the same name."""
    candidates: dict[str, list[str]] = {}
    for path in map(Path, paths):
        if path.stem in (LEARNED, *candidates):
            raise ValueError(
                f"candidates: {path}: {path.stem!r} is the name of another list; rename the file"
            )
        candidates[path.stem] = read_candidates(path)
    return candidates


def read_candidates(path: Path) -> list[str]:
    """The pieces of a sentencepiece model, or the words of a list."""
    if not path.is_file():
        raise ValueError(f"candidates: {path}: {why_no_file(path)}; give a .model or .txt file")
    if path.suffix == ".model":
        return model_pieces(path)
    if path.suffix != ".txt":
        raise ValueError(f"candidates: {path}; give sentencepiece .model files or .txt word lists")
    try:
        return word_pieces(path.read_text(encoding="utf-8-sig").split("\n"))
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"candidates: {path}: {error}; give a word per line, in UTF-8") from None
