"""The gradient norm of several ranks is that of one process."""

import pytest
import torch
from torch.distributed.tensor import DTensor

from model.transformer import Mistral
from tests.helpers.ranks import run_ranks
from tests.helpers.toy import randomize, toy_config
from training.optim import clip_gradients
from training.parallelize import ParallelConfig, build_mesh, parallelize

SHARED = [("fsdp", None), ("hsdp", 2), ("replicate", None)]


def norm_and_gradients(world, strategy, shard_ranks):
    """Each rank's gradient is its own, as after rows of its own; FSDP averages them."""
    model = Mistral(toy_config(vocab_size=37))
    randomize(model, 0.1)
    config = ParallelConfig(strategy=strategy, shard_ranks=shard_ranks)
    parallelize(model, config, build_mesh(config, world))
    tokens = torch.arange(24).view(4, 6)[world.rank :: world.dp_size]
    (model(tokens, labels=tokens).total * (world.dp_size / 20)).backward()
    norm = clip_gradients(model.parameters(), 0.5)
    return norm, [
        (p.grad.full_tensor() if isinstance(p.grad, DTensor) else p.grad)
        for p in model.parameters()
    ]


def test_ranks_replicas_and_shards_have_the_norm_of_one_process():
    ((norm, gradients),) = run_ranks(norm_and_gradients, 1, "fsdp", None)
    assert norm > 1
    assert sum(float(g.double().square().sum()) for g in gradients) == pytest.approx(0.25, rel=1e-5)
    for ranks, strategy, shard_ranks in (*((2, *x) for x in SHARED), (4, "hsdp", 2)):
        for found, spread in run_ranks(norm_and_gradients, ranks, strategy, shard_ranks):
            assert found == pytest.approx(norm, rel=1e-6)
            for one, other in zip(spread, gradients, strict=True):
                torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)
