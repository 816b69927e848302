"""S0: vocabulary growth, from a base model and corpora to the same model with more pieces.

`grow` runs the steps in order: collect candidate pieces, choose pieces and append them to the
tokenizer (`tokenizer.expansion.expand`), initialise their rows (`tools.vocabulary.init_rows`),
measure gains and costs (`tools.vocabulary.measure`), write the folder. PreparedLLM (Big Earth Data
8(4), 2024) and Chinese-Mistral prepare their models in this way.
"""

import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from pretrained.safetensors_folder import write_folder
from tokenizer.expansion.candidates import learn_pieces, learned_size, read_model
from tokenizer.expansion.expand import Expansion, check_room, expand, padded_rows
from tokenizer.expansion.rules import main_script
from tokenizer.folder import CONFIG, MAP, MODEL, read_templates
from tokenizer.tokenizer import Tokenizer
from tools.vocabulary.init_rows import GrownWeights, NewPieces
from tools.vocabulary.inputs import (
    LEARNED,
    Base,
    Corpora,
    GrowConfig,
    draw_sample,
    named_candidates,
    open_base,
    open_corpora,
)
from tools.vocabulary.measure import (
    Growth,
    HeadCost,
    init_methods,
    measure_compression,
    measure_losses,
    piece_widths,
)
from tools.vocabulary.report import GrowthSummary, picture, report


@dataclass(frozen=True)
class ChosenPieces:
    """New pieces, and the texts to measure them on.

    Attributes:
        origins: names of the candidate lists.
        measures: corpus name -> (kind of text, texts).
    """

    expansion: Expansion
    origins: list[str]
    measures: dict[str, tuple[str, list[str]]]


def grow(config: GrowConfig, say: Callable[[str], None] = print) -> GrowthSummary:
    """Grow the vocabulary of a model, write the folder and return the content of its report.

    Raises:
        ValueError: an input does not exist or does not fit; raised before any work where possible.
    """
    base = open_base(config)
    check_room(base.model, config.target_vocab_size, config.reserved)
    rows = padded_rows(config.target_vocab_size, config.pad_to_multiple_of)
    corpora = open_corpora(config, base.tokenizer)
    candidates = named_candidates(config.candidates)

    chosen = choose_pieces(config, base, corpora, candidates, say)
    growth = _open_grown(base, chosen.expansion)
    num_base_ids = base.tokenizer.vocab_size
    shape = replace(
        base.weights.config,
        vocab_size=rows,
        num_padded_ids=rows - config.target_vocab_size,
        num_base_ids=num_base_ids,
    )
    new = NewPieces(num_base_ids, [base.bare.encode(x.piece) for x in chosen.expansion.pieces])

    losses = {}
    if config.loss_bytes:
        say("bits per byte before any training:")
        inits = init_methods(base.init, tied=shape.tie_word_embeddings)
        texts = {name: texts for name, (_, texts) in chosen.measures.items()}
        options = {"loss_bytes": config.loss_bytes, "device": config.device, "say": say}
        losses = measure_losses(base.weights, shape, inits, new, texts, growth, **options)
    summary = GrowthSummary(
        init=base.init,
        origins=chosen.origins,
        expansion=chosen.expansion,
        growth=growth,
        compressions=[
            measure_compression(name, kind, texts, growth)
            for name, (kind, texts) in chosen.measures.items()
        ],
        losses=losses,
        cost=HeadCost.of(base.weights.config, shape),
    )

    grown = GrownWeights(base.weights, shape, base.init, new)
    write_folder(
        config.out,
        shape,
        ((name, grown.read(name, slice(None))) for name in sorted(base.weights.shapes)),
        tokenizer=growth.grown,
        # Ids of the base's padding are ids of new pieces now, so settings must not name them.
        settings=base.weights.settings.without_ids_from(num_base_ids),
        files={"report.md": report(summary).encode(), "report.png": picture(summary)},
    )
    return summary


def choose_pieces(
    config: GrowConfig,
    base: Base,
    corpora: Corpora,
    candidates: dict[str, list[str]],
    say: Callable[[str], None],
) -> ChosenPieces:
    """Learn candidates from a sample of the corpora and choose pieces by the tokens they save.

    Args:
        candidates: list name -> pieces, from files.
    """
    say(f"reading {', '.join(config.corpus)}")
    sample = draw_sample(corpora.training, config.weights, config)
    protected = draw_sample(corpora.protected, None, config) if corpora.protected else {}
    texts = [text for part in sample.values() for text in part]
    measures = corpora.to_measure(sample | protected)
    rules = config.rules
    if rules.scripts is None:
        rules = replace(rules, scripts=tuple({main_script(part): 0 for part in sample.values()}))
        say(f"scripts of new pieces, from the corpora: {', '.join(rules.scripts or ())}")
    if config.learn:
        say(f"learning pieces from {sum(len(text.encode()) for text in texts):,} bytes")
        # Twice the room: a later candidate may save more tokens than an earlier one.
        room = check_room(base.model, config.target_vocab_size, config.reserved)
        size = learned_size(texts, merges=2 * room)
        candidates = {LEARNED: learn_pieces(texts, base.model, vocab_size=size), **candidates}
    say(f"choosing from {sum(map(len, candidates.values())):,} candidates")
    expansion = expand(
        base.model,
        candidates,
        texts,
        target_vocab_size=config.target_vocab_size,
        rules=rules,
        reserved=config.reserved,
        protected=[text for part in protected.values() for text in part],
    )
    return ChosenPieces(expansion, list(candidates), measures)


def _open_grown(base: Base, expansion: Expansion) -> Growth:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / MODEL
        path.write_bytes(expansion.model)
        # Names of special tokens and other settings are those of the base.
        for name in (CONFIG, MAP):
            if (base.weights.folder / name).is_file():
                (Path(folder) / name).write_bytes((base.weights.folder / name).read_bytes())
        grown, model = Tokenizer.open(folder), read_model(path)
    grown = grown.with_templates(read_templates(base.weights.folder))
    return Growth(
        base=base.tokenizer,
        grown=grown,
        widths=piece_widths(model),
        spellings={
            new.id: (new.piece, base.bare.encode_as_pieces(new.piece)) for new in expansion.pieces
        },
    )
