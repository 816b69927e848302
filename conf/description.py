"""Description of a run at its start: for the output, and for a later verification."""

import os
import platform
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from conf.build import RunParts
from conf.schema import to_yaml
from model.attention import describe_backend
from training.distributed import World
from training.run.open import RunRecord

_PROCESSOR = ("model name", "cpu family", "model", "stepping")
_KERNEL_SETTINGS = ("MKL_CBWR", "MKL_ENABLE_INSTRUCTIONS", "ONEDNN_MAX_CPU_ISA")


def describe_run(parts: RunParts, world: World) -> RunRecord:
    """Record of a run for its folder and for the first lines of the output."""
    config = parts.config
    return RunRecord(
        folder=config.folder,
        config_yaml=to_yaml(config),
        settings=asdict(config),
        logging=config.logging,
        resume=config.resume,
        steps=parts.plan.steps,
        fingerprints=parts.fingerprints,
        start=describe_start(parts, world),
        initial=parts.initial.kept_from,
        description=_first_lines(parts, world),
    )


def describe_start(parts: RunParts, world: World) -> dict[str, Any]:
    """Settings and hardware that the last bits of a step depend on, and which steps are logged."""
    config, cuda = parts.config, world.device.type == "cuda"
    return {
        "step": 0,
        "ranks": world.dp_size,
        "threads": world.threads,
        "processor": describe_processor(),
        "device": torch.cuda.get_device_name() if cuda else world.device.type,
        "torch": str(torch.__version__),
        "dtype": str(parts.dtype).removeprefix("torch."),
        "micro_batch_rows": config.batch.micro_batch_rows,
        "strategy": config.parallel.strategy,
        "shard_ranks": config.parallel.shard_ranks,
        "attention": describe_backend(parts.model.backend),
        "compile": config.parallel.compile,
        "checkpointing": config.parallel.checkpointing,
        "logging_every": config.logging.every,
        "checkpoint_every": config.checkpoint.every,
    }


def describe_processor() -> str:
    """Processor, instruction set and library settings that decide how products are summed.

    The model of the processor is read on Linux only; elsewhere the architecture is all there is.
    """
    facts = [platform.machine()]
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        lines = cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines()
        found = dict(line.split(":", 1) for line in reversed(lines) if ":" in line)
        known = {key.strip(): value.strip() for key, value in found.items()}
        facts += [f"{key} {known[key]}" for key in _PROCESSOR if key in known]
    facts.append(torch.backends.cpu.get_cpu_capability())
    facts += [f"{name}={os.environ[name]}" for name in _KERNEL_SETTINGS if name in os.environ]
    return ", ".join(facts)


def _first_lines(parts: RunParts, world: World) -> list[str]:
    """Settings in force, for the first lines of the output."""
    plan, sources, backend = parts.plan, parts.sources, parts.model.backend
    weights = sum(parameter.numel() for parameter in parts.model.parameters())
    lines = [
        f"{world.dp_size} x {world.device.type}, {world.threads} CPU threads each (all cores "
        f"shared out, whatever OMP_NUM_THREADS says), {parts.dtype}, attention "
        f"{describe_backend(backend)}, {weights:,} weights"
    ]
    if lora := parts.model.lora:
        trained = sum(p.numel() for p in parts.model.parameters() if p.requires_grad)
        lines.append(
            f"LoRA of rank {lora.rank} and scale {lora.scale:g}: {trained:,} of the weights are "
            f"trained, on a frozen base in {parts.dtype} ({parts.config.init_from})"
        )
    lines += parts.initial.settings.notes
    lines += [
        f"stage {stage.name}: steps {stage.first_step} to {stage.first_step + stage.steps - 1}, "
        f"{stage.rows * plan.row_length:,} tokens, trains {stage.config.trains}"
        for stage in plan.stages
    ]
    lines += [
        f"source {name}: {rows * plan.row_length / parts.loader.epoch_tokens[name]:.2f} epochs of "
        f"{sources[name].tokens:,} tokens read by the end"
        for name, rows in plan.consumed().items()
        if name in plan.sources  # an earlier stage, in another run, may have read others
    ]
    lines += [
        f"source {name} is read as it was when this run began, without the shards appended since "
        f"({source.later_shards})"
        for name, source in sources.items()
        if source.later_shards
    ]
    shares = {name: source.manifest["held_out"]["fraction"] for name, source in sources.items()}
    if len(set(shares.values())) > 1:
        lines.append(
            f"sources hold out different shares ({shares}): what one has held out another may train"
        )
    lines += [
        f"source {name} has no held-out text and is not evaluated"
        for name, source in sources.items()
        if not source.held_out_documents
    ]
    return lines
