"""Our side of training steps: the network as `train.py` builds it, on random tokens."""

import statistics
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from experiments.benchmarks.harness.common import (
    DrawnWeights,
    dtype_names,
    peak_gib,
    random_ids,
    timed,
)
from experiments.benchmarks.harness.workloads import Training
from model.adapters import add_lora
from model.attention import resolve_backend
from model.config import ModelConfig
from model.device import DTYPES
from model.documents import Documents
from model.labels import IGNORE_INDEX
from model.lora.layer import LoraConfig
from model.transformer import Mistral
from training.distributed import World, start_world
from training.optim import OptimConfig, build_optimizer
from training.parallelize import ParallelConfig, build_mesh, materialize, parallelize
from training.run.metrics import measure_peak_flops


def measure(work: Training, side: str) -> dict:
    """Tokens per second, customary MFU and peak memory of one side."""
    if side.startswith("peer"):
        # Imported here, because our side does without transformers.
        from experiments.benchmarks.harness import hf_baseline

        return report(*hf_baseline.train(work, compile=side == "peer_compile"))
    with start_world(work.device) as world:
        run = prepare(work, world, compile=side == "ours_compile")
        seconds = timed(run.step, work.steps, world.device)
        frozen = [p for p in run.model.parameters() if not p.requires_grad]
        return report(work, seconds, run.losses[0], run.optimizer, frozen, world.device)


class Prepared(NamedTuple):
    """A network that is ready to be trained.

    Attributes:
        step: trains it on the same random tokens again.
        losses: nats per token of all steps so far.
    """

    step: Callable[[], None]
    losses: list[Tensor]
    model: Mistral
    optimizer: torch.optim.Optimizer


def prepare(work: Training, world: World, *, compile: bool) -> Prepared:
    """Our side of the work."""
    model = build(work, world, compile=compile)
    moments = "bfloat16" if work.rounded_moments else "float32"
    optimizer = build_optimizer(model, OptimConfig(moment_dtype=moments))
    tokens = random_ids(model.config.num_tokens, work.rows, work.length, world.device)
    labels = tokens.roll(-1, 1)
    labels[:, -1] = IGNORE_INDEX
    supervised = work.rows * (work.length - 1)
    losses: list[Tensor] = []

    def step() -> None:
        loss = model(tokens, labels=labels, supervised=supervised).total / supervised
        losses.append(loss.detach())
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return Prepared(step, losses, model, optimizer)


def build(work: Training, world: World, *, compile: bool) -> Mistral:
    """The network, spread, compiled and filled as for a run."""
    shape, dtype = ModelConfig(**work.shape), DTYPES[work.dtype]
    backend = resolve_backend("auto", world.device, dtype, shape.head_size)
    with torch.device("meta"):
        model = Mistral(shape, backend=backend)
    if work.lora_rank is not None:
        add_lora(model, LoraConfig(rank=work.lora_rank, alpha=2.0 * work.lora_rank), dtype)
    weights = DrawnWeights(model, world.device)
    parallel = ParallelConfig(
        # Without masters there is nothing to cast: all weights have the dtype.
        dtype=work.dtype if work.masters else "float32",
        checkpointing=work.checkpointing,
        checkpointed_layers=work.checkpointed_layers,
        other_layers=work.other_layers,
        compile=compile,
    )
    parallelize(model, parallel, build_mesh(parallel, world))
    if not work.masters:
        model.to(dtype)
    materialize(model, weights, world.device)
    return model


def step_flops(work: Training) -> tuple[int, int]:
    """FLOPs of a step: of the exact band, and as is customary."""
    shape = ModelConfig(**work.shape)
    tokens = work.rows * work.length
    whole = Documents.whole_rows(work.rows, work.length, torch.device("cpu"))
    frozen = work.lora_rank is not None
    pairs = whole.count_pairs(shape.sliding_window)
    exact = shape.training_flops(tokens, pairs, frozen_layers=frozen, frozen_head=frozen)
    return exact, shape.palm_flops(tokens, work.length)


def report(
    work: Training,
    seconds: list[float],
    loss: Tensor,
    optimizer: torch.optim.Optimizer,
    frozen: Sequence[Tensor],
    device: torch.device,
) -> dict[str, Any]:
    """The figures of either side.

    Args:
        seconds: of each timed step.
        loss: nats per token of the first step, which tells whether both compute the same.
        frozen: weights that are not trained.
    """
    peak = peak_gib(device)  # before the machine's rates are measured, which takes memory too
    rate = work.rows * work.length / statistics.median(seconds)
    exact, customary = step_flops(work)
    matrix = measure_peak_flops(device, DTYPES[work.dtype])
    trained = [p for group in optimizer.param_groups for p in group["params"]]
    moments = [state["exp_avg"] for state in optimizer.state.values()]
    per_token = work.rows * work.length
    return {
        "figures": {
            "tokens_per_second": rate,
            "customary_mfu": rate * customary / per_token / matrix,
            "peak_gib": peak,
            "first_loss_nats": float(loss),
        },
        "ceilings": {"tokens_per_second": matrix * per_token / exact},
        "machine": {"matrix_tflops": matrix / 1e12},
        "precision": {
            "trained": dtype_names(trained),
            "frozen": dtype_names(frozen),
            "moments": dtype_names(moments),
        },
    }
