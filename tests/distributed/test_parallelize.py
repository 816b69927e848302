"""One gradient, however rows and weights are spread over ranks."""

import pytest
import torch
from torch.distributed.tensor import DTensor

from model.config import ModelConfig
from model.transformer import Mistral
from model.weights import InitialWeights
from tests.helpers.ranks import run_ranks
from tests.helpers.toy import toy_config
from tests.unit.training.test_parallelize import BF16, FP32, one_split
from train import train_step
from training.distributed import World
from training.parallelize import (
    ParallelConfig,
    build_mesh,
    clean_named_parameters,
    local_rows,
    materialize,
    parallelize,
)


def full_weights(model: Mistral):
    """Copies of all weights, whole."""
    return {
        name: (p.full_tensor() if isinstance(p, DTensor) else p).detach().clone()
        for name, p in clean_named_parameters(model)
    }


def train_a_little(world: World, shape: ModelConfig, settings: dict, micro: int):
    """Norms and losses of five steps, and the final weights, of one split of the same rows."""
    model, optimizer, batches, run = one_split(world, shape, settings, micro)
    results = [train_step(model, optimizer, batches, run, world) for _ in range(5)]
    return {
        "norms": [result.grad_norm for result in results],
        "losses": [result.loss_nats for result in results],
        "flops": results[0].flops,
        "tokens": results[0].sources["a"]["tokens"],
        "weights": full_weights(model),
    }


SPLITS = {  # world size: (settings, micro-batch rows)
    1: [
        (FP32, 6),
        (FP32, 1),
        (FP32 | {"checkpointing": "selective"}, 4),
    ],
    2: [
        (FP32, 3),
        (FP32 | {"checkpointing": "full"}, 1),
        (FP32 | {"strategy": "replicate"}, 2),
    ],
    3: [(FP32, 1)],
    4: [(FP32 | {"strategy": "hsdp", "shard_ranks": 2}, 2)],
}


def train_splits(world: World, shapes: list[ModelConfig]):
    return [
        [train_a_little(world, shape, *split) for split in SPLITS[world.dp_size]]
        for shape in shapes
    ]


def test_splits_give_the_same_gradient_and_weights():
    """Eight ways to split the same rows; the first step's norm shows a wrong factor, Adam hides it.

    Weights are compared tensor by tensor, in the Euclidean norm (`weights`) and by the largest
    element: Adam divides by a gradient's own size, so that rounding in a gradient near zero counts
    in full for that element.
    """
    # 37 ids: divisible by neither 2 nor 3 (pytorch/torchtitan#1136).
    shapes = [toy_config(vocab_size=37, tie_word_embeddings=tied) for tied in (False, True)]
    by_size = {size: run_ranks(train_splits, size, shapes) for size in SPLITS}
    assert sum(map(len, SPLITS.values())) == 8
    worst: dict[str, float] = {}
    for number in range(len(shapes)):
        expected = by_size[1][0][number][0]
        assert expected["norms"][0] > 1e-3
        for result in (
            result for ranks in by_size.values() for rank in ranks for result in rank[number]
        ):
            assert result["tokens"] == expected["tokens"]
            assert result["flops"] == expected["flops"]
            found = {
                "loss_nats": relative(result["losses"], expected["losses"]),
                "first grad_norm": relative(result["norms"][:1], expected["norms"][:1]),
                "grad_norm": relative(result["norms"], expected["norms"]),
                "weights": largest(result["weights"], expected["weights"], torch.norm),
                "element": largest(result["weights"], expected["weights"], lambda x: x.abs().max()),
            }
            worst = {name: max(worst.get(name, 0.0), found[name]) for name in found}
    print(f"largest relative differences over 8 splits and 2 shapes: {worst}")
    assert worst.pop("element") < 1e-4
    assert worst["first grad_norm"] < 1e-6
    assert max(worst.values()) < 1e-5


def largest(weights, expected, norm):
    """The largest relative difference of a tensor in some norm."""
    return max(float(norm(weights[name] - other) / norm(other)) for name, other in expected.items())


def relative(values, expected):
    return max(abs(one / other - 1) for one, other in zip(values, expected, strict=True))


def sums_and_gradients(world: World, settings: dict, micro: int):
    """Two steps: gradients of the second, and how often each summed tensors of gradients."""
    import train
    from tools.planning import simulate as simulation

    model, optimizer, batches, run = one_split(world, toy_config(vocab_size=37), settings, micro)
    found = {}
    clip = train.clip_gradients

    def noted(parameters, most):
        for name, parameter in clean_named_parameters(model):
            grad = parameter.grad
            found[name] = (grad.full_tensor() if isinstance(grad, DTensor) else grad).clone()
        return clip(parameters, most)

    calls = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train, "clip_gradients", noted)
        for _ in range(2):
            with simulation._Collectives() as seen:
                train_step(model, optimizer, batches, run, world)
            # `noted` gathers with another operation; what is left are sums of figures.
            calls.append(seen.calls["allreduce"])
    return {"micro_batches": len(batches), "calls": calls, "gradients": found}


def sums_three_ways(world: World, settings: dict):
    """Of one micro-batch, of several, and of several as it was: with a sum for each."""
    import train

    found = [sums_and_gradients(world, settings, micro) for micro in (6, 1)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train, "sum_over_replicas", lambda model, now: None)
        return [*found, sums_and_gradients(world, settings, 1)]


@pytest.mark.parametrize(
    ("ranks", "settings"),
    [
        (2, FP32 | {"strategy": "replicate"}),
        (2, BF16 | {"strategy": "replicate"}),
        (4, FP32 | {"strategy": "hsdp", "shard_ranks": 2}),
    ],
    ids=["replicate", "replicate in bfloat16", "hsdp"],
)
def test_replicas_sum_their_gradients_once_a_step(ranks, settings):
    """Three or two micro-batches sum as often as one, and to the gradient of a sum for each."""
    units = 2 + 1  # blocks, and the root
    by_rank = run_ranks(sums_three_ways, ranks, settings)
    for one, several, former in by_rank:
        assert one["micro_batches"] == 1
        assert several["micro_batches"] == former["micro_batches"] == -(-6 // ranks) > 1
        assert several["calls"] == one["calls"]
        more = (several["micro_batches"] - 1) * units
        assert former["calls"] == [calls + more for calls in several["calls"]]
        worst = largest(several["gradients"], former["gradients"], torch.norm)
        print(f"largest relative difference of a gradient {worst:.1e}")
        assert worst < 1e-5
        for name, gradient in several["gradients"].items():  # replicas agree to the last bit
            assert torch.equal(gradient, by_rank[0][1]["gradients"][name])


def train_in_both_dtypes(world: World, shape: ModelConfig):
    return [train_a_little(world, shape, settings, 3) for settings in (FP32, BF16)]


def test_bfloat16_computes_in_16_bits_over_fp32_weights():
    exact, rounded = run_ranks(train_in_both_dtypes, 2, toy_config(vocab_size=37))[0]
    assert all(weight.dtype == torch.float32 for weight in rounded["weights"].values())
    assert rounded["losses"] != exact["losses"]
    assert rounded["losses"] == pytest.approx(exact["losses"], rel=2e-2)
    # Updates far below bf16's resolution arrive in the weights.
    changed = rounded["weights"]["lm_head.weight"]
    assert (changed != changed.bfloat16().float()).any()


def mesh_shapes(world):
    shapes = [
        tuple(build_mesh(ParallelConfig(**settings), world).shape)
        for settings in ({}, {"strategy": "replicate"})
    ]
    with pytest.raises(ValueError, match="shard_ranks=3 does not divide the 2 ranks"):
        build_mesh(ParallelConfig(strategy="hsdp", shard_ranks=3), world)
    return shapes


def test_meshes_and_their_refusal():
    assert run_ranks(mesh_shapes, 2)[0] == [(1, 2), (2, 1)]


def rows_read(world, shape):
    """Which rows of which tensor a rank asks the source for."""
    with torch.device("meta"):
        model = Mistral(shape)
    asked = {}

    class Recorder(InitialWeights):
        def read(self, name, rows):
            asked[name] = (rows.start, rows.stop)
            return super().read(name, rows)

    source = Recorder(model, seed=0)
    config = ParallelConfig(dtype="float32")
    parallelize(model, config, build_mesh(config, world))
    materialize(model, source, world.device)
    for name, parameter in clean_named_parameters(model):
        assert asked[name] == (local_rows(parameter).start, local_rows(parameter).stop)
    # Nothing above needs all ranks: rank 0, which hosts the store, must not end before the others.
    torch.distributed.barrier()
    return asked


def test_each_rank_reads_only_its_rows():
    shape = toy_config(vocab_size=37)
    asked = run_ranks(rows_read, 3, shape)
    for name, (start, stop) in asked[0].items():
        assert start == 0
        assert stop == asked[1][name][0]
        assert asked[1][name][1] == asked[2][name][0]
    assert asked[2]["lm_head.weight"] == (26, 37)
