"""Parallelism of the network, applied from outside: activation checkpointing, compile, FSDP2.

The order is that of torchtitan: activation checkpointing inside, then compilation of each block,
then sharding of each block, then sharding of what remains (embedding, final norm, head).
"""

from contextlib import suppress
from dataclasses import dataclass, field

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import (
    checkpoint_wrapper,  # pyright: ignore[reportPrivateImportUsage]
)
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor
from torch.utils.checkpoint import CheckpointPolicy, create_selective_checkpoint_contexts

from model.adapters import unwrapped_name
from model.device import DTYPES, compute_dtype
from model.transformer import Mistral
from model.weights import WeightSource, copy_rows
from training.distributed import World


@dataclass(kw_only=True)
class ParallelConfig:
    """Sharding, precision, attention backend and activation checkpointing."""

    strategy: str = field(default="fsdp", metadata={"launch": True})
    """`fsdp`: every rank keeps one part of the weights. `hsdp`: groups of `shard_ranks` ranks keep
    the parts, groups are replicas. `replicate`: every rank keeps all (plain data parallel)."""
    shard_ranks: int | None = field(default=None, metadata={"launch": True})
    """Ranks per group under hsdp."""
    dtype: str = field(default="auto", metadata={"machine": True})
    """Dtype of forward and backward: `bfloat16`, `float32`, or `auto` (bfloat16 on CUDA).
    Weights, their reduction over ranks and the optimizer are fp32 in any case."""
    attention: str = field(default="auto", metadata={"launch": True})
    """Attention backend: auto, flash4, flash, flex, banded, reference."""
    checkpointing: str = field(default="none", metadata={"launch": True})
    """Recomputation in backward: `none`; `selective`, all but matrix products and attention;
    `full`, each block from its input."""
    checkpointed_layers: int | None = field(default=None, metadata={"launch": True})
    """Number of blocks, from the first, that `checkpointing` applies to (`scripts.plan` shows how
    many the memory needs); null: all."""
    other_layers: str = field(default="none", metadata={"launch": True})
    """Recomputation in the other blocks when `checkpointing` is full: `none`, or `selective`, which
    costs little time."""
    compile: bool = field(default=False, metadata={"launch": True})
    """Compile each block with torch.compile."""
    deterministic: bool = field(default=False, metadata={"launch": True})
    """Use algorithms that add in a fixed order: one CUDA device then gives the same bits again
    (several devices have not been tried), a little slower. CPUs always do."""

    def __post_init__(self) -> None:
        for name, value, choices in (
            ("strategy", self.strategy, ("fsdp", "hsdp", "replicate")),
            ("dtype", self.dtype, ("auto", *DTYPES)),
            ("checkpointing", self.checkpointing, ("none", "selective", "full")),
            ("other_layers", self.other_layers, ("none", "selective")),
        ):
            if value not in choices:
                raise ValueError(f"parallel.{name}={value!r}: one of {', '.join(choices)}")
        if self.checkpointed_layers is not None and (
            self.checkpointing == "none" or self.checkpointed_layers < 1
        ):
            raise ValueError(
                f"parallel.checkpointed_layers={self.checkpointed_layers} with "
                f"parallel.checkpointing={self.checkpointing}: give a number from 1 on and choose "
                "selective or full, or leave it out"
            )
        if self.other_layers != "none" and (
            self.checkpointing != "full" or self.checkpointed_layers is None
        ):
            raise ValueError(
                f"parallel.other_layers={self.other_layers} needs parallel.checkpointing=full and "
                "a number of parallel.checkpointed_layers; for all layers set "
                "parallel.checkpointing=selective alone"
            )
        if (self.strategy == "hsdp") != (self.shard_ranks is not None):
            raise ValueError(
                f"parallel.strategy={self.strategy} with parallel.shard_ranks={self.shard_ranks}: "
                "hsdp needs shard_ranks, the others take none"
            )


def build_mesh(config: ParallelConfig, world: World) -> DeviceMesh:
    """(replicas, shards) as a device mesh.

    Raises:
        ValueError: `shard_ranks` does not divide the number of ranks.
    """
    shards = {"fsdp": world.dp_size, "replicate": 1, "hsdp": config.shard_ranks}[config.strategy]
    assert shards is not None
    if shards < 1 or world.dp_size % shards:
        raise ValueError(
            f"parallel.shard_ranks={shards} does not divide the {world.dp_size} ranks of this run"
        )
    return init_device_mesh(
        world.device.type, (world.dp_size // shards, shards), mesh_dim_names=("replicate", "shard")
    )


def parallelize(model: Mistral, config: ParallelConfig, mesh: DeviceMesh) -> None:
    """Prepare a model (usually on the meta device) in place for distributed training."""
    layers = model.model.layers
    count = config.checkpointed_layers
    if count is not None and count > len(layers):
        raise ValueError(
            f"parallel.checkpointed_layers={count}: the network has {len(layers)} layers"
        )
    for number, (name, block) in enumerate(layers.named_children()):
        kind = config.checkpointing if count is None or number < count else config.other_layers
        if kind != "none":
            block = _checkpointed(block, kind)
            layers.register_module(name, block)
        if config.compile:
            block.compile(fullgraph=True)
    dtype = compute_dtype(config.dtype, torch.device(mesh.device_type))
    if mesh.size() == 1 and dtype == torch.float32:
        return  # nothing to shard, nothing to cast
    # Inputs are not cast: rotary angles must stay fp32, activations have the dtype already.
    policy = MixedPrecisionPolicy(
        param_dtype=dtype, reduce_dtype=torch.float32, cast_forward_inputs=False
    )
    # fully_shard takes the one-dimensional mesh for pure sharding, the two-dimensional for HSDP.
    spread = mesh["shard"] if mesh["replicate"].size() == 1 else mesh
    # One device has no one to share with: what is frozen and needs no cast is left as it is, or
    # each pass would copy it.
    alone = mesh.size() == 1
    ignored = {p for p in model.parameters() if alone and not p.requires_grad and p.dtype == dtype}
    options = {"mesh": spread, "mp_policy": policy, "ignored_params": ignored}
    for block in layers:
        # FSDP ignores the frozen base, so only adapters remain; they are small and stay gathered.
        fully_shard(block, **options, reshard_after_forward=not ignored)
    fully_shard(model, **options)


def _checkpointed(block: nn.Module, kind: str) -> nn.Module:
    if kind == "full":
        return checkpoint_wrapper(block, preserve_rng_state=False)
    # Registers the operator `_varlen_attn`. Imported here, because the import takes a second.
    from torch.nn.attention import varlen  # noqa: F401

    aten, ours = torch.ops.aten, torch.ops.model
    expensive = {
        *(aten.mm.default, aten.addmm.default, aten.bmm.default),
        *(torch.ops.torch_attn._varlen_attn.default, aten._flash_attention_forward.default),
        *(ours.banded_attention.default, ours.flash4.default),
        *(ours.project_adapted.default, ours.swiglu_adapted.default, ours.update_adapted.default),
        torch.ops.higher_order.flex_attention,
    }
    with suppress(AttributeError):  # where the package is installed
        expensive.add(torch.ops.flash_attn._flash_attn_varlen_forward.default)

    def policy(_ctx: object, op: object, *_args: object, **_kwargs: object) -> CheckpointPolicy:
        keep = op in expensive
        return CheckpointPolicy.MUST_SAVE if keep else CheckpointPolicy.PREFER_RECOMPUTE

    return checkpoint_wrapper(
        block,
        preserve_rng_state=False,
        context_fn=lambda: create_selective_checkpoint_contexts(policy),
    )


@torch.no_grad()
def materialize(model: Mistral, source: WeightSource, device: torch.device) -> None:
    """Allocate a meta model in fp32 and fill it; each rank reads only the rows it keeps."""
    model.to_empty(device=device)
    model.tie_weights()
    wanted = []
    for name, parameter in clean_named_parameters(model):
        wanted.append((name, local_rows(parameter), local_part(parameter)))
    copy_rows(source, wanted)


def local_rows(parameter: torch.Tensor) -> slice:
    """The rows of a parameter that this rank keeps: FSDP2 cuts the first dimension in chunks."""
    if not isinstance(parameter, DTensor):
        return slice(0, parameter.shape[0])
    mesh = parameter.device_mesh
    shards, shard = mesh.size(mesh.ndim - 1), mesh.get_local_rank(mesh.ndim - 1)
    rows = parameter.shape[0]
    chunk = -(-rows // shards)
    return slice(min(shard * chunk, rows), min((shard + 1) * chunk, rows))


def local_part(tensor: torch.Tensor) -> torch.Tensor:
    """Shard of a tensor on this rank; the tensor itself where it is not sharded."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def local_bytes(tensor: torch.Tensor) -> torch.Tensor:
    """Bytes of this rank's shard, for comparisons bit for bit."""
    return local_part(tensor).contiguous().reshape(-1).view(torch.uint8)


def clean_named_parameters(model: nn.Module) -> list[tuple[str, nn.Parameter]]:
    """Parameters under the names they have without wrappers, tied ones once."""
    parameters = [(unwrapped_name(name), parameter) for name, parameter in model.named_parameters()]
    if isinstance(model, FSDPModule):
        # A gathered copy is rounded to the compute dtype and unknown to the optimizer.
        alone = dist.get_world_size() == 1  # then FSDP has nothing that is frozen and ignored
        shards = [p for _, p in parameters if p.requires_grad or not alone]
        assert all(isinstance(parameter, DTensor) for parameter in shards), "call reshard"
    return parameters


def sum_over_replicas(model: nn.Module, *, now: bool) -> None:
    """Sum gradients over replicas in the backward passes that follow, or leave them for later.

    The later pass also sums the gradients that earlier passes left. One sum per step is enough,
    with the last micro-batch: each goes once over the network, and early ones save no memory.
    """
    if isinstance(model, FSDPModule):
        model.set_requires_all_reduce(now)


def reshard(model: nn.Module) -> None:
    """Free weights that stay gathered after a forward pass without a backward pass.

    FSDP keeps the root's (embedding, norm, head) for a backward pass, and the adapters of blocks
    with an ignored base; until then `parameters()` yields the gathered copies in place of the
    shards.
    """
    for module in model.modules():  # FSDP's own is of one module alone
        if isinstance(module, FSDPModule):
            module.reshard()
