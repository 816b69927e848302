"""Low-rank adapters of a network: which linear layers get one, and its initial weights.

`add_lora` replaces linear layers in place by `LoraLinear`, which keeps `<name>.weight`, so that
names stay those of HF and, apart from a prefix, those of PEFT.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace

import torch
from torch import Tensor, nn

from model.lora.layer import (
    HEAD_MODULE,
    SAVED_NAMES,
    LoraConfig,
    LoraLinear,
    LoraOptions,
    per_layer_seeds,
)
from model.seeded import seeded_generator
from model.transformer import Mistral
from model.weights import WeightSource

_PLAIN_NAME = re.compile(r"[\w.]+")


def settle(asked: LoraOptions, adapter: LoraConfig | None, model: Mistral) -> LoraConfig:
    """Settings of a new adapter, or of one whose training continues.

    A continued adapter decides, and the requested settings must not contradict it, except for
    dropout and lr_ratio.

    Args:
        adapter: settings of the adapter that is continued.
        model: before `add_lora`.

    Raises:
        ValueError: rank or alpha is null without an adapter, or the settings contradict it.
    """
    if adapter is None:
        if asked.rank is None or asked.alpha is None:
            raise ValueError(
                "lora.rank and lora.alpha: null (lora=continued) takes those of an adapter, and "
                "init_from is none; choose lora=r8 or r64, or name an adapter"
            )
        return LoraConfig(**asdict(asked))
    unsaid = LoraOptions() if asked.rank is None else None
    for name in ("rank", "alpha", "rslora", "targets", "modules_to_save"):
        mine, theirs = getattr(asked, name), getattr(adapter, name)
        if mine is None or (unsaid is not None and mine == getattr(unsaid, name)):
            continue
        if name == "targets":
            same = match_targets(model, mine) == match_targets(model, theirs)
        elif name == "modules_to_save":
            same = set(mine) == set(theirs)
        else:
            same = mine == theirs
        if not same:
            raise ValueError(
                f"lora.{name}={mine}, but the adapter that init_from names has {theirs}; set "
                "lora=continued to train it further as it is, or merge it (python -m "
                "scripts.export) and name the merged folder to train another adapter"
            )
    return replace(adapter, dropout=asked.dropout, lr_ratio=asked.lr_ratio)


def add_lora(model: Mistral, config: LoraConfig, dtype: torch.dtype = torch.float32) -> None:
    """Freeze a model and give it updates to train, in place; before it is spread over ranks.

    Args:
        dtype: what the frozen base is kept in; what is trained is fp32.

    Raises:
        ValueError: a target matches no linear, or modules_to_save does not fit a tied model.
    """
    names = match_targets(model, config.targets)
    if model.config.tie_word_embeddings and HEAD_MODULE in config.modules_to_save:
        raise ValueError(
            "lora.modules_to_save: lm_head is the embedding of this model (tied); name "
            "embed_tokens, which stands for both"
        )
    model.to(dtype).requires_grad_(False)
    for name in names:
        parent, _, leaf = name.rpartition(".")
        linear = model.get_submodule(name)
        assert isinstance(linear, nn.Linear)
        setattr(model.get_submodule(parent), leaf, LoraLinear(linear, config))
    for name in config.modules_to_save:
        path, _, _ = SAVED_NAMES[name].rpartition(".")
        model.get_submodule(path).float().requires_grad_(True)
    model.tie_weights()
    model.lora = config


def check_rank(model: Mistral, config: LoraConfig) -> None:
    """ValueError if an update of this rank could be written with fewer numbers, for some linear.

    A product B A of a rank above the smaller side of W has no more freedom than W itself.
    """
    for name in match_targets(model, config.targets):
        linear = model.get_submodule(name)
        assert isinstance(linear, nn.Linear)
        smaller = min(linear.in_features, linear.out_features)
        if config.rank > smaller:
            raise ValueError(
                f"lora.rank={config.rank}: {name} is {linear.out_features} x {linear.in_features}, "
                f"and a rank above {smaller} adds nothing; give at most {smaller}, or other targets"
            )


def match_targets(model: Mistral, targets: Sequence[str]) -> list[str]:
    """Names of the linears that are adapted, in the order of the network.

    Raises:
        ValueError: a target matches none.
    """
    linears = [
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and name != HEAD_MODULE
    ]
    matched: set[str] = set()
    for target in targets:
        found = [name for name in linears if _matches(target, name)]
        if not found:
            leaves = sorted({name.rpartition(".")[2] for name in linears})
            advice = f"the linears of a layer are {', '.join(leaves)}"
            if target == HEAD_MODULE:
                advice = "the head is trained whole, with lora.modules_to_save=[lm_head]"
            raise ValueError(f"lora.targets: {target!r} matches no linear; {advice}")
        matched.update(found)
    return [name for name in linears if name in matched]


def _matches(target: str, name: str) -> bool:
    if target == "all":
        return True
    if _PLAIN_NAME.fullmatch(target):
        return f".{name}".endswith(f".{target}")
    try:
        return re.fullmatch(target, name) is not None
    except re.error as error:
        raise ValueError(
            f"lora.targets: {target!r} is not a valid regular expression: {error}"
        ) from None


def unwrapped_name(name: str) -> str:
    """Name of a module or parameter without the wrapper of activation checkpointing."""
    return name.replace("_checkpoint_wrapped_module.", "")


def adapter_names(model: Mistral) -> set[str] | None:
    """Names of the parameters that an adapter consists of; None for a model without one."""
    if model.lora is None:
        return None
    names = {SAVED_NAMES[name] for name in model.lora.modules_to_save}
    for name, module in model.named_modules():
        if isinstance(module, LoraLinear):
            clean = unwrapped_name(name)
            names |= {f"{clean}.lora_A.weight", f"{clean}.lora_B.weight"}
    return names


def seed_dropout(model: Mistral, seeds: Sequence[int] | None) -> None:
    """Let the rows of the next forward and backward pass drop by these seeds; None: no dropout."""
    if model.lora is None or not model.lora.dropout:
        return
    low = None if seeds is None else torch.tensor([seed & 0xFFFFFFFF for seed in seeds])
    for number, module in enumerate(_adapted(model)):
        # Data, not a constant of the layer: each constant would be compiled again.
        module.seeds = (
            None if low is None else per_layer_seeds(low, number).to(module.weight.device)
        )


def _adapted(model: Mistral) -> Iterator[LoraLinear]:
    return (module for module in model.modules() if isinstance(module, LoraLinear))


class InitialAdapter:
    """A base with a fresh adapter: `WeightSource` of a model that went through `add_lora`.

    A is uniform within 1 / sqrt(in), as in PEFT, and follows from (seed, name) alone; B is zero, so
    that training starts from the base itself.
    """

    def __init__(self, base: WeightSource, model: Mistral, seed: int) -> None:
        self._base, self._seed = base, seed
        self._shapes = {name: p.shape for name, p in model.named_parameters() if ".lora_" in name}

    def read(self, name: str, rows: slice) -> Tensor:
        """Rows of one tensor."""
        if name not in self._shapes:
            return self._base.read(name, rows)
        shape = self._shapes[name]
        if ".lora_B." in name:
            return torch.zeros(shape)[rows]
        bound = shape[1] ** -0.5
        generator = seeded_generator(self._seed, name)
        return torch.empty(shape).uniform_(-bound, bound, generator=generator)[rows]
