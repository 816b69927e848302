"""State of a run as tensors by name: the content of a checkpoint.

    step, model.<parameter>, optimizer.<parameter>.{step, exp_avg, exp_avg_sq}

Only parameters that were trained since the last reset of the moments have optimizer state. Where an
adapter is trained, the frozen base is not part of the state: `init_from` has it.
"""

from collections.abc import Collection

import torch
from torch import Tensor, nn

from model.adapters import adapter_names
from model.transformer import Mistral
from training.optimizer import TrainingOptimizer
from training.parallelize import clean_named_parameters


def state_parameters(model: Mistral) -> list[tuple[str, nn.Parameter]]:
    """Trainable parameters by name: all parameters, or those of the adapter."""
    adapter = adapter_names(model)
    return [
        (name, parameter)
        for name, parameter in clean_named_parameters(model)
        if adapter is None or name in adapter
    ]


def state_tensors(model: Mistral, optimizer: torch.optim.Optimizer, step: int) -> dict[str, Tensor]:
    """All tensors of the state after `step` updates, by name; not copies, so a checkpoint can be
    loaded into them."""
    state: dict[str, Tensor] = {"step": torch.tensor(step)}
    for name, parameter in state_parameters(model):
        state[f"model.{name}"] = parameter.detach()
        for key, value in optimizer.state.get(parameter, {}).items():
            state[f"optimizer.{name}.{key}"] = value
    return state


def match_moments(model: Mistral, optimizer: TrainingOptimizer, names: Collection[str]) -> None:
    """Give exactly those parameters optimizer state that have some in a checkpoint.

    Args:
        names: of the tensors in the checkpoint, which can then be loaded in place.
    """
    for name, parameter in state_parameters(model):
        if f"optimizer.{name}.step" not in names:
            optimizer.state.pop(parameter, None)
        elif parameter not in optimizer.state:
            optimizer.state[parameter] = optimizer.state_template(parameter)


def checkpoint_bytes(model: Mistral, optimizer: TrainingOptimizer) -> int:
    """Size of a checkpoint over all processes: weights, and the state of all trained parameters.

    Before the first stage has frozen parameters this is the size for the largest stage.
    """
    parameters = [parameter for _, parameter in state_parameters(model)]
    trained = sum(parameter.numel() for parameter in parameters if parameter.requires_grad)
    return sum(p.numel() * p.element_size() for p in parameters) + trained * optimizer.state_bytes
