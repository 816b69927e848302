"""One kind of step, whatever its settings, timed in this process."""

import statistics
from dataclasses import dataclass, field, replace

import torch

from conf.schema import BatchConfig
from experiments.benchmarks.harness.common import peak_gib, timed
from model.attention import attention, describe_backend, prepare_documents, resolve_backend
from model.config import ModelConfig
from model.device import compute_dtype
from model.documents import Documents
from model.labels import IGNORE_INDEX
from model.transformer import Mistral
from model.weights import InitialWeights
from training.distributed import World
from training.optim import OptimConfig, build_optimizer
from training.parallelize import ParallelConfig, build_mesh, materialize, parallelize
from training.run.metrics import measure_peak_flops


@dataclass(kw_only=True)
class StepConfig:
    """The timed step and its device, without a suite."""

    model: ModelConfig
    batch: BatchConfig = field(default_factory=BatchConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    parallel: ParallelConfig = field(default_factory=ParallelConfig)
    device: str = "auto"
    steps: int = 4
    """Timed steps."""
    master_weights: bool = True
    """Keep weights and optimizer in fp32, as training does; false keeps them in the compute dtype,
    to compare with peers that do. One process only."""


def time_steps(config: StepConfig, world: World, model: Mistral) -> list[float]:
    """Seconds of each step, the first (warm-up) left out."""
    optimizer = build_optimizer(model, config.optim)
    shape = (config.batch.micro_batch_rows, config.batch.row_length)
    tokens = torch.randint(config.model.num_tokens, shape, device=world.device)
    labels = tokens.roll(-1, 1)
    labels[:, -1] = IGNORE_INDEX
    supervised = labels[:, 1:].numel()

    def step() -> None:
        (model(tokens, labels=labels, supervised=supervised).total / supervised).backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return timed(step, config.steps, world.device)


def attention_error(
    shape: ModelConfig, backend: str, dtype: torch.dtype, device: torch.device
) -> float:
    """Largest difference from the fp64 reference, relative to its largest value, on packed rows."""
    torch.manual_seed(0)
    length = 2048
    segments = torch.ones(1, length, dtype=torch.int32)
    segments[:, 300:] = 2
    segments[:, 1900:] = 3
    documents = Documents.from_segments(segments).to(device)
    heads = (shape.num_attention_heads, shape.num_key_value_heads, shape.num_key_value_heads)
    q, k, v = (torch.randn(1, length, h, shape.head_size, device=device).to(dtype) for h in heads)
    window = min(shape.sliding_window or length, 512)
    options = {"window": window, "backend": backend}
    out = attention(q, k, v, prepare_documents(documents, window, backend), **options)
    options["backend"] = "reference"
    exact = attention(q.double(), k.double(), v.double(), documents, **options)
    return float((out.double() - exact).abs().max() / exact.abs().max())


def run(config: StepConfig, world: World) -> dict:
    """All figures of one benchmark."""
    dtype = compute_dtype(config.parallel.dtype, world.device)
    shape, batch = config.model, config.batch
    backend = resolve_backend(config.parallel.attention, world.device, dtype, shape.head_size)
    with torch.device("meta"):
        model = Mistral(shape, backend=backend)
    weights = InitialWeights(model, seed=0)
    parallel = config.parallel
    if not config.master_weights:
        # Nothing is to be cast then; blocks are checkpointed and compiled all the same.
        parallel = replace(parallel, dtype="float32")
    parallelize(model, parallel, build_mesh(parallel, world))
    if not config.master_weights:
        model.to(dtype)
    materialize(model, weights, world.device)
    seconds = statistics.median(time_steps(config, world, model))
    tokens = batch.micro_batch_rows * batch.row_length
    whole = Documents.whole_rows(batch.micro_batch_rows, batch.row_length, torch.device("cpu"))
    flops = shape.training_flops(tokens, whole.count_pairs(shape.sliding_window))
    peak = peak_gib(world.device)
    return {
        "weights": sum(parameter.numel() for parameter in model.parameters()),
        "row_length": batch.row_length,
        "sliding_window": shape.sliding_window,
        "rows": batch.micro_batch_rows,
        "dtype": str(dtype).removeprefix("torch."),
        "attention": describe_backend(backend),
        "attention_error": attention_error(shape, backend, dtype, world.device),
        "master_weights": "float32" if config.master_weights else str(dtype),
        "compile": config.parallel.compile,
        "checkpointing": config.parallel.checkpointing,
        "tokens_per_second": tokens / seconds,
        "tflops": flops / seconds / 1e12,
        "matrix_tflops": measure_peak_flops(world.device, dtype) / 1e12,
        "peak_gib": peak,
        "threads": world.threads,
        "torch": torch.__version__,
    }
