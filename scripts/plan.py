"""Plan a training run on paper: step time, memory, and where more devices stop helping.

    python -m scripts.plan model=mistral_7b                               # on 8 and 64 devices
    python -m scripts.plan gpus='[1]' lora=r8 batch.row_length=4096 machine.memory_gib=24
    python -m scripts.plan gpus='[64]' simulate=true                      # counted on the real code

Formulas and assumptions stand in tools/planning/step_time.py and tools/planning/memory.py.
"""

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

from hydra.core.config_store import ConfigStore
from omegaconf import DictConfig, OmegaConf

from conf.command import command
from conf.schema import BatchConfig
from model.config import ModelConfig
from model.lora.layer import LoraConfig, LoraOptions
from tools.planning.memory import STATES, count_weights, fewest_checkpointed, peak_memory
from tools.planning.simulate import simulate
from tools.planning.step_time import Job, MachineConfig, scaling_limit, step_time
from training.optim import OptimConfig
from training.parallelize import ParallelConfig

GIB = 2**30


@dataclass(kw_only=True)
class PlanConfig:
    """What is to be trained, on what."""

    model: ModelConfig
    lora: LoraOptions | None = None
    batch: BatchConfig = field(default_factory=BatchConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    """Set by the model presets; changes nothing here."""
    parallel: ParallelConfig = field(default_factory=ParallelConfig)
    """`checkpointing`, `checkpointed_layers`, `other_layers`, `compile` (for memory alone) and
    `shard_ranks` count; both strategies are planned."""
    machine: MachineConfig = field(default_factory=MachineConfig)
    gpus: list[int] = field(default_factory=lambda: [8, 64])
    """Numbers of devices to plan for."""
    simulate: bool = False
    """Also run a step of the real code without data, as rank 0 of the largest number, and count its
    collectives and its memory."""

    def __post_init__(self) -> None:
        if self.lora is not None and None in (self.lora.rank, self.lora.alpha):
            raise ValueError(
                "lora.rank and lora.alpha: null (lora=continued) takes those of an adapter, and a "
                "plan reads no adapter; type lora=r8 or r64, or lora.rank=... lora.alpha=..."
            )
        if not self.gpus or min(self.gpus) < 1:
            raise ValueError(f"gpus={self.gpus}: name at least one number of devices, each >= 1")
        count, layers = self.parallel.checkpointed_layers, self.model.num_hidden_layers
        if count is not None and count > layers:
            raise ValueError(
                f"parallel.checkpointed_layers={count}: the network has {layers} layers"
            )
        shards = self.parallel.shard_ranks
        if shards is not None and (shards < 1 or (self.simulate and max(self.gpus) % shards)):
            raise ValueError(
                f"parallel.shard_ranks={shards}: must be at least 1 and, to simulate, divide "
                f"the largest of gpus={self.gpus}"
            )

    @property
    def adapter(self) -> LoraConfig | None:
        """Settings of the adapter that is trained."""
        return None if self.lora is None else LoraConfig(**asdict(self.lora))

    @property
    def job(self) -> Job:
        """Input of the formulas."""
        return Job(
            model=self.model,
            lora=self.adapter,
            weights=count_weights(self.model, self.adapter),
            row_length=self.batch.row_length,
            micro_batch_rows=self.batch.micro_batch_rows,
            tokens_per_step=self.batch.tokens_per_step,
            checkpointing=self.parallel.checkpointing,
            checkpointed_layers=self.parallel.checkpointed_layers,
            other_layers=self.parallel.other_layers,
        )


def shards_of(config: PlanConfig, gpus: int) -> dict[str, int]:
    """Devices that share the weights, by strategy; HSDP only where it leaves replicas."""
    shards = config.parallel.shard_ranks or config.machine.node_gpus
    known = {"fsdp": gpus, "hsdp": shards}
    return known if gpus > shards and gpus % shards == 0 else {"fsdp": gpus}


def times(config: PlanConfig, job: Job) -> Iterator[str]:
    """The table of step times, and where scaling ends."""
    yield "gpus  strategy  step s  computing s  links s  tokens/s/gpu    MFU   idle"
    for gpus in config.gpus:
        for strategy, shards in shards_of(config, gpus).items():
            options = {"gpus": gpus, "strategy": strategy, "shard_ranks": shards}
            step = step_time(job, config.machine, **options)
            yield (
                f"{gpus:4}  {strategy:8} {step.seconds:7.2f} {step.computing:12.2f}"
                f" {step.collectives:8.2f} {step.tokens_per_second:13,.0f} {step.mfu:6.1%}"
                f" {step.idle:6.1%}"
            )
    shards = config.parallel.shard_ranks or config.machine.node_gpus
    for strategy in ("fsdp", "hsdp"):
        for grow, what in ((False, "this step"), (True, "a step that grows with the devices")):
            options = {"strategy": strategy, "shard_ranks": shards, "grow": grow}
            last, reason = scaling_limit(job, config.machine, **options)
            yield f"{strategy}, {what}: scales to {last:,} devices; then: {reason}"


def memories(config: PlanConfig, job: Job) -> Iterator[str]:
    """The table of peaks; `fewest` layers must be checkpointed (`never`: even all are too few),
    or, where that is full checkpointing, `+selective` with the others selective (0: all are)."""
    how = "compiled" if config.parallel.compile else "not compiled"
    yield (
        f"GiB per device of {config.machine.memory_gib:g}, {job.tokens:,} tokens in each of "
        f"`micro` micro-batches, blocks {how}"
    )
    yield (
        "gpus  strategy  micro  states  activations  gathered   loss   peak  fits  fewest"
        "  +selective  at"
    )
    for gpus in config.gpus:
        for strategy, shards in shards_of(config, gpus).items():
            for name, recipe in STATES.items():
                options: dict[str, Any] = {"tokens": job.tokens, "shards": shards}
                options |= {"recipe": recipe, "compiled": config.parallel.compile}
                options |= {"accumulates": job.micro_batches(gpus) > 1}
                options |= {"lora": job.lora, "checkpointing": job.checkpointing}
                options |= {"other_layers": job.other_layers}
                memory = peak_memory(
                    job.model,
                    job.weights,
                    checkpointed_layers=job.checkpointed_layers,
                    **options,
                )
                room = config.machine.memory_gib * GIB
                needed = [fewest(job, room, others, options) for others in ("none", "selective")]
                if needed[0] == "0":
                    needed[1] = "-"  # nothing need be made again
                fits = "yes" if memory.total <= room else "no"
                yield (
                    f"{gpus:4}  {strategy:8} {job.micro_batches(gpus):6} {memory.states / GIB:7.1f}"
                    f" {memory.activations / GIB:12.1f} {memory.gathered / GIB:9.1f}"
                    f" {memory.loss / GIB:6.1f} {memory.total / GIB:6.1f}  {fits:4}"
                    f"  {needed[0]:>6}  {needed[1]:>10}  {memory.moment}; {name}"
                )


def fewest(job: Job, room: float, others: str, options: dict[str, Any]) -> str:
    """A cell of that table: how many layers, if `other_layers` were so."""
    if job.checkpointing == "none" or (job.checkpointing == "selective" and others != "none"):
        return "-"
    found = fewest_checkpointed(job.model, job.weights, room, **options | {"other_layers": others})
    return "never" if found is None else str(found)


def plan(config: PlanConfig) -> Iterator[str]:
    """All lines of the answer."""
    job = config.job
    yield (
        f"{job.weights.trained:,} weights train, {job.weights.frozen:,} are frozen; rows of "
        f"{job.row_length:,}, {job.tokens_per_step:,} tokens a step, checkpointing "
        f"{job.checkpointing}"
    )
    yield f"assumed: {asdict(config.machine)}"
    yield from times(config, job)
    yield from memories(config, job)
    if config.simulate:
        yield from simulated(config)


def simulated(config: PlanConfig) -> Iterator[str]:
    """What rank 0 of the largest number of devices asks of links and memory."""
    found = simulate(
        config.model,
        config.parallel,
        ranks=max(config.gpus),
        rows=config.batch.micro_batch_rows,
        row_length=config.batch.row_length,
        lora=config.adapter,
    )
    yield f"simulated as rank 0 of {max(config.gpus)}, {config.parallel.strategy}, one micro-batch:"
    for name, calls in sorted(found.calls.items()):
        yield f"  {name}: {calls} calls, {found.sizes[name] / GIB:.2f} GiB"
    parts = ", ".join(f"{n} {size / GIB:.2f}" for n, size in found.peak.items() if size)
    yield f"  peak {found.peak_bytes / GIB:.1f} GiB ({parts})"


@command("plan")
def main(composed: DictConfig) -> None:
    """Compose, compute, print."""
    config = OmegaConf.to_object(composed)
    assert isinstance(config, PlanConfig)
    for line in plan(config):
        print(line, flush=True)


ConfigStore.instance().store(name="plan_schema", node=PlanConfig)

if __name__ == "__main__":
    main()
