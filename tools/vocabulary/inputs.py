"""What a vocabulary is grown from: the command's fields, and everything they name, opened."""

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
from storage.lock import why_no_file
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

LEARNT = "learnt"
"""The name of the candidates that are learnt from the corpora."""


@dataclass(kw_only=True)
class GrowConfig:
    """What a vocabulary is grown from, to what size, and how its new rows begin."""

    base: str
    """HF folder, or run folder, with its sentencepiece tokenizer.model."""
    corpus: list[str]
    """What pieces are learnt from and chosen on: prepared sources, or files and globs as
    prepare_data reads them; relative to here or to `root`, where endings may be left out."""
    root: str = "."
    """Folder that corpora are looked for in."""
    weights: list[float] | None = None
    """Share of each corpus in the sample, up to a common factor; null: equal shares."""
    protect: list[str] = field(default_factory=list)
    """Corpora whose text shall keep its tokens: no piece is taken that could be merged in it."""
    measure: list[str] = field(default_factory=list)
    """Further corpora that the report measures, but nothing is learnt from."""
    candidates: list[str] = field(default_factory=list)
    """Further candidates: sentencepiece `.model` files, and `.txt` files with a word per line."""
    learn: bool = True
    """Learn candidates from the corpora; false takes only those of `candidates`."""
    target_vocab_size: int
    """Pieces of the grown tokenizer, reserved ones included."""
    reserved: int = 96
    """Rows `<|sym1|>`, ... at the end, for symbols to come; Chinese-Mistral has 96."""
    pad_to_multiple_of: int = 128
    """Rows of embedding and head are a multiple of this; those that stand for no piece get no
    probability, and are exported as `suppress_tokens`."""
    rules: Rules = field(default_factory=lambda: Rules(scripts=None))
    """What a new piece may look like; its scripts are by default the main one of each corpus."""
    init: str = "mean_subtoken"
    """How new rows begin: mean_subtoken, first_subtoken, mean, noisy_mean, random, similar, or
    eeve (mean_subtoken, and first_subtoken for the head); see tools/vocabulary/init_rows.py."""
    head_init: str | None = None
    """The same for the head alone; null follows `init`."""
    out: str
    """HF folder to create; it appears complete or not at all."""
    text_field: str = "text"
    """Field of a JSON line, or column of a Parquet file, that holds the text."""
    held_out_fraction: float = 0.01
    """Documents of text files that are measured on and not learnt from, as in prepare_data."""
    byte_budget: int = 100_000_000
    """UTF-8 bytes of text that pieces are learnt from and chosen on."""
    loss_bytes: int = 10_000
    """Held-out text per corpus on which the losses before any training are compared, for every
    way to begin; 0 leaves that out (for a large model it wants a GPU)."""
    device: str = "auto"
    """Where these losses are computed: auto, cpu or cuda."""
    seed: int = 0
    """Of the sample and of drawn rows."""

    def __post_init__(self) -> None:
        for name in ("base", "corpus", "out"):
            if not getattr(self, name):
                raise ValueError(f"{name}: empty; it must be given")
        if self.weights is not None and len(self.weights) != len(self.corpus):
            raise ValueError(
                f"weights={self.weights}: {len(self.corpus)} corpora need as many weights"
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
            raise ValueError("learn=false without candidates: there is nothing to choose from")
        if not 0 <= self.held_out_fraction < 1:
            raise ValueError(f"held_out_fraction={self.held_out_fraction}: must lie in [0, 1)")
        if self.loss_bytes < 0:
            raise ValueError(f"loss_bytes={self.loss_bytes}: give a number of bytes, 0 for none")


@dataclass(frozen=True)
class Base:
    """What is grown.

    Attributes:
        weights: its folder, checked.
        tokenizer, model: of its tokenizer.model.
        bare: the same without a dummy prefix.
        init: how new rows begin.
    """

    weights: PretrainedFolder
    tokenizer: Tokenizer
    model: ModelProto
    bare: SentencePieceProcessor
    init: Init


def open_base(config: GrowConfig) -> Base:
    """Open the base; ValueError if it cannot be grown, or `out` exists."""
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
            f"base={config.base}: no tokenizer.model; only a sentencepiece vocabulary can be grown"
        )
    tokenizer, model = Tokenizer.open(path), read_model(path)
    check_base(model)
    check_rows(weights.folder, tokenizer.vocab_size, weights.config.vocab_size)
    _check_added_tokens(weights.folder, tokenizer.vocab_size)
    init = Init.parse(config.init, config.head_init, tied=weights.config.tie_word_embeddings)
    return Base(weights, tokenizer, model, bare_processor(model), init)


@dataclass(frozen=True)
class Corpora:
    """Corpora by what they are for."""

    learnt: list[Corpus]
    protected: list[Corpus]
    measured: list[Corpus]

    def to_measure(self, sample: dict[str, list[str]]) -> dict[str, tuple[str, list[str]]]:
        """Name -> what kind of text it is, and the text; after the sample was drawn."""
        measures = {}
        for corpus in (*self.learnt, *self.protected):
            kind = "held out" if corpus.held_out else "no held-out text: the sample"
            measures[corpus.name] = kind, corpus.held_out or sample[corpus.name]
        for corpus in self.measured:
            measures[corpus.name] = "only measured", corpus.first_texts()
            if not any(measures[corpus.name][1]):
                raise ValueError(f"measure: {corpus.name} has no text; leave it out")
        return measures


def _check_out(out: Path) -> None:
    if out.exists():
        raise ValueError(f"out={out} exists; choose another folder or remove it")
    parent = next(folder for folder in out.absolute().parents if folder.exists())
    if not (parent.is_dir() and os.access(parent, os.W_OK)):
        raise ValueError(f"out={out}: {parent} is no folder that can be written to; choose another")


def _check_added_tokens(folder: Path, pieces: int) -> None:
    """Refuse tokens that HF files have added behind the pieces: new ones would take their rows."""
    added = FolderFiles.read(folder).added()
    if lost := sorted(token.content for id, token in added.items() if id >= pieces):
        raise ValueError(
            f"base={folder}: {', '.join(lost)} stand behind the {pieces} pieces of tokenizer.model "
            "and would lose their rows; take the model without them, or put them into "
            "tokenizer.model"
        )


def open_corpora(config: GrowConfig, tokenizer: Tokenizer) -> Corpora:
    """Find every corpus; ValueError if one does not exist or two have one name."""
    learnt, protected, measured = (
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
    names = [corpus.name for corpus in (*learnt, *protected, *measured)]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(
            f"corpus, protect, measure: {', '.join(twice)} is named twice; it is measured anyway, "
            "or one of the files needs another name"
        )
    return Corpora(learnt, protected, measured)


def draw_sample(
    corpora: list[Corpus], weights: list[float] | None, config: GrowConfig
) -> dict[str, list[str]]:
    """Texts of each corpus within the byte budget, in these proportions (None: equal ones).

    Raises:
        ValueError: a corpus has no text, or a record of one is none.
    """
    sources = {
        corpus.name: Source(corpus.training_texts(), weight)
        for corpus, weight in zip(corpora, weights or [1.0] * len(corpora), strict=True)
    }
    return sample_texts(sources, byte_budget=config.byte_budget, seed=config.seed)


def named_candidates(paths: list[str]) -> dict[str, list[str]]:
    """The lists of candidates by the names of their files; ValueError if two have one name."""
    candidates: dict[str, list[str]] = {}
    for path in map(Path, paths):
        if path.stem in (LEARNT, *candidates):
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
