"""S0: a base model and corpora in, the same model with a larger vocabulary out.

`grow` is the whole of it and reads top to bottom: candidates are learnt and taken, chosen and
appended to the tokenizer (`tokenizer.expansion.expand`), their rows are initialised
(`tools.vocabulary.init_rows`),
and gains and costs are measured (`tools.vocabulary.measure`) before the folder appears.
PreparedLLM (Big Earth Data 8(4), 2024) and Chinese-Mistral prepare their models so.
"""

import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from pretrained.safetensors_folder import write_folder
from tokenizer.expansion.candidates import learn_pieces, learnt_size, read_model
from tokenizer.expansion.expand import Expansion, check_room, expand, padded_rows
from tokenizer.expansion.rules import main_script
from tokenizer.folder import CONFIG, MAP, MODEL, read_templates
from tokenizer.tokenizer import Tokenizer
from tools.vocabulary.init_rows import GrownWeights, NewPieces
from tools.vocabulary.inputs import (
    LEARNT,
    Base,
    GrowConfig,
    draw_sample,
    named_candidates,
    open_base,
    open_corpora,
)
from tools.vocabulary.measure import (
    Growth,
    HeadCost,
    measure_compression,
    measure_losses,
    piece_widths,
    ways_to_begin,
)
from tools.vocabulary.report import Summary, picture, report
from tools.vocabulary.similarity import company, neighbours


def grow(config: GrowConfig, say: Callable[[str], None] = print) -> Summary:
    """Grow a model's vocabulary and write the folder; returns what its report says.

    Raises:
        ValueError: what does not exist or does not fit, before any work where it can be known.
    """
    # 1. What can be refused is refused here.
    base = open_base(config)
    room = check_room(base.model, config.target_vocab_size, config.reserved)
    rows = padded_rows(config.target_vocab_size, config.pad_to_multiple_of)
    corpora = open_corpora(config, base.tokenizer)
    candidates = named_candidates(config.candidates)

    # 2. Pieces: learnt and taken, then chosen by what they save on a sample.
    say(f"reading {', '.join(config.corpus)}")
    sample = draw_sample(corpora.learnt, config.weights, config)
    protected = draw_sample(corpora.protected, None, config) if corpora.protected else {}
    texts = [text for part in sample.values() for text in part]
    measures = corpora.to_measure(sample | protected)
    rules = config.rules
    if rules.scripts is None:
        rules = replace(rules, scripts=tuple({main_script(part): 0 for part in sample.values()}))
        say(f"new pieces are of the corpora's scripts: {', '.join(rules.scripts or ())}")
    if config.learn:
        say(f"learning pieces from {sum(len(text.encode()) for text in texts):,} bytes")
        # Twice as many as there is room for: others may save more than those learnt first.
        size = learnt_size(texts, merges=2 * room)
        candidates = {LEARNT: learn_pieces(texts, base.model, vocab_size=size), **candidates}
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
    growth = _open_grown(base, expansion)

    # 3. Rows: the old pieces that a new one was spelt with decide where its rows begin.
    shape = replace(
        base.weights.config,
        vocab_size=rows,
        num_padded_ids=rows - config.target_vocab_size,
        num_base_ids=base.tokenizer.vocab_size,
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
        origins=list(candidates),
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
        # Rows that were padding stand for new pieces now.
        settings=base.weights.settings.without_ids_from(base.tokenizer.vocab_size),
        files={"report.md": report(summary).encode(), "report.png": picture(summary)},
    )
    return summary


def _open_grown(base: Base, expansion: Expansion) -> Growth:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / MODEL
        path.write_bytes(expansion.model)
        # The names of special tokens and other settings stay those of the base.
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
