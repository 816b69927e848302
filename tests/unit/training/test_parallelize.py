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
from tests.helpers.toy import toy_config
from train import train_step
from training import parallelize as parallel_module
from training.distributed import World, deterministic_algorithms, start_world
from training.evaluate import after_bos, pack_pieces
from training.optim import OptimConfig, build_optimizer
from training.parallelize import (
    ParallelConfig,
    build_mesh,
    clean_named_parameters,
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
    mine = list(range(world.rank, len(step.rows), world.dp_size))
    most = -(-len(step.rows) // world.dp_size)
    mine += [-1] * (-(-most // micro) * micro - len(mine))
    batches = [some_rows(step, mine[i : i + micro]) for i in range(0, len(mine), micro)]
    return model, optimizer, batches, run


FP32, BF16 = {"dtype": "float32"}, {"dtype": "bfloat16"}


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

    def counted(labels, ignore_index, count=None):
        counts.append(count)
        return supervised_positions(labels, ignore_index, count)

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
    with deterministic_algorithms(False):
        assert state() == before
    with suppress(KeyError), deterministic_algorithms(True):
        assert state() == (True, False)
        raise KeyError
    assert state() == before
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        with deterministic_algorithms(True):
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
