"""Sharded weights give the same scores."""

import torch

from evaluation.scoring.loglikelihood import score
from model.transformer import Mistral
from model.weights import InitialWeights, fill
from tests.helpers.ranks import run_ranks
from tests.unit.evaluation.scoring.test_scoring import SHAPE, close, make_requests
from training.distributed import World
from training.parallelize import ParallelConfig, build_mesh, materialize, parallelize

ASKED = [
    (make_requests(17, [1, 9, 20], 3), {"batch_tokens": 15}),
    (make_requests(18, [2], 1), {}),  # most ranks have nothing to do
]


def score_sharded(world: World, parallel):
    """One rank's part of the scores by a network whose weights are spread over all."""
    with torch.device("meta"):
        model = Mistral(SHAPE)
    source = InitialWeights(model, seed=3)
    config = ParallelConfig(**parallel)
    parallelize(model, config, build_mesh(config, world))
    materialize(model, source, world.device)
    results = [dict(score(model, requests, world=world, **options)) for requests, options in ASKED]
    # Training can go on: the weights are shards again, and take gradients.
    model(torch.tensor([[1, 2, 3]]), labels=torch.tensor([[2, 3, 4]])).total.backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
    return results


def test_sharded_weights_give_the_same_scores():
    model = Mistral(SHAPE)
    fill(model, InitialWeights(model, seed=3))
    expected = [dict(score(model, requests, **options)) for requests, options in ASKED]
    for size in (2, 3):
        parts = run_ranks(score_sharded, size, {"dtype": "float32"})
        for n, wanted in enumerate(expected):
            merged = {index: scored for part in parts for index, scored in part[n].items()}
            assert sorted(merged) == sorted(wanted)
            assert sum(len(part[n]) for part in parts) == len(wanted)
            assert all(close(merged[index], wanted[index], 1e-6) for index in wanted)
            assert all(merged[index].greedy == wanted[index].greedy for index in wanted)
