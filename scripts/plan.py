"""Plan a training run on paper: step time, memory, and the limit of scaling.

    python -m scripts.plan model=mistral_7b                               # on 8 and 64 devices
    python -m scripts.plan gpus='[1]' lora=r8 batch.row_length=4096 machine.memory_gib=24
    python -m scripts.plan gpus='[64]' simulate=true                      # counted on the real code

Formulas and assumptions: tools/planning/step_time.py and tools/planning/memory.py.
"""

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace

from tabulate import tabulate

from conf.command import command
from conf.schema import BatchConfig
from model.config import ModelConfig
from model.lora.layer import LoraConfig, LoraOptions
from tools.planning.memory import STATES, StateBytes, min_checkpointed_layers, peak_memory
from tools.planning.run import PlannedRun, count_weights
from tools.planning.simulate import simulate
from tools.planning.step_time import MachineConfig, scaling_limit, step_time
from training.optim import OptimConfig
from training.parallelize import ParallelConfig

GIB = 2**30


@dataclass(kw_only=True)
class PlanConfig:
    """A training run and the devices to plan it for."""

    model: ModelConfig
    lora: LoraOptions | None = None
    batch: BatchConfig = field(default_factory=BatchConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    """Set by the model presets; not used here."""
    parallel: ParallelConfig = field(default_factory=ParallelConfig)
    """Used are `checkpointing`, `checkpointed_layers`, `other_layers`, `shard_ranks` and, for
    memory only, `compile`; both strategies are planned."""
    machine: MachineConfig = field(default_factory=MachineConfig)
    gpus: list[int] = field(default_factory=lambda: [8, 64])
    """Numbers of devices to plan for."""
    simulate: bool = False
    """Also run a step of the real code without data, as rank 0 of the largest number of devices,
    and count its collectives and its memory."""

    def __post_init__(self) -> None:
        if self.lora is not None and None in (self.lora.rank, self.lora.alpha):
            raise ValueError(
                "lora.rank and lora.alpha are null (lora=continued), but a plan reads no adapter; "
                "give lora=r8 or lora=r64, or lora.rank=... lora.alpha=..."
            )
        if not self.gpus or min(self.gpus) < 1:
            raise ValueError(f"gpus={self.gpus}: give at least one number of devices, each >= 1")
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
        """Settings of the trained adapter."""
        return None if self.lora is None else LoraConfig(**asdict(self.lora))

    @property
    def run(self) -> PlannedRun:
        """Input of the formulas."""
        return PlannedRun(
            model=self.model,
            lora=self.adapter,
            weights=count_weights(self.model, self.adapter),
            row_length=self.batch.row_length,
            micro_batch_rows=self.batch.micro_batch_rows,
            tokens_per_step=self.batch.tokens_per_step,
            checkpointing=self.parallel.checkpointing,
            checkpointed_layers=self.parallel.checkpointed_layers,
            other_layers=self.parallel.other_layers,
            compiled=self.parallel.compile,
        )


def shards_by_strategy(config: PlanConfig, gpus: int) -> dict[str, int]:
    """Strategy -> devices that share the weights; HSDP only if it has several replicas."""
    shards = config.parallel.shard_ranks or config.machine.node_gpus
    known = {"fsdp": gpus, "hsdp": shards}
    return known if gpus > shards and gpus % shards == 0 else {"fsdp": gpus}


def time_table(config: PlanConfig, run: PlannedRun) -> Iterator[str]:
    """Lines of the table of step times, and the limits of scaling."""
    rows = []
    for gpus in config.gpus:
        for strategy, shards in shards_by_strategy(config, gpus).items():
            x = step_time(run, config.machine, gpus=gpus, strategy=strategy, shard_ranks=shards)
            times = (x.seconds, x.computing, x.collectives, x.tokens_per_second)
            rows.append((gpus, strategy, *times, 100 * x.mfu, 100 * x.idle))
    names = ["gpus", "strategy", "step s", "computing s", "links s", "tokens/s/gpu"]
    formats = ("", "", ".2f", ".2f", ".2f", ",.0f", ".1f", ".1f")
    yield tabulate(rows, [*names, "MFU %", "idle %"], "plain", floatfmt=formats)
    shards = config.parallel.shard_ranks or config.machine.node_gpus
    for strategy in ("fsdp", "hsdp"):
        for grow, name in ((False, "this step"), (True, "a step that grows with the devices")):
            last, reason = scaling_limit(
                run, config.machine, strategy=strategy, shard_ranks=shards, grow=grow
            )
            yield f"{strategy}, {name}: scales to {last:,} devices; limit: {reason}"


def memory_table(config: PlanConfig, run: PlannedRun) -> Iterator[str]:
    """Lines of the table of peaks.

    `fewest`: layers that must be checkpointed (`never`: all are too few). `+selective`: the same
    for full checkpointing if the other layers are selective (0: all layers are selective).
    """
    room, rows = config.machine.memory_gib * GIB, []
    for gpus in config.gpus:
        for strategy, shards in shards_by_strategy(config, gpus).items():
            count = run.micro_batches(gpus)
            for name, state in STATES.items():
                x = peak_memory(run, shards=shards, state=state, accumulates=count > 1)
                parts = (x.states, x.activations, x.gathered, x.loss, x.total)
                fewest = _fewest(run, room, shards, state, accumulates=count > 1)
                fits = "yes" if x.total <= room else "no"
                sizes = (size / GIB for size in parts)
                rows.append((gpus, strategy, count, *sizes, fits, *fewest, x.moment, name))
    how = "compiled" if run.compiled else "not compiled"
    yield (
        f"GiB per device of {config.machine.memory_gib:g}, {run.tokens:,} tokens in each of "
        f"`micro` micro-batches, blocks {how}"
    )
    names = ["gpus", "strategy", "micro", "states", "activations", "gathered", "loss", "peak"]
    names += ["fits", "fewest", "+selective", "peak at", "state"]
    yield tabulate(rows, names, "plain", floatfmt=".1f")


def _fewest(
    run: PlannedRun, room: float, shards: int, state: StateBytes, *, accumulates: bool
) -> tuple[str, str]:
    """The cells `fewest` and `+selective`."""
    cells = []
    for others in ("none", "selective"):
        if run.checkpointing == "none" or run.checkpointing == others:
            cells.append("-")
            continue
        planned = replace(run, other_layers=others)
        found = min_checkpointed_layers(
            planned, room, shards=shards, state=state, accumulates=accumulates
        )
        cells.append("never" if found is None else str(found))
    return cells[0], "-" if cells[0] == "0" else cells[1]


def plan(config: PlanConfig) -> Iterator[str]:
    """All lines of the answer."""
    run = config.run
    yield (
        f"{run.weights.trained:,} weights train, {run.weights.frozen:,} are frozen; rows of "
        f"{run.row_length:,}, {run.tokens_per_step:,} tokens a step, checkpointing "
        f"{run.checkpointing}"
    )
    yield f"assumed: {asdict(config.machine)}"
    yield from time_table(config, run)
    yield from memory_table(config, run)
    if config.simulate:
        yield from simulated_step(config)


def simulated_step(config: PlanConfig) -> Iterator[str]:
    """Collectives and memory of rank 0 of the largest number of devices."""
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


@command("plan", PlanConfig)
def main(config: PlanConfig) -> None:
    """Compose, compute, print."""
    for line in plan(config):
        print(line, flush=True)


if __name__ == "__main__":
    main()
