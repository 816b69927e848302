"""AdamW with moments in 16 bits: 12 bytes per weight with its gradient instead of 16."""

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor

from kernels.adamw import Update, adamw_, reference_
from kernels.launch import installed
from training.parallelize import local_rows

PIECE = 1 << 16
"""Elements that are updated at a time without a kernel."""


class RoundedAdamW(torch.optim.Optimizer):
    """AdamW over fp32 weights, with moments in bfloat16 that are rounded by chance.

    What is rounded how follows from (place of the parameter among all, its step, element) alone. On
    CUDA one kernel does it; elsewhere torch, which is slower than its own fused AdamW.

    Args:
        groups: parameters, in fp32, with their options.
    """

    def __init__(
        self,
        groups: list[dict],
        *,
        lr: float,
        betas: tuple[float, float],
        eps: float,
    ) -> None:
        super().__init__(groups, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": 0.0})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Update every parameter that has a gradient."""
        assert closure is None
        number = 0
        for group in self.param_groups:
            for parameter in group["params"]:
                number += 1
                if parameter.grad is None:
                    continue
                state = self.state[parameter]
                if not state:
                    state.update(rounded_moments(parameter))
                state["step"] += 1
                step = int(state["step"])
                update = Update(
                    lr=group["lr"],
                    betas=group["betas"],
                    eps=group["eps"],
                    decay=group["weight_decay"],
                    step=step,
                    seed=_seed(step, number),
                )
                tensors = [parameter, parameter.grad, *(state[key] for key in MOMENTS)]
                _update(
                    [_local(tensor).view(-1) for tensor in tensors],
                    update,
                    first=local_rows(parameter).start * parameter.shape[1:].numel(),
                )


def _update(tensors: list[Tensor], update: Update, first: int) -> None:
    """Weight, gradient and moments, flat, in place."""
    weight, grad, average, square = tensors
    if weight.device.type == "cuda" and installed:
        adamw_(weight, grad, average, square, update, first)
        return
    # In pieces that a processor's cache holds: it takes two dozen passes.
    for start in range(0, len(weight), PIECE):
        w, g, m, v = (tensor[start : start + PIECE] for tensor in tensors)
        reference_(w, g, m, v, update, first + start)


MOMENTS = ("exp_avg", "exp_avg_sq")


def rounded_moments(parameter: Tensor) -> dict[str, Tensor]:
    """What a parameter's state begins with; the step lies on the host, where it is needed."""
    zeros = {key: torch.zeros_like(parameter, dtype=torch.bfloat16) for key in MOMENTS}
    return {"step": torch.zeros((), dtype=torch.float32), **zeros}


def _seed(step: int, number: int) -> int:
    """One per update and parameter, in [2^30, 2^31): never a number that a kernel is built for."""
    return (step * 0x9E3779B1 + number * 0x85EBCA6B) & 0x3FFFFFFF | 0x40000000


def _local(tensor: Tensor) -> Tensor:
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor
