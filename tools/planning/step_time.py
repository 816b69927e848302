"""Time of a training step on paper, from FLOPs, bytes and link rates, and the limit of scaling.

A step is a sum of passes. A pass takes the longer of its computation and its collectives, because
FSDP overlaps them, plus the first gather or the last reduction, which nothing overlaps. Each
assumption is a field of `MachineConfig`.
"""

from dataclasses import dataclass, fields, replace
from math import isfinite

from tools.planning.run import PlannedRun
from training.optim import CLIP_BYTES, OptimConfig

SCALING_FLOOR = 0.8
"""Scaling ends when the tokens per second of a device fall below this share of those in one
node."""
MAX_DEVICES = 65536
OPTIMIZER_BYTES = CLIP_BYTES + OptimConfig().optimizer.update_bytes
"""Memory traffic of an update per trained weight, clipping included."""


@dataclass(kw_only=True)
class MachineConfig:
    """A device and its links; the defaults are an H200 and one 400 Gb/s adapter per device.

    Rates of matrix products and memory are measured. The others are assumptions to replace.
    """

    memory_gib: float = 139.0
    matrix_tflops: float = 790.0
    """Large bfloat16 matrix products."""
    attention_tflops: float = 350.0
    """Windowed attention, forward and backward together."""
    memory_gb_s: float = 4300.0
    """Reading and writing device memory."""
    efficiency: float = 0.8
    """Share of these rates that the kernels of a step reach on average, at most 1."""
    node_gpus: int = 8
    """Devices per node, joined by fast links."""
    link_gb_s: float = 350.0
    """Rate at which a device sends in a collective inside a node."""
    network_gb_s: float = 40.0
    """Rate at which a device sends in a collective across nodes."""
    link_us: float = 2.0
    """Latency of one hop of a ring inside a node."""
    network_us: float = 10.0
    """Latency of one hop between nodes."""

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if not (isfinite(value) and value > 0):
                raise ValueError(f"machine.{field.name}={value}: must be positive and finite")
        if self.efficiency > 1:
            raise ValueError(
                f"machine.efficiency={self.efficiency}: a share of the rates, must be at most 1"
            )


@dataclass(frozen=True)
class Flops:
    """FLOPs of one pass of one micro-batch, in matrix products and in attention."""

    matrix: int
    attention: int


def attention_pairs(rows: int, length: int, window: int | None) -> int:
    """(query, key) pairs in rows of one document: T w - w (w - 1) / 2 each, with w = min(W, T)."""
    width = length if window is None else min(window, length)
    return rows * (length * width - width * (width - 1) // 2)


def model_flops(run: PlannedRun, tokens: int) -> int:
    """FLOPs that MFU counts for `tokens` tokens in rows: no recomputation, no adapters."""
    pairs = attention_pairs(1, run.row_length, run.model.sliding_window) * tokens // run.row_length
    frozen = run.lora is not None
    return run.model.training_flops(
        tokens, pairs, frozen_layers=frozen, frozen_head=not run.weights.head_trained
    )


def executed_flops(run: PlannedRun) -> tuple[Flops, Flops]:
    """(forward, backward) FLOPs of a micro-batch as executed.

    Forward: 2 per weight and token, 4 per (query, key) pair and unit of head width. Backward: the
    rest of `training_flops`, 4 per token and weight of an adapter, and with full checkpointing the
    forward pass of the layers again, without the last product of each layer, whose result backward
    does not need; selective checkpointing repeats no product. The gradient of the first layer's
    input is counted although adapters on a frozen embedding do not need it (1 / L of a small part).
    """
    model, tokens = run.model, run.tokens
    width = model.num_attention_heads * model.head_size
    pairs = attention_pairs(run.micro_batch_rows, run.row_length, model.sliding_window)
    scores = 4 * model.num_hidden_layers * width * pairs
    head = 2 * tokens * model.num_tokens * model.hidden_size
    adapter = 2 * tokens * run.weights.layers * run.weights.block_trained if run.lora else 0
    products = 2 * tokens * model.num_matrix_weights + adapter
    total = model_flops(run, tokens) + 3 * adapter
    forward = Flops(products, scores)
    backward = Flops(total - products - 3 * scores, 2 * scores)
    if run.checkpointing == "full":
        last = model.num_hidden_layers * model.hidden_size
        last *= run.lora.rank if run.lora else model.intermediate_size
        share = run.checkpointed_share
        again = Flops(int(share * (products - head - 2 * tokens * last)), int(share * scores))
        backward = Flops(backward.matrix + again.matrix, backward.attention + again.attention)
    return forward, backward


def elementwise_bytes(run: PlannedRun) -> int:
    """Memory traffic of one forward pass between products, in bfloat16, with fused kernels.

    Per token and layer: two norms and two residual additions read and write 9 D, rotation
    2 (H + K) E, SwiGLU 3 F.
    """
    model = run.model
    heads = 2 * (model.num_attention_heads + model.num_key_value_heads) * model.head_size
    per_token = 9 * model.hidden_size + heads + 3 * model.intermediate_size
    return 2 * run.tokens * model.num_hidden_layers * per_token


def computing_seconds(run: PlannedRun, machine: MachineConfig) -> tuple[float, float]:
    """(forward, backward) seconds of a micro-batch on one device.

    Backward has twice the memory traffic of forward, and that of recomputed layers once more.
    """
    traffic = elementwise_bytes(run) / (machine.memory_gb_s * 1e9)
    times = []
    for flops, passes in zip(executed_flops(run), (1, 2 + run.recomputed_share), strict=True):
        products = flops.matrix / (machine.matrix_tflops * 1e12)
        attention = flops.attention / (machine.attention_tflops * 1e12)
        times.append((products + attention + passes * traffic) / machine.efficiency)
    return times[0], times[1]


@dataclass(frozen=True)
class RingCollective:
    """Devices that run a collective together in a ring.

    Attributes:
        ranks: number of devices.
        nodes: number of nodes that contain them.
    """

    ranks: int
    nodes: int


def collective_groups(
    strategy: str, gpus: int, shard_ranks: int, machine: MachineConfig
) -> tuple[RingCollective, RingCollective]:
    """(devices that share the weights, devices that hold the same part of the weights)."""
    nodes = -(-gpus // machine.node_gpus)
    shards = {"fsdp": gpus, "hsdp": shard_ranks, "replicate": 1}[strategy]
    replicas = gpus // shards
    return (
        RingCollective(shards, -(-shards // machine.node_gpus)),
        RingCollective(replicas, min(replicas, nodes)),
    )


def ring_seconds(size: float, ring: RingCollective, machine: MachineConfig) -> float:
    """Seconds of an all-gather or reduce-scatter of `size` bytes; an all-reduce takes twice that.

    Each device sends (n - 1) / n of the bytes in n - 1 hops. The slowest link sets the rate, and a
    ring over N nodes crosses between nodes N times.
    """
    if ring.ranks == 1:
        return 0.0
    inside = ring.nodes == 1
    rate = machine.link_gb_s if inside else min(machine.link_gb_s, machine.network_gb_s)
    between = 0 if inside else min(ring.nodes, ring.ranks - 1)
    hops = (ring.ranks - 1 - between) * machine.link_us + between * machine.network_us
    return size * (ring.ranks - 1) / ring.ranks / (rate * 1e9) + hops * 1e-6


@dataclass(frozen=True)
class StepTime:
    """Time of one optimizer step.

    Attributes:
        seconds: the whole step.
        computing, collectives: seconds of each, overlapped or not.
        tokens_per_second: tokens per second and device.
        mfu: exact-band FLOPs divided by those of large matrix products in the same time.
        idle: share of the micro-batches' rows that are empty.
    """

    seconds: float
    computing: float
    collectives: float
    tokens_per_second: float
    mfu: float
    idle: float


def step_time(
    run: PlannedRun, machine: MachineConfig, *, gpus: int, strategy: str, shard_ranks: int = 8
) -> StepTime:
    """Time of a step of `tokens_per_step` tokens over all devices.

    As in `parallelize`, each micro-batch gathers every block in bfloat16 for forward and again for
    backward, and the root once. Gradients are reduce-scattered in fp32 in each micro-batch, and
    summed over replicas in the last one.
    """
    shards, replicas = collective_groups(strategy, gpus, shard_ranks, machine)
    weights, layers = run.weights, run.weights.layers
    gather = ring_seconds(2 * weights.block, shards, machine)
    gather_root = ring_seconds(2 * weights.root, shards, machine)
    forward, backward = computing_seconds(run, machine)

    def reduce(trained: int, last: bool) -> float:
        scatter = ring_seconds(4 * trained, shards, machine)
        part = 4 * trained / shards.ranks
        return scatter + (2 * ring_seconds(part, replicas, machine) if last else 0)

    def micro_batch(last: bool) -> tuple[float, float]:
        """(seconds of a micro-batch, seconds of its collectives)."""
        block, root = (reduce(x, last) for x in (weights.block_trained, weights.root_trained))
        forward_links, backward_links = gather_root + layers * gather, layers * (gather + block)
        exposed = gather_root + gather + root
        seconds = max(forward, forward_links) + max(backward, backward_links) + exposed
        return seconds, forward_links + backward_links + root

    count = run.micro_batches(gpus)
    former, last = micro_batch(last=False), micro_batch(last=True)
    update = OPTIMIZER_BYTES * weights.trained / shards.ranks / (machine.memory_gb_s * 1e9)
    seconds = (count - 1) * former[0] + last[0] + update
    rate = run.tokens_per_step / seconds / gpus
    full = count * gpus * run.tokens
    return StepTime(
        seconds=seconds,
        computing=count * (forward + backward) + update,
        collectives=(count - 1) * former[1] + last[1],
        tokens_per_second=rate,
        mfu=rate * model_flops(run, run.row_length) / run.row_length / machine.matrix_tflops / 1e12,
        idle=1 - run.tokens_per_step / full,
    )


def scaling_limit(
    run: PlannedRun,
    machine: MachineConfig,
    *,
    strategy: str,
    shard_ranks: int = 8,
    grow: bool = False,
) -> tuple[int, str]:
    """(largest number of devices with efficient scaling, reason of the limit).

    Numbers of devices are those of one node and its doublings.

    Args:
        grow: let the step grow with the devices, four micro-batches each, so that only the links
            limit scaling.
    """
    best, last, gpus = 0.0, 0, machine.node_gpus
    while gpus <= MAX_DEVICES:
        planned = replace(run, tokens_per_step=4 * gpus * run.tokens) if grow else run
        step = step_time(planned, machine, gpus=gpus, strategy=strategy, shard_ranks=shard_ranks)
        best = best or step.tokens_per_second
        if step.tokens_per_second < SCALING_FLOOR * best:
            rows = step.idle > 1 - SCALING_FLOOR
            return last, "the step has too few rows" if rows else "links"
        last, gpus = gpus, 2 * gpus
    return last, "none up to this number"
