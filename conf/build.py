"""Assembly of a run from its configuration: opened data, and a network sharded over the ranks.

Only this file joins the parts of all packages; `train.py` and `scripts/verify.py` start with it.
"""

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import torch

from conf.initial import Initial, open_initial
from conf.schema import Config, check_same_run, to_yaml, under_former_name
from data.rows.curriculum import Curriculum
from data.rows.loader import Loader
from data.rows.sources import AnySource
from data.sample.build import build_sample
from data.sample.instructions import INSTRUCTIONS
from evaluation.multiple_choice.in_training import TrainingTasks, prepare_tasks
from model.attention import resolve_backend
from model.device import compute_dtype
from model.transformer import Mistral
from model.weights import WeightSource
from tokenizer.tokenizer import Tokenizer
from training.distributed import World
from training.evaluate import HeldOut, held_out_sets
from training.freeze import check_stages
from training.parallelize import build_mesh, parallelize
from training.run.resume import recorded_fingerprints
from training.schedule import Span, spans_of
from training.sources import fingerprints_of, network_shape, open_sources, open_tokenizer


@dataclass(frozen=True)
class RunParts:
    """Parts of a run, opened and compared with each other by `build_run`.

    Attributes:
        config: configuration with the shape of the network filled in.
        tokenizer, sources, plan, held_out: the data.
        loader: micro-batches of this rank; a context manager.
        tasks: benchmarks that the run answers while it trains.
        spans: steps of each learning-rate schedule.
        model: network on the meta device, sharded over the ranks.
        weights: source of the initial weights.
        initial: the opened `init_from`.
        dtype: of the computation.
    """

    config: Config
    tokenizer: Tokenizer
    sources: dict[str, AnySource]
    plan: Curriculum
    held_out: HeldOut
    loader: Loader
    tasks: TrainingTasks
    spans: list[Span]
    model: Mistral
    weights: WeightSource
    initial: Initial
    dtype: torch.dtype

    @cached_property
    def fingerprints(self) -> dict[str, str]:
        """Fingerprints of the data and of the weights that the run starts from."""
        return fingerprints_of(self.sources) | dict(self.initial.fingerprints)


def build_run(config: Config, world: World, *, resumes: bool = False) -> RunParts:
    """Open the data and build the network; writes nothing except the embedded sample.

    Args:
        resumes: work in the run folder that the configuration names. All ranks and the folder must
            have the same configuration, and initial weights are needed only without a checkpoint.

    Raises:
        ValueError: a part does not exist, or parts do not fit each other or the run folder.
    """
    if resumes:
        world.check_agreement("the resolved configuration", to_yaml(config))
        config = replace(config, name=world.from_main(under_former_name(config).name))
    # First what is quick to refuse: weights, attention backend, mesh.
    initial = open_initial(config, resumes=resumes)
    dtype = compute_dtype(config.parallel.dtype, world.device)
    shape = config.model or initial.shape
    assert shape is not None
    backend = resolve_backend(config.parallel.attention, world.device, dtype, shape.head_size)
    mesh = build_mesh(config.parallel, world)

    tokenizer, sources = _open_data(config, world)
    plan, batch = config.plan(), config.batch
    loader = Loader(
        plan,
        sources,
        micro_batch_rows=batch.micro_batch_rows,
        rank=world.rank,
        world_size=world.dp_size,
        seed=config.seed,
        prefetch=batch.prefetch,
    )
    held_out = held_out_sets(sources, tokenizer, config.evaluation, batch.row_length)

    # The network is built on the meta device and sharded; later each rank fills its own rows.
    shape = network_shape(config.model, initial.folder, tokenizer)
    tasks = prepare_tasks(config.tasks, tokenizer, shape)
    with torch.device("meta"):
        model = Mistral(shape, backend=backend)
    lora, weights = initial.weights(model, config.lora, dtype, config.seed)
    check_stages(plan.stages, shape, model.lora)
    parallelize(model, config.parallel, mesh)
    config = replace(config, model=shape, lora=lora)
    if resumes:
        world.run_on_rank0(lambda: check_same_run(config.folder / "config.yaml", config))
    return RunParts(
        config=config,
        tokenizer=tokenizer,
        sources=sources,
        plan=plan,
        held_out=HeldOut(held_out, batch.row_length, batch.micro_batch_rows),
        loader=loader,
        tasks=tasks,
        spans=spans_of(plan.stages, config.optim.lr),
        model=model,
        weights=weights,
        initial=initial,
        dtype=dtype,
    )


def _open_data(config: Config, world: World) -> tuple[Tokenizer, dict[str, AnySource]]:
    """Open tokenizer and sources; the embedded sample is built first, if it is missing."""
    data = config.data
    if data.sample_scale is not None:
        root, scale = Path(data.root), data.sample_scale
        asks = any(folder in INSTRUCTIONS for folder in data.sources.values())
        world.run_on_rank0(lambda: build_sample(root, scale=scale, conversations=asks))
    tokenizer = open_tokenizer(data.tokenizer)
    recorded = world.from_main(recorded_fingerprints(config.folder / "environment.json"))
    return tokenizer, open_sources(data.root, data.sources, tokenizer, recorded)
