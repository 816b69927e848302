"""Plans against compiled blocks and simulated ranks."""

import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from conf.suggest import CONF
from model.lora import fused as adapted_linears
from model.norm import tile_rows
from scripts.plan import PlanConfig, plan
from tests.helpers.toy import run_without_hook, toy_config
from tests.unit.tools.planning.test_plan import LORA, run_of, saved_bytes
from tools.planning.memory import (
    DRIVER_BYTES,
    activation_bytes,
    peak_memory,
)
from tools.planning.run import count_weights
from tools.planning.simulate import simulate
from training.parallelize import ParallelConfig


def check_compiled_blocks(cases):
    """One process for all cases: it takes as long to start as a case to compile."""
    for adapted, checkpointing in cases:
        check_compiled_block(adapted, checkpointing)


def check_compiled_block(adapted, checkpointing):
    lora = LORA if adapted else None
    adapted_linears.DEVICES = ("cpu",)  # plans are for CUDA
    tokens = torch.ones(2, 96, dtype=torch.long)
    sizes = {"hidden_size": 80, "intermediate_size": 160, "head_dim": 24}
    shapes = [toy_config(num_hidden_layers=n, **sizes) for n in (1, 3)]
    options = {"compiled": True, "checkpointing": checkpointing}
    one, three = (saved_bytes(config, tokens, lora, **options) for config in shapes)
    batch = {"row_length": 96, "micro_batch_rows": 2}
    less, more = (activation_bytes(run_of(config, lora, **batch, **options)) for config in shapes)
    # Softmax denominators, as above.
    more -= 2 * 4 * shapes[0].num_attention_heads * tokens.numel()
    assert three - one == more - less, (adapted, checkpointing)


def test_activations_are_what_compiled_blocks_keep():
    cases = [(adapted, kind) for adapted in (False, True) for kind in ("none", "selective")]
    run_without_hook(check_compiled_blocks, cases)


SMALL = toy_config(
    num_hidden_layers=3,
    hidden_size=128,
    intermediate_size=384,
    vocab_size=1024,
    sliding_window=64,
)


@pytest.mark.parametrize(("strategy", "shards"), [("fsdp", 64), ("hsdp", 8)], ids=["fsdp", "hsdp"])
def test_a_simulated_step_of_64_ranks(strategy, shards):
    parallel = ParallelConfig(
        strategy=strategy,
        shard_ranks=shards if strategy == "hsdp" else None,
        dtype="bfloat16",
        checkpointing="full",
    )
    found = simulate(SMALL, parallel, ranks=64, rows=2, row_length=256)
    weights = count_weights(SMALL, None)
    layers = SMALL.num_hidden_layers
    assert found.calls["allgather_base"] == 2 * layers + 1  # blocks twice, the root once
    assert found.calls["reduce_scatter_base"] == layers + 1
    gathered = 2 * (2 * layers * weights.block + weights.root)
    assert found.sizes["allgather_base"] == gathered  # 64 divides every first dimension
    scattered = 4 * weights.trained
    assert found.sizes["reduce_scatter_base"] == scattered
    if strategy == "hsdp":
        assert found.calls["allreduce"] == layers + 1
        assert found.sizes["allreduce"] == scattered / shards
    else:
        assert "allreduce" not in found.calls
    run = run_of(SMALL, row_length=256, micro_batch_rows=2)
    planned = peak_memory(run, shards=shards, accumulates=False)
    # The plan is a GPU's; on a CPU the loss makes its fp32 copies of one tile of logits only.
    spared = 2 * 4 * SMALL.vocab_size * max(0, 512 - tile_rows(SMALL.vocab_size))
    assert found.peak_bytes == pytest.approx(planned.total - DRIVER_BYTES - spared, rel=0.2)


@pytest.mark.parametrize("micro_batches", [1, 4])
@pytest.mark.parametrize(
    ("strategy", "shards"), [("fsdp", 8), ("hsdp", 2), ("replicate", 1)], ids=lambda x: str(x)
)
def test_gradients_are_summed_over_replicas_once_a_step(strategy, shards, micro_batches):
    parallel = ParallelConfig(
        strategy=strategy, shard_ranks=shards if strategy == "hsdp" else None, dtype="bfloat16"
    )
    batch = {"rows": 2, "row_length": 128, "micro_batches": micro_batches}
    found = simulate(SMALL, parallel, ranks=8, **batch)
    weights, units = count_weights(SMALL, None), SMALL.num_hidden_layers + 1
    if strategy == "fsdp":
        assert "allreduce" not in found.calls
    else:
        assert found.calls["allreduce"] == units
        assert found.sizes["allreduce"] == 4 * weights.trained / shards
    if shards > 1:
        assert found.calls["reduce_scatter_base"] == micro_batches * units
        assert found.sizes["reduce_scatter_base"] == micro_batches * 4 * weights.trained


def composed(*overrides):
    """What Hydra makes of a command line."""
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = OmegaConf.to_object(compose("plan", list(overrides)))
    assert isinstance(config, PlanConfig)
    return config


def test_the_command():
    lines = list(plan(composed()))
    assert "7,241,732,096 weights train" in lines[0]
    lines = "\n".join(lines).split("\n")
    assert sum("fsdp" in line and "MFU" not in line for line in lines) >= 4
    lines = list(plan(composed("lora=r8", "gpus=[1]", "machine.memory_gib=24")))
    assert "7,241,732,096 are frozen" in lines[0]
    same = composed("lora=continued", "lora.rank=8", "lora.alpha=16", "gpus=[1]")
    assert same.run == composed("lora=r8", "gpus=[1]").run
    small = [
        "model=toy",
        "model.num_hidden_layers=1",
        "parallel.checkpointing=full",
        "parallel.dtype=bfloat16",
        "gpus=[64]",
    ]
    lines = list(plan(composed(*small, "simulate=true")))
    assert any("allgather_base: 3 calls" in line for line in lines)
