"""S0: a base model and corpora in, the same model with a larger vocabulary out.

`grow` is the whole of it and reads top to bottom: candidates are learnt and taken, chosen and
appended to the tokenizer (`tokenizer.expand`), their rows are initialised (`model.embeddings`),
and gains and costs are measured (`training.growth_measures`) before the folder appears.
PreparedLLM (Big Earth Data 8(4), 2024) and Chinese-Mistral prepare their models so.
"""

import math
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from sentencepiece import SentencePieceProcessor
from sentencepiece.sentencepiece_model_pb2 import (
    ModelProto,  # pyright: ignore[reportAttributeAccessIssue] protobuf makes it at run time
)

from data.corpus import Corpus, open_corpus
from model.embeddings import GrownWeights, Init, NewPieces
from model.similarity import company, neighbours
from model.transformer import Mistral
from model.weights import PretrainedFolder, write_folder
from tokenizer.candidates import (
    Source,
    check_base,
    learn_pieces,
    learnt_size,
    model_pieces,
    read_model,
    sample_texts,
    word_pieces,
)
from tokenizer.expand import Expansion, check_room, expand, padded_rows
from tokenizer.rules import Rules, main_script
from tokenizer.spans import bare_processor
from tokenizer.tokenizer import Tokenizer
from training.growth_measures import (
    Growth,
    HeadCost,
    measure_compression,
    measure_losses,
    piece_widths,
    ways_to_begin,
)
from training.growth_report import Summary, picture, report
from training.inputs import open_weights


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
    eeve (mean_subtoken, and first_subtoken for the head); see model/embeddings.py."""
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
        if not (self.learn or self.candidates):
            raise ValueError("learn=false without candidates: there is nothing to choose from")
        if not 0 <= self.held_out_fraction < 1:
            raise ValueError(f"held_out_fraction={self.held_out_fraction}: must lie in [0, 1)")
        if self.loss_bytes < 0:
            raise ValueError(f"loss_bytes={self.loss_bytes}: give a number of bytes, 0 for none")


def grow(config: GrowConfig, say: Callable[[str], None] = print) -> Summary:
    """Grow a model's vocabulary and write the folder; returns what its report says.

    Raises:
        ValueError: what does not exist or does not fit, before any work where it can be known.
    """
    # 1. What can be refused is refused here.
    base = _open_base(config)
    room = check_room(base.model, config.target_vocab_size, config.reserved)
    rows = padded_rows(config.target_vocab_size, config.pad_to_multiple_of)
    learnt, measured = _open_corpora(config, base.tokenizer)
    candidates = {Path(path).stem: _read_candidates(Path(path)) for path in config.candidates}

    # 2. Pieces: learnt and taken, then chosen by what they save on a sample.
    say(f"reading {', '.join(config.corpus)}")
    weights = config.weights or [1.0] * len(learnt)
    sources = {
        corpus.name: Source(corpus.training_texts(), weight)
        for corpus, weight in zip(learnt, weights, strict=True)
    }
    sample = sample_texts(sources, byte_budget=config.byte_budget, seed=config.seed)
    texts = [text for part in sample.values() for text in part]
    rules = config.rules
    if rules.scripts is None:
        rules = replace(rules, scripts=tuple({main_script(part): 0 for part in sample.values()}))
        say(f"new pieces are of the corpora's scripts: {', '.join(rules.scripts or ())}")
    if config.learn:
        say(f"learning pieces from {sum(len(text.encode()) for text in texts):,} bytes")
        # Twice as many as there is room for: others may save more than those learnt first.
        size = learnt_size(texts, merges=2 * room)
        candidates = {"learnt": learn_pieces(texts, base.model, vocab_size=size), **candidates}
    say(f"choosing from {sum(map(len, candidates.values())):,} candidates")
    expansion = expand(
        base.model,
        candidates,
        texts,
        target_vocab_size=config.target_vocab_size,
        rules=rules,
        reserved=config.reserved,
    )
    growth = _open_grown(base, expansion)

    # 3. Rows: the old pieces that a new one was spelt with decide where its rows begin.
    shape = replace(
        base.weights.config, vocab_size=rows, num_padded_ids=rows - config.target_vocab_size
    )
    new = NewPieces(
        num_base_ids=base.tokenizer.vocab_size,
        subtokens=[base.bare.encode(piece.piece) for piece in expansion.pieces],
        seed=config.seed,
    )
    if config.loss_bytes or "similar" in (base.init.embedding, base.init.head):
        say("comparing the company that old and new pieces keep")
        vectors = company(growth.grown.encode_batch(texts), growth.grown.vocab_size)
        new = replace(new, neighbours=neighbours(vectors, new.num_base_ids, new.subtokens))

    # 4. What was gained, and what it costs.
    measures = {corpus.name: ("held out", corpus.held_out) for corpus in learnt}
    for corpus in learnt:
        if not corpus.held_out:
            measures[corpus.name] = ("chosen on", sample[corpus.name])
    measures |= {corpus.name: ("only measured", corpus.first_texts()) for corpus in measured}
    losses = {}
    if config.loss_bytes:
        say("bits per byte before any training:")
        losses = measure_losses(
            base.weights,
            shape,
            ways_to_begin(base.init, tied=shape.tie_word_embeddings),
            new,
            {name: texts for name, (_, texts) in measures.items()},
            growth,
            loss_bytes=config.loss_bytes,
            device=config.device,
            say=say,
        )
    summary = Summary(
        init=base.init,
        expansion=expansion,
        growth=growth,
        compressions=[
            measure_compression(name, kind, texts, growth)
            for name, (kind, texts) in measures.items()
        ],
        losses=losses,
        cost=HeadCost.of(base.weights.config, shape),
    )

    # 5. The folder, complete or not at all.
    grown = GrownWeights(base.weights, shape, base.init, new)
    write_folder(
        config.out,
        shape,
        ((name, grown.read(name, slice(None))) for name in sorted(base.weights.shapes)),
        tokenizer=growth.grown,
        files={"report.md": report(summary).encode(), "report.png": picture(summary)},
    )
    return summary


@dataclass(frozen=True)
class _Base:
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


def _open_base(config: GrowConfig) -> _Base:
    out = Path(config.out)
    if out.exists():
        raise ValueError(f"out={out} exists; choose another folder or remove it")
    try:
        weights = open_weights(config.base)
    except ValueError as error:
        raise ValueError(f"base{str(error).removeprefix('init_from')}") from None
    assert weights is not None
    path = weights.folder / "tokenizer.model"
    if not path.is_file():
        raise ValueError(
            f"base={config.base}: no tokenizer.model; only a sentencepiece vocabulary can be grown"
        )
    tokenizer, model = Tokenizer.open(path), read_model(path)
    check_base(model)
    if weights.config.vocab_size < tokenizer.vocab_size:
        raise ValueError(
            f"base={config.base}: the model has {weights.config.vocab_size} rows, its tokenizer "
            f"{tokenizer.vocab_size} pieces; they do not belong together"
        )
    with torch.device("meta"):
        weights.check(Mistral(weights.config))
    init = Init.parse(config.init, config.head_init, tied=weights.config.tie_word_embeddings)
    return _Base(weights, tokenizer, model, bare_processor(model), init)


def _open_corpora(config: GrowConfig, tokenizer: Tokenizer) -> tuple[list[Corpus], list[Corpus]]:
    """What is learnt from, and what is only measured."""
    corpora = [
        open_corpus(
            entry,
            config.root,
            tokenizer,
            text_field=config.text_field,
            held_out_fraction=config.held_out_fraction,
        )
        for entry in (*config.corpus, *config.measure)
    ]
    names = [corpus.name for corpus in corpora]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"corpus: {', '.join(twice)} is named twice; rename one of them")
    return corpora[: len(config.corpus)], corpora[len(config.corpus) :]


def _read_candidates(path: Path) -> list[str]:
    """The pieces of a sentencepiece model, or the words of a list."""
    if path.suffix == ".model":
        return model_pieces(path)
    if path.suffix != ".txt":
        raise ValueError(f"candidates: {path}; give sentencepiece .model files or .txt word lists")
    try:
        return word_pieces(path.read_text(encoding="utf-8-sig").split("\n"))
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"candidates: {path}: {error}; give a word per line, in UTF-8") from None


def _open_grown(base: _Base, expansion: Expansion) -> Growth:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "tokenizer.model"
        path.write_bytes(expansion.model)
        grown, model = Tokenizer.open(path), read_model(path)
    return Growth(
        base=base.tokenizer,
        grown=grown,
        widths=piece_widths(model),
        spellings={
            new.id: (new.piece, base.bare.encode_as_pieces(new.piece)) for new in expansion.pieces
        },
    )
