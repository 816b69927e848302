"""One gradient, however rows and weights are spread."""

from contextlib import suppress
from types import SimpleNamespace

import pytest
import torch
from torch.distributed.tensor import DTensor

from kernels.cross_entropy import supervised_positions
from model.adapters import add_lora
from model.config import ModelConfig
from model.device import compute_dtype
from model.documents import copy_to
from model.lora.layer import LoraConfig
from model.transformer import Block, Mistral
from model.weights import InitialWeights, fill
from tests.helpers.ranks import run_ranks
from tests.helpers.toy import toy_config
from train import train_step
from training import parallelize as parallel_module
from training.distributed import World, fixed_order, start_world
from training.evaluate import after_bos, pack_pieces
from training.optim import OptimConfig, build_optimizer
from training.parallelize import (
    ParallelConfig,
    build_mesh,
    clean_named_parameters,
    local_rows,
    materialize,
    parallelize,
)

ROW_LENGTH = 24


def rows_of_a_step(vocab_size, rows=6):
    """Documents of very unequal length, one row wholly unsupervised."""
    generator = torch.Generator().manual_seed(0)
    lengths = [24, 3, 9, 12, 24, 5, 19, 24, 2, 2, 20]
    pieces = [torch.randint(vocab_size, (n,), generator=generator).tolist() for n in lengths]
    batch = pack_pieces([after_bos(piece) for piece in pieces], ROW_LENGTH)
    assert len(batch.rows) == rows
    batch.labels[2] = -100
    return batch


def some_rows(batch, numbers):
    """A batch of chosen rows; -1 stands for padding."""
    index = torch.tensor([max(n, 0) for n in numbers])
    padding = torch.tensor([n < 0 for n in numbers])
    part = type(batch)(
        tokens=batch.tokens[index],
        labels=batch.labels[index].masked_fill(padding[:, None], -100),
        segments=batch.segments[index].masked_fill(padding[:, None], 0),
        positions=batch.positions[index],
        sources=["" if n < 0 else "a" for n in numbers],
        rows=list(numbers),
    )
    return part


def one_split(world: World, shape: ModelConfig, settings: dict, micro: int):
    """Model, optimizer, a step's batches and configuration: one split of the same rows."""
    config = ParallelConfig(**settings)
    with torch.device("meta"):
        model = Mistral(shape)
    source = InitialWeights(model, seed=3)
    parallelize(model, config, build_mesh(config, world))
    materialize(model, source, world.device)
    optimizer = build_optimizer(model, OptimConfig(lr=1e-3))
    run = SimpleNamespace(
        data=SimpleNamespace(sources={"a": ""}),
        optim=OptimConfig(),
        seed=0,
        batch=SimpleNamespace(tokens_per_step=6 * ROW_LENGTH),
    )
    step = rows_of_a_step(shape.num_tokens)
    mine = list(range(world.rank, len(step.rows), world.size))
    most = -(-len(step.rows) // world.size)
    mine += [-1] * (-(-most // micro) * micro - len(mine))
    batches = [some_rows(step, mine[i : i + micro]) for i in range(0, len(mine), micro)]
    return model, optimizer, batches, run


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


FP32, BF16 = {"dtype": "float32"}, {"dtype": "bfloat16"}
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
        [train_a_little(world, shape, *split) for split in SPLITS[world.size]] for shape in shapes
    ]


@pytest.mark.distributed
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


@pytest.mark.distributed
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


@pytest.mark.distributed
def test_bfloat16_computes_in_16_bits_over_fp32_weights():
    exact, rounded = run_ranks(train_in_both_dtypes, 2, toy_config(vocab_size=37))[0]
    assert all(weight.dtype == torch.float32 for weight in rounded["weights"].values())
    assert rounded["losses"] != exact["losses"]
    assert rounded["losses"] == pytest.approx(exact["losses"], rel=2e-2)
    # Updates far below bf16's resolution arrive in the weights.
    changed = rounded["weights"]["lm_head.weight"]
    assert (changed != changed.bfloat16().float()).any()


def test_a_gradient_that_is_not_finite_leaves_everything_as_it_was():
    shape = toy_config(vocab_size=37)
    model = Mistral(shape)
    fill(model, InitialWeights(model, seed=3))
    optimizer = build_optimizer(model, OptimConfig())
    run = SimpleNamespace(
        data=SimpleNamespace(sources={"a": ""}),
        optim=OptimConfig(),
        seed=0,
        batch=SimpleNamespace(tokens_per_step=6 * ROW_LENGTH),
    )
    batches = [some_rows(rows_of_a_step(37), range(6))]
    with start_world("cpu") as world:
        train_step(model, optimizer, batches, run, world)
        with torch.no_grad():
            model.model.norm.weight[0] = torch.inf
        before = [p.detach().clone() for p in model.parameters()]
        moments = [optimizer.state[p]["exp_avg"].clone() for p in model.parameters()]
        with pytest.raises(FloatingPointError, match="nothing was updated"):
            train_step(model, optimizer, batches, run, world)
    for parameter, weight, moment in zip(model.parameters(), before, moments, strict=True):
        assert torch.equal(parameter, weight)
        assert torch.equal(optimizer.state[parameter]["exp_avg"], moment)


def test_a_step_asks_the_device_for_no_counts_and_waits_for_no_copies(monkeypatch):
    """What `test_loss` and `test_documents` show of two functions is of use where they are used."""
    counts, copied = [], []

    def counted(labels, count=None):
        counts.append(count)
        return supervised_positions(labels, count)

    def copy(device, x):
        copied.append(x)
        return copy_to(device, x)

    monkeypatch.setattr("model.loss.supervised_positions", counted)
    monkeypatch.setattr("train.copy_to", copy)
    monkeypatch.setattr("model.documents.copy_to", copy)
    with start_world("cpu") as world:
        model, optimizer, batches, run = one_split(world, toy_config(vocab_size=37), FP32, 2)
        train_step(model, optimizer, batches, run, world)
    assert counts == [batch.supervised_tokens for batch in batches]
    assert len(copied) == 5 * len(batches)  # ids, labels, and three tensors of documents


def mesh_shapes(world):
    shapes = [
        tuple(build_mesh(ParallelConfig(**settings), world).shape)
        for settings in ({}, {"strategy": "replicate"})
    ]
    with pytest.raises(ValueError, match="shard_ranks=3 does not divide the 2 ranks"):
        build_mesh(ParallelConfig(strategy="hsdp", shard_ranks=3), world)
    return shapes


@pytest.mark.distributed
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
    return asked


@pytest.mark.distributed
def test_each_rank_reads_only_its_rows():
    shape = toy_config(vocab_size=37)
    asked = run_ranks(rows_read, 3, shape)
    for name, (start, stop) in asked[0].items():
        assert start == 0
        assert stop == asked[1][name][0]
        assert asked[1][name][1] == asked[2][name][0]
    assert asked[2]["lm_head.weight"] == (26, 37)


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"strategy": "ddp"}, "parallel.strategy"),
        ({"dtype": "fp8"}, "parallel.dtype"),
        ({"checkpointing": "some"}, "parallel.checkpointing"),
        ({"strategy": "hsdp"}, "needs shard_ranks"),
        ({"shard_ranks": 2}, "take none"),
    ],
)
def test_bad_settings_are_refused(changes, word):
    with pytest.raises(ValueError, match=word):
        ParallelConfig(**changes)


def test_auto_dtype_is_bfloat16_on_cuda_only():
    assert compute_dtype("auto", torch.device("cuda")) == torch.bfloat16
    assert compute_dtype("auto", torch.device("cpu")) == torch.float32


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"checkpointed_layers": 1}, "with parallel.checkpointing=none"),
        ({"checkpointing": "full", "checkpointed_layers": 0}, "a number from 1 on"),
        ({"other_layers": "selective"}, "needs parallel.checkpointing=full and a number"),
        ({"checkpointing": "full", "other_layers": "selective"}, "a number of parallel.checkp"),
        (
            {"checkpointing": "selective", "checkpointed_layers": 1, "other_layers": "selective"},
            "set parallel.checkpointing=selective alone",
        ),
        ({"other_layers": "full"}, "one of none, selective"),
    ],
)
def test_checkpointed_layers_need_checkpointing(options, message):
    with pytest.raises(ValueError, match=message):
        ParallelConfig(**options)


def test_only_the_first_layers_are_checkpointed():
    with start_world("cpu") as world:
        model = Mistral(toy_config(num_hidden_layers=3))
        for count, wrapped in ((2, [True, True, False]), (4, None)):
            config = ParallelConfig(checkpointing="full", checkpointed_layers=count)
            if wrapped is None:
                with pytest.raises(ValueError, match="checkpointed_layers=4: the network has 3"):
                    parallelize(model, config, build_mesh(config, world))
                continue
            parallelize(model, config, build_mesh(config, world))
            assert [type(x) is not Block for x in model.model.layers] == wrapped


def test_layers_that_full_leaves_out_can_be_recomputed_in_part(monkeypatch):
    chosen = []
    real = parallel_module._checkpointed
    monkeypatch.setattr(
        parallel_module, "_checkpointed", lambda x, kind: chosen.append(kind) or real(x, kind)
    )
    options = {"checkpointing": "full", "checkpointed_layers": 1, "other_layers": "selective"}
    with start_world("cpu") as world:
        config = ParallelConfig(**options)
        parallelize(Mistral(toy_config(num_hidden_layers=3)), config, build_mesh(config, world))
    assert chosen == ["full", "selective", "selective"]


def test_a_fixed_order_is_asked_of_torch_for_a_while():
    def state():
        memory = torch.utils.deterministic.fill_uninitialized_memory
        return torch.are_deterministic_algorithms_enabled(), memory

    before = state()
    assert not before[0]
    with fixed_order(False):
        assert state() == before
    with suppress(KeyError), fixed_order(True):
        assert state() == (True, False)
        raise KeyError
    assert state() == before
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        with fixed_order(True):
            assert not torch.is_deterministic_algorithms_warn_only_enabled()
        assert torch.is_deterministic_algorithms_warn_only_enabled()
    finally:
        torch.use_deterministic_algorithms(False)


def test_alone_what_is_frozen_and_settled_is_left_as_it_is():
    """One device copies no frozen weight; what is trained is cast from fp32 as ever."""
    with start_world("cpu") as world:
        model = Mistral(toy_config())
        add_lora(model, LoraConfig(rank=2, alpha=4.0), torch.bfloat16)
        config = ParallelConfig(dtype="bfloat16")
        parallelize(model, config, build_mesh(config, world))
        for name, parameter in clean_named_parameters(model):
            assert isinstance(parameter, DTensor) == (".lora_" in name)
        tokens = torch.arange(16).view(1, 16)
        model(tokens, labels=tokens).total.backward()
        grads = {p.grad.dtype for _, p in clean_named_parameters(model) if p.grad is not None}
        assert grads == {torch.float32}
