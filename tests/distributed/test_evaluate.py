"""An evaluation depends neither on rows nor on batches nor on ranks."""

import math
from itertools import chain

import pytest
import torch

from tests.helpers.ranks import run_ranks
from tests.helpers.toy import toy_config
from tests.unit.training.test_evaluate import toy_model, toy_set
from training.distributed import World
from training.evaluate import (
    evaluate,
)


def measure(world: World, layouts):
    model = toy_model(toy_config(vocab_size=60, sliding_window=8))
    return [
        evaluate(model, [toy_set()], row_length=row_length, micro_batch_rows=micro, world=world)
        for row_length, micro in layouts
    ]


def test_result_depends_on_neither_rows_batch_nor_ranks():
    model = toy_model(toy_config(vocab_size=60, sliding_window=8))
    nats = 0.0
    for ids, _ in toy_set().pieces:  # each alone
        logits = model(torch.tensor([ids])).detach().log_softmax(-1)[0]
        nats -= float(sum(logits[i, token] for i, token in enumerate(ids[1:])))
    expected = nats / math.log(2) / 777
    for size, layouts in {1: [(24, 3), (100, 1)], 3: [(24, 2), (50, 4)]}.items():
        for result in chain.from_iterable(run_ranks(measure, size, layouts)):
            assert result["toy"]["bits_per_byte"] == pytest.approx(expected, rel=1e-6)
            assert result["toy"]["tokens"] == sum(len(p.ids) - 1 for p in toy_set().pieces)
