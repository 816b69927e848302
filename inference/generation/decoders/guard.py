"""The guard of the decoders that bypass the network's modules
(`inference.generation.decoders.cpu_onednn`, `inference.generation.decoders.cuda_graph`).

Such a decoder computes the stock network from its weights and calls none of its modules. A network
that somebody has changed is decoded by its own forward pass.
"""

from dataclasses import replace
from typing import Any

import torch
from torch import nn
from torch.nn.modules import module as torch_module

from model.lora.layer import LoraConfig, LoraLinear
from model.norm import RMSNorm
from model.transformer import MLP, Attention, Block, Decoder, Mistral

_LAYERS = (Decoder, Block, Attention, MLP, RMSNorm, LoraLinear)
_KINDS = (Mistral, *_LAYERS, nn.Linear, nn.Embedding, nn.ModuleList)
_STOCK_FORWARDS = {kind: kind.forward for kind in _KINDS}
_BOOKKEEPING = vars(nn.Module()).keys()
_HOOKS = ("_forward_pre_hooks", "_forward_hooks")
# The stock network is built from the config; decoders read the scale of each adapter, and the rate
# of dropout is of no matter where no seeds are set.
_FREE = {"config", "lora", "scale", "dropout", "merged_digest"}


def departure(model: nn.Module) -> str | None:
    """Name of the first module that is not the stock network's, with the difference, or None.

    Compared are exact classes and their `forward`, forward hooks, names of children, parameters and
    buffers, exact types and shapes of parameters, and all other attributes. An adapter in place of
    a linear is part of the stock network.
    """
    if _has_global_hooks():
        return "torch.nn.Module has a global forward hook"
    if type(model) is not Mistral:
        return f"the network is of class {type(model).__name__}, not Mistral"
    with torch.device("meta"):
        stock = Mistral(replace(model.config, num_hidden_layers=1), backend=model.backend)
    pairs: list[tuple[str, nn.Module, nn.Module]] = [("", model, stock)]
    while pairs:
        name, module, known = pairs.pop()
        if type(module) is LoraLinear and type(known) is nn.Linear:
            known = _adapted(module, known)
        below = dict(known.named_children())
        if type(known) is nn.ModuleList:
            below = {str(n): below["0"] for n in range(model.config.num_hidden_layers)}
        found, expected = _description(module), _description(known)
        expected |= {"class": type(known).__name__, "children": sorted(below)}
        for key in sorted(found.keys() | expected.keys()):
            one, other = found.get(key, "absent"), expected.get(key, "absent")
            if type(one) is not type(other) or one != other:
                return f"{name or 'the network'} has {key} {one}, the stock network {other}"
        pairs += [(f"{name}.{key}".strip("."), x, below[key]) for key, x in module.named_children()]
    return None


def _description(module: nn.Module) -> dict[str, Any]:
    """All attributes of a module on which its output may depend, except values of weights."""
    kind = type(module)
    replaced = kind in _STOCK_FORWARDS and kind.forward is not _STOCK_FORWARDS[kind]
    attributes = {k: v for k, v in vars(module).items() if k not in _BOOKKEEPING | _FREE}
    return attributes | {
        "class": f"{kind.__name__} with another forward" if replaced else kind.__name__,
        "hooks": [hook for name in _HOOKS for hook in getattr(module, name).values()],
        "children": sorted(module._modules),
        "parameters": {
            name: x if x is None else (type(x).__name__, tuple(x.shape))
            for name, x in module._parameters.items()
        },
        "buffers": sorted(module._buffers),
    }


def _adapted(found: LoraLinear, linear: nn.Linear) -> LoraLinear:
    """The stock adapter of the rank that was found, in place of a linear."""
    a = found._modules.get("lora_A")
    rank = a.out_features if isinstance(a, nn.Linear) else 1
    return LoraLinear(linear, LoraConfig(rank=rank, alpha=1.0))


def _has_global_hooks() -> bool:
    return any(getattr(torch_module, f"_global{name}") for name in _HOOKS)


class Watch:
    """Changes of a network since it was found to be the stock one.

    `touched` is cheap enough for every decode step (below 0.1 ms for Mistral-7B), `changed`
    for every batch of prompts.
    """

    def __init__(self, model: nn.Module) -> None:
        self._modules = modules = list(model.modules())
        self._fields = [vars(module) for module in modules]
        self._hooks = [getattr(module, name) for module in modules for name in _HOOKS]
        self._parents = [module._modules for module in modules if module._modules]
        # Modules whose output depends on a number other than a weight.
        self._norms = [module for module in modules if isinstance(module, RMSNorm)]
        self._adapters = [module for module in modules if isinstance(module, LoraLinear)]
        self._structure, self._content = self._read_structure(), self._read_content()

    def touched(self) -> bool:
        """First or last hooks, other classes, forwards, attributes, modules or numbers in them."""
        return self._read_structure() != self._structure

    def changed(self) -> bool:
        """All that, other values of attributes, or other parameters in place of the former."""
        return self.touched() or self._read_content() != self._content

    def _read_structure(self) -> list[Any]:
        numbers = [norm.eps for norm in self._norms]
        numbers += [x for adapter in self._adapters for x in (adapter.scale, adapter.seeds)]
        return [
            any(self._hooks) or _has_global_hooks(),
            list(map(type, self._modules)),
            list(map(len, self._fields)),
            [kind.forward for kind in _STOCK_FORWARDS],
            [list(below.values()) for below in self._parents],
            [(type(x), x) for x in numbers],  # a tensor is never compared with a number
        ]

    def _read_content(self) -> list[Any]:
        held = [id(x) for module in self._modules for x in module._parameters.values()]
        few = [vars(module) for module in self._modules if type(module) is not nn.Linear]
        return [held, [(type(v), v) for x in few for k, v in x.items() if k not in _BOOKKEEPING]]
