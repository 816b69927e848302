"""The norm of a gradient, the same however it is spread, and clipping by it."""

from collections.abc import Iterable

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.tensor import DTensor


@torch.no_grad()
def clip_gradients(parameters: Iterable[nn.Parameter], max_norm: float) -> float:
    """Scale gradients down to a global norm where they exceed it; returns the norm before.

    torch's own norm adds up the squares of a tensor one after the other on a CPU. Over the four
    million elements of a small embedding that is short by 8e-5, and by 3e-5 for each half of it on
    two ranks, so that the clipped gradient would depend on the number of ranks.
    """
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    local = [grad.to_local() if isinstance(grad, DTensor) else grad for grad in gradients]
    # `sum` adds in pairs, and a few hundred tensors lose nothing in fp64.
    squares = torch.stack([part.square().sum(dtype=torch.float32).double() for part in local]).sum()
    if gradients and isinstance(gradients[0], DTensor):
        # Replicas hold the same gradient: only its shards are to be added up.
        dist.all_reduce(squares, group=gradients[0].device_mesh.get_group("shard"))
    norm = float(squares.sqrt())
    _scale(local, max_norm / (norm + 1e-6))
    return norm


def _scale(gradients: list[Tensor], factor: float) -> None:
    if not factor >= 1:  # a norm that is no number must not leave the gradient as if it were
        torch._foreach_mul_(gradients, factor)
