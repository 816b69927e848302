"""The first command of the README: minutes long, so in a file of its own."""

import math
from collections import Counter, defaultdict
from itertools import pairwise

import pytest

from data.rows.curriculum import Curriculum
from data.rows.loader import Loader
from data.rows.shards import Source
from tests.helpers.runs import (
    configure,
    evaluations,
    execute,
)
from tokenizer.tokenizer import Tokenizer
from training.evaluate import build_set

STAGE1 = "+experiment=tspt_stage1"


def bigram_bits_per_byte(config, name, tokenizer):
    """A Witten-Bell bigram model of the very rows the run was trained on."""
    sources = {
        key: Source(f"{config.data.root}/{folder}") for key, folder in config.data.sources.items()
    }
    plan = Curriculum(
        config.curriculum,
        row_length=config.batch.row_length,
        rows_per_step=config.batch.rows_per_step,
        seed=config.seed,
    )
    pairs, singles = defaultdict(Counter), Counter()
    with Loader(
        plan, sources, micro_batch_rows=64, rank=0, world_size=1, seed=config.seed
    ) as loader:
        for step in range(plan.steps):
            for batch in loader.step(step):
                seen = batch.labels >= 0
                for a, b in zip(
                    batch.tokens[seen].tolist(), batch.labels[seen].tolist(), strict=True
                ):
                    pairs[a][b] += 1
                    singles[b] += 1
    total = singles.total() + tokenizer.vocab_size

    def probability(a, b):
        single = (singles[b] + 1) / total
        follow = pairs[a]
        return (follow[b] + len(follow) * single) / ((follow.total() + len(follow)) or 1) or single

    held_out = build_set(
        name, sources[name].held_out(), tokenizer, config.evaluation, config.batch.row_length
    )
    nats = -sum(
        math.log(probability(a, b)) for piece in held_out.pieces for a, b in pairwise(piece.ids)
    )
    return nats / math.log(2) / held_out.utf8_bytes


def test_the_first_command_of_the_readme(tmp_path):
    """On a bare machine: trains the toy on the sample it writes itself, and learns."""
    places = [f"data.root={tmp_path}/sample", f"data.tokenizer={tmp_path}/sample/tokenizer"]
    arguments = [STAGE1, *places, f"runs_folder={tmp_path}/runs"]
    result = execute(*arguments, ranks=1)
    assert result.returncode == 0, result.stderr
    config = configure(*arguments)
    last = max(evaluations(config.folder))
    tokenizer = Tokenizer.open(config.data.tokenizer)
    for name in config.data.general:
        trained = evaluations(config.folder)[last][name]["bits_per_byte"]
        baseline = bigram_bits_per_byte(config, name, tokenizer)
        print(f"{name}: {trained:.4f} bits per byte, bigram {baseline:.4f}")
        assert trained < baseline
    # The published definition of bits per byte, from the exported folder by other hands.
    pytest.importorskip("transformers")
    from experiments.checks.bits_with_transformers import bits_per_byte, open_exported, pieces

    exported = open_exported(config.folder)
    for name in ("general_en", "geo_zh"):
        bits, size = bits_per_byte(*exported, pieces(config, name))
        ours = evaluations(config.folder)[last][name]
        assert size == ours["bytes"]
        assert bits == pytest.approx(ours["bits_per_byte"], abs=1e-4)
