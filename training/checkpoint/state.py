"""The state of a run as tensors by name: what a checkpoint holds.

    step, model.<parameter>, optimizer.<parameter>.{step, exp_avg, exp_avg_sq}

Moments are there for what has been trained since the optimizer last forgot, and for nothing else.
Where an adapter is trained, the frozen base is not part of the state: it comes from `init_from`.
"""

from collections.abc import Collection

import torch
from torch import Tensor, nn

from model.adapters import adapter_names
from model.transformer import Mistral
from training.adamw import RoundedAdamW, rounded_moments
from training.parallelize import clean_named_parameters


def state_parameters(model: Mistral) -> list[tuple[str, nn.Parameter]]:
    """What a run may change, by name: all parameters, or those of the adapter."""
    adapter = adapter_names(model)
    return [
        (name, parameter)
        for name, parameter in clean_named_parameters(model)
        if adapter is None or name in adapter
    ]


def state_tensors(model: Mistral, optimizer: torch.optim.Optimizer, step: int) -> dict[str, Tensor]:
    """All tensors of the state after `step` updates, by name; not copied, so that they can be
    loaded into."""
    state: dict[str, Tensor] = {"step": torch.tensor(step)}
    for name, parameter in state_parameters(model):
        state[f"model.{name}"] = parameter.detach()
        for key, value in optimizer.state.get(parameter, {}).items():
            state[f"optimizer.{name}.{key}"] = value
    return state


def match_moments(model: Mistral, optimizer: torch.optim.Optimizer, names: Collection[str]) -> None:
    """Leave the optimizer moments of just those parameters of which a state has some.

    Args:
        names: of the tensors of that state, which can then be loaded in place.
    """
    for name, parameter in state_parameters(model):
        if f"optimizer.{name}.step" not in names:
            optimizer.state.pop(parameter, None)
        elif parameter not in optimizer.state:
            optimizer.state[parameter] = _first_moments(optimizer, parameter)


def _first_moments(optimizer: torch.optim.Optimizer, parameter: nn.Parameter) -> dict[str, Tensor]:
    """What the optimizer itself starts from on its first step."""
    if isinstance(optimizer, RoundedAdamW):
        return rounded_moments(parameter)
    return {
        "step": torch.zeros((), dtype=torch.float32, device=parameter.device),
        "exp_avg": torch.zeros_like(parameter),
        "exp_avg_sq": torch.zeros_like(parameter),
    }


def state_bytes(model: Mistral, moment_bytes: int = 4) -> int:
    """Size of a checkpoint over all processes: weights, and two moments of what is trained.

    Before the first stage has frozen anything, no less than any stage needs.
    """
    return sum(
        parameter.numel() * (parameter.element_size() + 2 * moment_bytes * parameter.requires_grad)
        for _, parameter in state_parameters(model)
    )


def moment_bytes(optimizer: torch.optim.Optimizer) -> int:
    """What a moment of one weight takes."""
    return 2 if isinstance(optimizer, RoundedAdamW) else 4
