"""A step counts the attention masks of all ranks."""

from types import SimpleNamespace

import torch

from data.rows.loader import Batch
from model.transformer import Mistral
from tests.helpers.ranks import run_ranks
from tests.helpers.toy import randomize, toy_config
from tests.unit.model.test_flops import pairs_one_by_one, segments_of
from train import train_step
from training.distributed import World
from training.optim import OptimConfig, build_optimizer
from training.run.metrics import Meter


def flops_of_a_step(world: World, length, window, rows):
    """What `train_step` says of a step whose rows are dealt out to the ranks."""
    config = toy_config(sliding_window=window)
    model = Mistral(config)
    randomize(model, 0.1)
    mine = segments_of(length, rows)[world.rank :: world.dp_size]
    batch = Batch(
        tokens=torch.ones(mine.shape, dtype=torch.long),
        labels=torch.where(mine > 0, 3, -100),
        segments=mine,
        positions=torch.zeros_like(mine),
        sources=["a"] * len(mine),
        rows=list(range(len(mine))),
    )
    run = SimpleNamespace(
        data=SimpleNamespace(sources={"a": ""}),
        optim=OptimConfig(),
        seed=0,
        batch=SimpleNamespace(tokens_per_step=len(rows) * length),
    )
    optimizer = build_optimizer(model, OptimConfig())
    return train_step(model, optimizer, [batch], run, world).flops  # pyright: ignore[reportArgumentType]


def test_a_step_counts_the_masks_of_all_ranks():
    length, window, rows = 24, 6, [[24], [3, 9, 12], [5, 2], [24]]
    config = toy_config(sliding_window=window)
    segments = segments_of(length, rows)
    expected = config.training_flops(segments.numel(), pairs_one_by_one(segments, window))
    assert run_ranks(flops_of_a_step, 2, length, window, rows) == [expected, expected]
    meter = Meter(peak_flops=4.0 * expected, palm_flops=0.0)
    meter.add(segments.numel(), expected, seconds=2.0)
    assert meter.read()["mfu"] == 1 / 8
