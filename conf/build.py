"""From a configuration to what a run works with: opened data, and a network spread over the ranks.

The one place where the noun of every package meets the others'; `train.py` and `scripts/verify.py`
begin with it.
"""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import torch

from conf.schema import Config, load_run
from data.rows.curriculum import Plan
from data.rows.sources import AnySource, rows_of_run
from data.sample.build import build_sample
from data.sample.instructions import INSTRUCTIONS
from evaluation.multiple_choice.answer import Question
from evaluation.multiple_choice.in_training import prepare_tasks
from model.attention import resolve_backend
from model.device import compute_dtype
from model.initial import InitialWeights
from model.transformer import Mistral
from model.weights import WeightSource
from pretrained.folder import Folder
from pretrained.safetensors_folder import PretrainedFolder
from pretrained.settings import FolderSettings
from tokenizer.tokenizer import Tokenizer
from training.adaptation import Frozen, open_frozen
from training.checkpoint.manifest import finished
from training.distributed import World
from training.evaluate import HeldOutSet, held_out_sets
from training.freeze import check_stages
from training.parallelize import build_mesh, parallelize
from training.run.resume import recorded_fingerprints
from training.run.started_from import KEPT, KeptFolder, kept_settings
from training.schedule import Span, spans_of
from training.sources import (
    fingerprints_of,
    network_shape,
    open_sources,
    open_tokenizer,
    open_weights,
)


@dataclass(frozen=True)
class Parts:
    """What a run works with; `assemble` makes it.

    Attributes:
        config: with the shape of the network filled in.
        tokenizer, sources, plan, held_out: the data.
        tasks: the questions of each benchmark that is asked on the way.
        epoch_tokens: how many tokens an epoch of each source has, padding included.
        spans: over which steps each learning-rate schedule runs.
        model: on the meta device, spread over the processes.
        weights: what fills it.
        settings: what the folder that training starts from says besides its network.
        initial: the folder of the initial weights that train, None where there is none, or an
            adapter trains.
        frozen: what an adapter is trained on, if one is trained.
        dtype: what it computes in.
    """

    config: Config
    tokenizer: Tokenizer
    sources: dict[str, AnySource]
    plan: Plan
    held_out: list[HeldOutSet]
    tasks: dict[str, Sequence[Question]]
    epoch_tokens: dict[str, int]
    spans: list[Span]
    model: Mistral
    weights: WeightSource
    settings: FolderSettings
    initial: Folder | KeptFolder | None
    frozen: Frozen | None
    dtype: torch.dtype

    @property
    def base(self) -> PretrainedFolder | None:
        """The frozen model under an adapter."""
        return None if self.frozen is None else self.frozen.base

    @cached_property
    def fingerprints(self) -> dict[str, str]:
        """Fingerprints of the data and of the weights that the run starts from."""
        digest = None if self.initial is None else self.initial.digest
        weights = {} if digest is None else {"init_from": digest}
        if self.frozen is not None:
            weights = self.frozen.fingerprints
        return fingerprints_of(self.sources) | weights


def assemble(config: Config, world: World, *, continues: bool = False) -> Parts:
    """Open the data and build the network; writes nothing but the embedded sample.

    Args:
        continues: a run that has a checkpoint goes on from it, and of the initial folder, which
            may be gone, nothing is needed but what the run has kept. The weights are fresh then.

    Raises:
        ValueError: something does not exist or does not fit.
    """
    batch = config.batch
    # What can be refused at once: weights, attention, mesh.
    folder = _open_initial(config) if continues else open_weights(config.init_from)
    frozen = None
    if config.lora is not None:
        assert folder is not None
        assert not isinstance(folder, KeptFolder)
        frozen = open_frozen(folder)
        folder = frozen.base
    dtype = compute_dtype(config.parallel.dtype, world.device)
    asked = config.model or (folder and folder.config)
    assert asked is not None
    backend = resolve_backend(config.parallel.attention, world.device, dtype, asked.head_size)
    mesh = build_mesh(config.parallel, world)

    # Data: row n of the run is a pure function of the configuration and n.
    if config.data.sample_scale is not None:
        root, scale = Path(config.data.root), config.data.sample_scale
        asks = any(folder in INSTRUCTIONS for folder in config.data.sources.values())
        world.on_main(lambda: build_sample(root, scale=scale, conversations=asks))
    tokenizer = open_tokenizer(config.data.tokenizer)
    recorded = world.from_main(recorded_fingerprints(config.folder / "environment.json"))
    sources = open_sources(config.data.root, config.data.sources, tokenizer, recorded)
    plan = config.plan()
    # Here, so that a conversation that fits no row is refused before anything is written.
    rows = {n: rows_of_run(sources[n], n, config.seed, batch.row_length) for n in plan.sources}
    held_out = held_out_sets(sources, tokenizer, config.evaluation, batch.row_length)

    # Network: on the meta device, spread, and later filled, each rank with what it keeps.
    shape = network_shape(config.model, folder, tokenizer)
    tasks = prepare_tasks(config.tasks, tokenizer, shape)
    with torch.device("meta"):
        model = Mistral(shape, backend=backend)
    weights = InitialWeights(model, config.seed)
    if folder is not None and not isinstance(folder, KeptFolder):
        folder.check(model)
        weights = folder
    if config.lora is not None and frozen is not None:
        lora, weights = frozen.adapt(model, config.lora, dtype, config.seed)
        config = replace(config, lora=lora)
    check_stages(plan.stages, shape, model.lora)
    parallelize(model, config.parallel, mesh)
    return Parts(
        config=replace(config, model=shape),
        tokenizer=tokenizer,
        sources=sources,
        plan=plan,
        held_out=held_out,
        tasks=tasks,
        epoch_tokens={name: found.epoch_tokens for name, found in rows.items()},
        spans=spans_of(plan.stages, config.optim.lr),
        model=model,
        weights=weights,
        settings=kept_settings(config.folder, folder and folder.folder),
        initial=None if frozen else folder,
        frozen=frozen,
        dtype=dtype,
    )


def _open_initial(config: Config) -> Folder | KeptFolder | None:
    """The folder that a run starts from or, where it cannot be opened and a checkpoint makes it
    unnecessary, what the run has kept of it.

    Raises:
        ValueError: it cannot be opened, and the run needs it.
    """
    kept = None
    if config.lora is None and finished(config.folder / "checkpoints"):
        with suppress(ValueError):  # of a damaged run folder, which is refused later
            written = load_run(config.folder)
            if written.init_from is not None and written.model is not None:
                recorded = recorded_fingerprints(config.folder / "environment.json")
                digest = recorded.get("init_from")
                kept = KeptFolder(config.folder / KEPT, written.model, digest)
                if config.init_from is None:
                    return kept
                if config.init_from != written.init_from:  # it cannot be told whether it was moved
                    kept = None
    try:
        return open_weights(config.init_from)
    except ValueError:
        if kept is None:
            raise
        return kept
