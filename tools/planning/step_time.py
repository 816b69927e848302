"""Time of a training step on paper: FLOPs, bytes and link rates; where more devices stop helping.

A step is a sum of passes; a pass takes as long as its computing or its collectives, whichever is
longer, since FSDP overlaps them, plus the first gather or last reduction that nothing hides. What
is assumed stands in `MachineConfig`, each assumption under its own name.
"""

from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from math import isfinite

from model.config import ModelConfig
from model.lora.layer import LoraConfig
from tools.planning.memory import Weights

SCALING_FLOOR = 0.8
"""Scaling has stopped when a device does less than this share of what it does in one node."""


@dataclass(kw_only=True)
class MachineConfig:
    """A device and its links; the defaults are an H200 and one 400 Gb/s adapter per device.

    Rates of matrix products and memory are measured ones; the rest are assumptions to replace.
    """

    memory_gib: float = 139.0
    matrix_tflops: float = 790.0
    """Large bfloat16 matrix products."""
    attention_tflops: float = 350.0
    """Windowed attention, forward and backward together."""
    memory_gb_s: float = 4300.0
    """Reading and writing device memory."""
    efficiency: float = 0.8
    """Share of these rates that the kernels of a step reach on average."""
    node_gpus: int = 8
    """Devices that the fast links join."""
    link_gb_s: float = 350.0
    """What a device sends in a collective inside a node."""
    network_gb_s: float = 40.0
    """What a device sends in a collective that spans nodes."""
    link_us: float = 2.0
    """One hop of a ring inside a node."""
    network_us: float = 10.0
    """One hop between nodes."""

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if not (isfinite(value) and value > 0):
                raise ValueError(f"machine.{field.name}={value}: must be positive and finite")
        if self.efficiency > 1:
            raise ValueError(
                f"machine.efficiency={self.efficiency}: a share of the rates, so at most 1"
            )


@dataclass(frozen=True)
class Job:
    """What is trained, on rows of one document each.

    Attributes:
        model, lora, weights: the network.
        row_length, micro_batch_rows, tokens_per_step: the batch.
        checkpointing, checkpointed_layers, other_layers: those of `ParallelConfig`.
    """

    model: ModelConfig
    lora: LoraConfig | None
    weights: Weights
    row_length: int
    micro_batch_rows: int
    tokens_per_step: int
    checkpointing: str
    checkpointed_layers: int | None = None
    other_layers: str = "none"

    @property
    def checkpointed(self) -> float:
        """Share of the layers that `checkpointing` is for."""
        if self.checkpointing == "none":
            return 0.0
        count = self.checkpointed_layers
        return 1.0 if count is None else count / self.weights.layers

    @property
    def recomputed(self) -> float:
        """Share of the layers of which backward recomputes anything."""
        return self.checkpointed if self.other_layers == "none" else 1.0

    @property
    def tokens(self) -> int:
        """Per micro-batch of one device."""
        return self.micro_batch_rows * self.row_length

    def micro_batches(self, gpus: int) -> int:
        """Per device and step; the last may be partly empty and takes as long."""
        rows = self.tokens_per_step // self.row_length
        return -(-rows // (gpus * self.micro_batch_rows))


@dataclass(frozen=True)
class Flops:
    """Of one pass of one micro-batch: in matrix products, and in attention."""

    matrix: int
    attention: int


def pairs_of_rows(rows: int, length: int, window: int | None) -> int:
    """(query, key) pairs of rows that are one document: T w - w (w - 1) / 2 each, w = min(W, T)."""
    width = length if window is None else min(window, length)
    return rows * (length * width - width * (width - 1) // 2)


def model_flops(job: Job, tokens: int) -> int:
    """What MFU counts for `tokens` tokens in rows: no recomputation, no adapters."""
    pairs = pairs_of_rows(1, job.row_length, job.model.sliding_window) * tokens // job.row_length
    frozen = job.lora is not None
    return job.model.training_flops(
        tokens, pairs, frozen_layers=frozen, frozen_head=not job.weights.head_trained
    )


def executed_flops(job: Job) -> tuple[Flops, Flops]:
    """(forward, backward) of a micro-batch as executed.

    Forward: 2 per weight and token, 4 per (query, key) pair and unit of head width. Backward: the
    rest of `training_flops`, 4 per token and weight of an adapter, and under full checkpointing the
    forward pass of the layers again but for each layer's last product, which nobody keeps;
    selective checkpointing repeats no product. Counted too is the gradient of the first layer's
    input, which adapters on a frozen embedding do not need (1 / L of a small part).
    """
    model, tokens = job.model, job.tokens
    width = model.num_attention_heads * model.head_size
    pairs = pairs_of_rows(job.micro_batch_rows, job.row_length, model.sliding_window)
    scores = 4 * model.num_hidden_layers * width * pairs
    head = 2 * tokens * model.num_tokens * model.hidden_size
    adapter = 2 * tokens * job.weights.layers * job.weights.block_trained if job.lora else 0
    products = 2 * tokens * model.num_matrix_weights + adapter
    total = model_flops(job, tokens) + 3 * adapter
    forward = Flops(products, scores)
    backward = Flops(total - products - 3 * scores, 2 * scores)
    if job.checkpointing == "full":
        last = model.num_hidden_layers * model.hidden_size
        last *= job.lora.rank if job.lora else model.intermediate_size
        share = job.checkpointed
        again = Flops(int(share * (products - head - 2 * tokens * last)), int(share * scores))
        backward = Flops(backward.matrix + again.matrix, backward.attention + again.attention)
    return forward, backward


def elementwise_bytes(job: Job) -> int:
    """Traffic of one forward pass between products, in bfloat16, every chain fused to one kernel.

    Per token and layer: two norms and two residual additions read and write 9 D, rotation
    2 (H + K) E, SwiGLU 3 F.
    """
    model = job.model
    heads = 2 * (model.num_attention_heads + model.num_key_value_heads) * model.head_size
    per_token = 9 * model.hidden_size + heads + 3 * model.intermediate_size
    return 2 * job.tokens * model.num_hidden_layers * per_token


def computing_seconds(job: Job, machine: MachineConfig) -> tuple[float, float]:
    """(forward, backward) of a micro-batch on one device; backward's traffic is twice forward's,
    and that of the layers that are recomputed once more."""
    traffic = elementwise_bytes(job) / (machine.memory_gb_s * 1e9)
    times = []
    for flops, passes in zip(executed_flops(job), (1, 2 + job.recomputed), strict=True):
        products = flops.matrix / (machine.matrix_tflops * 1e12)
        attention = flops.attention / (machine.attention_tflops * 1e12)
        times.append((products + attention + passes * traffic) / machine.efficiency)
    return times[0], times[1]


@dataclass(frozen=True)
class Ring:
    """Devices that run a collective together.

    Attributes:
        ranks: how many.
        nodes: over how many nodes they are spread.
    """

    ranks: int
    nodes: int


def rings(strategy: str, gpus: int, shard_ranks: int, machine: MachineConfig) -> tuple[Ring, Ring]:
    """(devices that share the weights, devices that hold the same part)."""
    nodes = -(-gpus // machine.node_gpus)
    shards = {"fsdp": gpus, "hsdp": shard_ranks, "replicate": 1}[strategy]
    replicas = gpus // shards
    return Ring(shards, -(-shards // machine.node_gpus)), Ring(replicas, min(replicas, nodes))


def pass_around_seconds(size: float, ring: Ring, machine: MachineConfig) -> float:
    """All-gather or reduce-scatter of `size` bytes in a ring; an all-reduce is two of them.

    Every device sends (n - 1) / n of the bytes in n - 1 hops; all go at the pace of the slowest
    link, and a ring over N nodes crosses between nodes N times.
    """
    if ring.ranks == 1:
        return 0.0
    inside = ring.nodes == 1
    rate = machine.link_gb_s if inside else min(machine.link_gb_s, machine.network_gb_s)
    between = 0 if inside else min(ring.nodes, ring.ranks - 1)
    hops = (ring.ranks - 1 - between) * machine.link_us + between * machine.network_us
    return size * (ring.ranks - 1) / ring.ranks / (rate * 1e9) + hops * 1e-6


@dataclass(frozen=True)
class Step:
    """One optimizer step.

    Attributes:
        seconds: in all.
        computing, collectives: seconds of each per step, overlapped or not.
        tokens_per_second: per device.
        mfu: exact-band FLOPs over what large matrix products would do in the time.
        idle: share of the micro-batches' places that no row fills.
    """

    seconds: float
    computing: float
    collectives: float
    tokens_per_second: float
    mfu: float
    idle: float


def step_time(
    job: Job, machine: MachineConfig, *, gpus: int, strategy: str, shard_ranks: int = 8
) -> Step:
    """A step of `tokens_per_step` tokens over all devices.

    Per micro-batch, as `parallelize` sets FSDP2 up: every block is gathered in bfloat16 for forward
    and again for backward, the root once; gradients are scattered in fp32 each time, and summed
    between replicas with the last. The optimizer moves 40 bytes per trained weight of the device:
    the norm and the clipping of gradients 12, AdamW 28.
    """
    shards, replicas = rings(strategy, gpus, shard_ranks, machine)
    weights, layers = job.weights, job.weights.layers
    gather = pass_around_seconds(2 * weights.block, shards, machine)
    gather_root = pass_around_seconds(2 * weights.root, shards, machine)
    forward, backward = computing_seconds(job, machine)

    def reduce(trained: int, last: bool) -> float:
        scatter = pass_around_seconds(4 * trained, shards, machine)
        part = 4 * trained / shards.ranks
        return scatter + (2 * pass_around_seconds(part, replicas, machine) if last else 0)

    def micro_batch(last: bool) -> tuple[float, float]:
        """Seconds of a micro-batch, and of its collectives."""
        block, root = (reduce(x, last) for x in (weights.block_trained, weights.root_trained))
        forward_links, backward_links = gather_root + layers * gather, layers * (gather + block)
        exposed = gather_root + gather + root
        seconds = max(forward, forward_links) + max(backward, backward_links) + exposed
        return seconds, forward_links + backward_links + root

    count = job.micro_batches(gpus)
    former, last = micro_batch(last=False), micro_batch(last=True)
    update = 40 * weights.trained / shards.ranks / (machine.memory_gb_s * 1e9)
    seconds = (count - 1) * former[0] + last[0] + update
    rate = job.tokens_per_step / seconds / gpus
    full = count * gpus * job.tokens
    return Step(
        seconds=seconds,
        computing=count * (forward + backward) + update,
        collectives=(count - 1) * former[1] + last[1],
        tokens_per_second=rate,
        mfu=rate * model_flops(job, job.row_length) / job.row_length / machine.matrix_tflops / 1e12,
        idle=1 - job.tokens_per_step / full,
    )


def doublings(first: int, most: int = 65536) -> Iterator[int]:
    """first, 2 first, 4 first, ... up to `most`."""
    while first <= most:
        yield first
        first *= 2


def scaling_limit(
    job: Job, machine: MachineConfig, *, strategy: str, shard_ranks: int = 8, grow: bool = False
) -> tuple[int, str]:
    """(devices up to which scaling holds, what ends it), counted in doublings of one node.

    Args:
        grow: let the step grow with the devices, four micro-batches each, so that only the links
            can end it.
    """
    best, last = 0.0, 0
    for gpus in doublings(machine.node_gpus):
        asked = replace(job, tokens_per_step=4 * gpus * job.tokens) if grow else job
        step = step_time(asked, machine, gpus=gpus, strategy=strategy, shard_ranks=shard_ranks)
        best = best or step.tokens_per_second
        if step.tokens_per_second < SCALING_FLOOR * best:
            rows = step.idle > 1 - SCALING_FLOOR
            return last, "the step has too few rows" if rows else "links"
        last = gpus
    return last, "nothing up to here"
