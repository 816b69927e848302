"""AdamW with moments in fp32 (torch, fused) or in bfloat16, 16 or 12 bytes per trained weight."""

import torch
from torch import Tensor

from kernels.adamw import Update, adamw_, reference_
from kernels.launch import installed
from training.optimizer import TrainingOptimizer
from training.parallelize import local_part, local_rows

PIECE = 1 << 16
"""Elements per update step on devices without the kernel."""
MOMENTS = ("exp_avg", "exp_avg_sq")


class AdamW(torch.optim.AdamW, TrainingOptimizer):  # pyright: ignore[reportIncompatibleMethodOverride]
    """torch's AdamW (Loshchilov and Hutter 2019) with fp32 moments.

    Args:
        groups: fp32 parameters with their options.
    """

    summary = "fp32 moments (optim.moment_dtype=float32)"
    state_bytes = 8
    update_bytes = 28

    def __init__(
        self, groups: list[dict], *, lr: float, betas: tuple[float, float], eps: float
    ) -> None:
        super().__init__(groups, lr=lr, betas=betas, eps=eps, fused=True)

    def state_template(self, parameter: Tensor) -> dict[str, Tensor]:
        """Step and moments, on the device of the parameter."""
        zeros = {key: torch.zeros_like(parameter) for key in MOMENTS}
        return {"step": torch.zeros((), dtype=torch.float32, device=parameter.device), **zeros}


class AdamWBF16(TrainingOptimizer):
    """AdamW over fp32 weights with bfloat16 moments and stochastic rounding.

    The rounding depends only on (place of the parameter among all, its step, element). On CUDA one
    kernel computes the update; elsewhere torch operations do, slower than torch's fused AdamW.

    Args:
        groups: fp32 parameters with their options.
    """

    summary = "bf16 moments (optim.moment_dtype=bfloat16)"
    state_bytes = 4
    update_bytes = 20

    def __init__(
        self, groups: list[dict], *, lr: float, betas: tuple[float, float], eps: float
    ) -> None:
        super().__init__(groups, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": 0.0})

    def state_template(self, parameter: Tensor) -> dict[str, Tensor]:
        """Step, on the host, and moments."""
        zeros = {key: torch.zeros_like(parameter, dtype=torch.bfloat16) for key in MOMENTS}
        return {"step": torch.zeros((), dtype=torch.float32), **zeros}

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
                    state.update(self.state_template(parameter))
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
                    [local_part(tensor).view(-1) for tensor in tensors],
                    update,
                    first=local_rows(parameter).start * parameter.shape[1:].numel(),
                )


def _update(tensors: list[Tensor], update: Update, first: int) -> None:
    """Update weight and moments in place; all tensors are flat."""
    weight, grad, average, square = tensors
    if weight.device.type == "cuda" and installed:
        adamw_(weight, grad, average, square, update, first)
        return
    # In pieces that fit the processor's cache: the update takes two dozen passes.
    for start in range(0, len(weight), PIECE):
        w, g, m, v = (tensor[start : start + PIECE] for tensor in tensors)
        reference_(w, g, m, v, update, first + start)


def _seed(step: int, number: int) -> int:
    """Seed per update and parameter in [2^30, 2^31), a range without specialised kernels."""
    return (step * 0x9E3779B1 + number * 0x85EBCA6B) & 0x3FFFFFFF | 0x40000000
