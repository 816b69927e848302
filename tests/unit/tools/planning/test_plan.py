"""Plans on paper, against the network, torch's counters and a step of the real code."""

from dataclasses import replace

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from model.adapters import add_lora
from model.lora.layer import LoraConfig, LoraOptions
from model.transformer import Mistral
from scripts.plan import PlanConfig
from tests.helpers.toy import mistral_7b_config, randomize, toy_config
from tools.planning.memory import (
    DRIVER_BYTES,
    STATES,
    activation_bytes,
    layer_activation_bytes,
    min_checkpointed_layers,
    peak_memory,
    state_bytes,
)
from tools.planning.run import PlannedRun, count_weights
from tools.planning.step_time import (
    MachineConfig,
    RingCollective,
    computing_seconds,
    executed_flops,
    ring_seconds,
    scaling_limit,
    step_time,
)
from training.parallelize import ParallelConfig, parallelize

GIB = 2**30
LORA = LoraConfig(rank=8, alpha=16.0)
MISTRAL = mistral_7b_config()


def run_of(config=MISTRAL, lora=None, **changes):
    """Mistral-7B at 8k, a million tokens a step, everything recomputed."""
    batch = {"row_length": 8192, "micro_batch_rows": 1, "tokens_per_step": 2**20}
    options = batch | {"checkpointing": "full"} | changes
    return PlannedRun(model=config, lora=lora, weights=count_weights(config, lora), **options)


@pytest.mark.parametrize("lora", [None, LORA], ids=["full", "lora"])
@pytest.mark.parametrize("tied", [False, True])
def test_weights_are_counted_as_they_are(lora, tied):
    config = toy_config(num_hidden_layers=3, tie_word_embeddings=tied)
    model = Mistral(config)
    if lora:
        add_lora(model, lora)
    found = count_weights(config, lora)
    assert found.trained == sum(x.numel() for x in model.parameters() if x.requires_grad)
    assert found.trained + found.frozen == sum(x.numel() for x in model.parameters())


@pytest.mark.parametrize("checkpointing", ["none", "full"])
@pytest.mark.parametrize("lora", [None, LORA], ids=["full", "lora"])
def test_products_are_those_that_torch_counts(checkpointing, lora):
    """Banded attention is one operation to the counter, so only matrix products are counted."""
    config = toy_config(num_hidden_layers=3)
    model = Mistral(config)
    if lora:
        add_lora(model, lora)
    randomize(model, 0.1)
    parallel = ParallelConfig(checkpointing=checkpointing)
    parallelize(model, parallel, _mesh_of_one())
    tokens = torch.ones(2, 24, dtype=torch.long)
    with FlopCounterMode(display=False) as counter:
        total = model(tokens, labels=tokens).total
        forward = counter.get_total_flops()
        total.backward()
    batch = {"row_length": 24, "micro_batch_rows": 2, "tokens_per_step": 48}
    planned = executed_flops(run_of(config, lora, checkpointing=checkpointing, **batch))
    # The chunked loss computes the head's gradients in forward already.
    head = (2 if lora is None else 1) * 2 * 48 * config.num_tokens * config.hidden_size
    assert forward == planned[0].matrix + head
    unneeded = 0
    if lora is not None:  # the gradient of the first layer's input: q, k, v and their A
        heads = config.num_attention_heads + 2 * config.num_key_value_heads
        unneeded = 2 * 48 * config.hidden_size * (heads * config.head_size + 3 * lora.rank)
    assert counter.get_total_flops() == sum(flops.matrix for flops in planned) - unneeded


class _mesh_of_one:
    """What `parallelize` asks of a mesh of one CPU."""

    device_type = "cpu"

    def size(self):
        return 1


def saved_bytes(config, tokens, lora, *, compiled=False, checkpointing="none"):
    """What autograd keeps of one forward pass through the layers, weights left out, in bfloat16."""
    model = Mistral(config)
    if lora:
        add_lora(model, lora)
    model.to(torch.bfloat16)
    # In fp32 there is nothing to cast or to spread, so that blocks are only checkpointed.
    parallel = ParallelConfig(checkpointing=checkpointing, dtype="float32")
    parallelize(model, parallel, _mesh_of_one())  # pyright: ignore[reportArgumentType]
    if compiled:
        for layer in model.model.layers:
            # The compiler's decisions on what to keep, without its code.
            layer.compile(backend="aot_eager_decomp_partition", fullgraph=True)
    weights = {x.untyped_storage().data_ptr() for x in model.parameters()}
    kept = {}

    def pack(x):
        if x.untyped_storage().data_ptr() not in weights:
            kept[x.untyped_storage().data_ptr()] = x.untyped_storage().nbytes()
        return x

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
        out = model(tokens)
    del out
    return sum(kept.values())


def test_activations_are_what_autograd_keeps():
    """Per layer: what two more layers keep more, so that embedding and head drop out."""
    tokens = torch.ones(2, 96, dtype=torch.long)
    shapes = [
        toy_config(num_hidden_layers=n, hidden_size=64, intermediate_size=160) for n in (1, 3)
    ]
    one, three = (saved_bytes(config, tokens, None) for config in shapes)
    planned = layer_activation_bytes(run_of(shapes[0]))
    # On a CPU the two norms keep no root of the mean square (fp32), which their backward pass
    # computes again, and banded attention no softmax denominators, as flash attention does.
    planned -= 2 * 4 + 4 * shapes[0].num_attention_heads
    assert (three - one) / 2 == planned * tokens.numel()


def test_checkpointing_keeps_less():
    kinds = ("full", "selective", "none")
    kept = [activation_bytes(run_of(checkpointing=kind)) for kind in kinds]
    assert kept == sorted(kept)
    assert kept[0] >= 32 * 8192 * 4096 * 2  # the input of each layer
    some = [activation_bytes(run_of(checkpointed_layers=count)) for count in (32, 20, 1)]
    assert kept[0] == some[0] < some[1] < some[2]
    mixed = activation_bytes(run_of(checkpointed_layers=20, other_layers="selective"))
    assert kept[0] < mixed < min(some[1], kept[1])


def test_the_fewest_layers_that_must_be_checkpointed():
    run, gib = run_of(), 2**30
    fewest = min_checkpointed_layers(run, 139 * gib, shards=1)
    assert fewest is not None
    for count, fits in ((fewest, True), (fewest - 1, False)):
        memory = peak_memory(replace(run, checkpointed_layers=count), shards=1)
        assert (memory.total <= 139 * gib) == fits
    assert min_checkpointed_layers(run, 200 * gib, shards=1) == 0
    assert min_checkpointed_layers(run, 100 * gib, shards=1) is None
    room = peak_memory(replace(run, checkpointing="selective"), shards=1).total
    mixed = replace(run, other_layers="selective")
    assert min_checkpointed_layers(mixed, room, shards=1) == 0
    assert min_checkpointed_layers(mixed, room - 1, shards=1) > 0


@pytest.mark.parametrize(("strategy", "shards"), [("hsdp", 8), ("replicate", 1)])
def test_the_plan_charges_one_sum_over_replicas_a_step(strategy, shards):
    """By hand: what a step of n micro-batches has more of links than n times gather and scatter."""
    machine, gpus = MachineConfig(), 64
    for micro_batches in (1, 4):
        job = run_of(tokens_per_step=micro_batches * gpus * 8192)
        assert job.micro_batches(gpus) == micro_batches
        step = step_time(job, machine, gpus=gpus, strategy=strategy, shard_ranks=shards)
        group, replicas = (
            RingCollective(shards, 1),
            RingCollective(gpus // shards, min(8, gpus // shards)),
        )
        weights = job.weights
        each = sum(
            count * ring_seconds(size, group, machine)
            for count, size in (
                (2 * weights.layers, 2 * weights.block),
                (1, 2 * weights.root),
                (weights.layers, 4 * weights.block_trained),
                (1, 4 * weights.root_trained),
            )
        )
        once = sum(
            count * 2 * ring_seconds(4 * size / shards, replicas, machine)
            for count, size in (
                (weights.layers, weights.block_trained),
                (1, weights.root_trained),
            )
        )
        assert step.collectives == pytest.approx(micro_batches * each + once)


def test_known_sizes():
    """docs/results/performance.md's table of states, in GiB."""
    weights = count_weights(MISTRAL, None)
    assert weights.trained == 7_241_732_096
    sizes = list(STATES.values())
    on_one = [state_bytes(weights, 1, size.total) / GIB for size in sizes]
    assert on_one == pytest.approx([107.9, 80.9, 54.0], abs=0.05)
    assert state_bytes(weights, 8, 16) / GIB == pytest.approx(13.5, abs=0.05)


def test_peaks_of_an_h200():
    """What docs/results/performance.md's steps, of one micro-batch and compiled, took, in GiB."""
    fp32, rounded, bf16 = STATES.values()
    runs = [
        (None, 8192, 16, "none", fp32, 110),
        (None, 8192, 0, "none", fp32, 117),
        (None, 8192, 0, "none", rounded, 90),
        (None, 16384, 0, "none", rounded, 124),
        (None, 16384, 0, "none", bf16, 110),
        (None, 32768, 12, "none", bf16, 131),
        (None, 32768, 3, "selective", bf16, 129),
        (LORA, 16384, 0, "none", fp32, 69.4),
        (LORA, 32768, 0, "none", fp32, 125),
        (LORA, 4096, 32, "none", fp32, 15.6),
    ]
    for lora, tokens, layers, others, state, measured in runs:
        run = run_of(
            lora=lora,
            micro_batch_rows=tokens // 4096,
            row_length=4096,
            checkpointing="full" if layers else "none",
            checkpointed_layers=layers or None,
            other_layers=others,
            compiled=True,
        )
        planned = peak_memory(run, shards=1, state=state, accumulates=False)
        assert (planned.total - DRIVER_BYTES) / GIB == pytest.approx(measured, rel=0.05)


@pytest.mark.parametrize(("shards", "counted"), [(64, 7.85), (8, 17.9)], ids=["fsdp", "hsdp"])
def test_peaks_of_a_simulated_step_of_64_ranks(shards, counted):
    """What docs/results/performance.md says that the simulation of Mistral-7B counted, in GiB."""
    planned = peak_memory(run_of(), shards=shards, accumulates=False)
    assert (planned.total - DRIVER_BYTES) / GIB == pytest.approx(counted, rel=0.05)
    assert planned.moment == {64: "backward", 8: "end of backward"}[shards]


def test_what_fits():
    assert 110 < peak_memory(run_of(), shards=1).total / GIB < 139
    adapter = peak_memory(run_of(lora=LORA, row_length=4096), shards=1)
    assert adapter.total / GIB < 24


def test_rings():
    machine = MachineConfig()
    assert ring_seconds(1e9, RingCollective(1, 1), machine) == 0
    inside = [ring_seconds(1e9, RingCollective(n, 1), machine) for n in (2, 4, 8)]
    assert inside == sorted(inside)
    assert inside[0] == pytest.approx(0.5e9 / 350e9 + 2e-6)
    across = ring_seconds(1e9, RingCollective(16, 2), machine)
    assert across == pytest.approx(15 / 16 * 1e9 / 40e9 + 13 * 2e-6 + 2 * 10e-6 + 0, rel=1e-2)
    assert ring_seconds(0, RingCollective(16, 2), machine) < ring_seconds(
        0, RingCollective(64, 8), machine
    )


def test_steps():
    job, machine = run_of(), MachineConfig()

    def time(gpus, strategy="fsdp", asked=job, **options):
        return step_time(asked, machine, gpus=gpus, strategy=strategy, **options)

    assert time(16).seconds < time(8).seconds
    assert time(8).tokens_per_second == pytest.approx(2**20 / time(8).seconds / 8)
    assert time(64, "hsdp", shard_ranks=64).seconds == time(64).seconds
    assert time(1, "replicate").collectives == 0
    assert time(64, "hsdp").collectives < time(64).collectives
    # Twice the tokens between two reductions: half the traffic.
    twice = replace(job, micro_batch_rows=2)
    assert time(64, asked=twice).collectives < 0.6 * time(64).collectives
    # A device without a row waits: more than one row each is not there.
    assert time(256).idle == pytest.approx(0.5)
    assert time(256).seconds >= time(128).seconds
    # Without recomputation and overheads, MFU is the share of the rates that kernels reach.
    ideal = MachineConfig(
        efficiency=1, attention_tflops=790, memory_gb_s=1e9, link_gb_s=1e9, link_us=1e-9
    )
    plain = replace(job, checkpointing="none")
    assert step_time(plain, ideal, gpus=8, strategy="fsdp").mfu == pytest.approx(1, rel=1e-3)


def test_recomputation_costs_a_forward_pass_of_the_layers():
    machine = MachineConfig()
    (forward, backward), (same, again) = (
        computing_seconds(run_of(checkpointing=kind), machine) for kind in ("none", "full")
    )
    assert same == forward
    assert backward + 0.7 * forward < again < backward + forward
    options = {"checkpointing": "full", "checkpointed_layers": 8}
    some, more = (
        computing_seconds(run_of(**options, other_layers=kind), machine)[1]
        for kind in ("none", "selective")
    )
    assert backward < some < more < some + 0.1 * forward < again  # no product is made again


def test_where_scaling_ends():
    job, fast = run_of(), MachineConfig(network_gb_s=1e6, link_gb_s=1e6, network_us=1e-3)
    assert scaling_limit(job, fast, strategy="fsdp") == (128, "the step has too few rows")
    slow = MachineConfig(network_gb_s=1)
    assert scaling_limit(job, slow, strategy="fsdp") == (8, "links")
    reach = [
        scaling_limit(job, MachineConfig(), strategy=s, grow=True)[0] for s in ("fsdp", "hsdp")
    ]
    assert reach[0] < reach[1]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"efficiency": 1.5}, "machine.efficiency=1.5"),
        ({"efficiency": 0.0}, "machine.efficiency=0.0"),
        ({"matrix_tflops": -1.0}, "machine.matrix_tflops=-1.0"),
        ({"memory_gib": float("nan")}, "machine.memory_gib=nan"),
        ({"network_us": float("inf")}, "machine.network_us=inf"),
        ({"node_gpus": 0}, "machine.node_gpus=0"),
    ],
)
def test_impossible_machines(change, message):
    with pytest.raises(ValueError, match=message):
        MachineConfig(**change)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"gpus": []}, "gpus="),
        ({"gpus": [8, 0]}, "gpus="),
        ({"parallel": ParallelConfig(strategy="hsdp", shard_ranks=0)}, "parallel.shard_ranks=0"),
        (
            {"parallel": ParallelConfig(checkpointing="full", checkpointed_layers=3)},
            "checkpointed_layers=3: the network has 2 layers",
        ),
        ({"lora": LoraOptions()}, "null .lora=continued., but a plan reads no adapter"),
    ],
)
def test_impossible_plans(change, message):
    with pytest.raises(ValueError, match=message):
        PlanConfig(model=toy_config(), **change)
