"""Low-rank adaptation: W x + s B A x, with W frozen and A (R, in), B (out, R) trained.

Hu et al. 2021 (LoRA), section 4.1; scale s = alpha / R, or alpha / sqrt(R) (rsLoRA, Kalajdzievski
2023); B may learn faster than A (LoRA+, Hayou et al. 2024). `add_lora` replaces linears in place by
a subclass that keeps `<name>.weight`, so that names stay HF's and, but for a prefix, are PEFT's.
"""

import hashlib
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace

import torch
from torch import Tensor, nn

from model.lora_linear import LoraLinear, salted
from model.transformer import Mistral
from model.weights import WeightSource

EMBEDDING, HEAD = "embed_tokens", "lm_head"
SAVED_NAMES = {EMBEDDING: "model.embed_tokens.weight", HEAD: "lm_head.weight"}
_PLAIN_NAME = re.compile(r"[\w.]+")


@dataclass(kw_only=True)
class _Adaptation:
    """Targets and options of the adapter, without the size of the updates."""

    dropout: float = 0.0
    """Share of the inputs of A that training zeroes; the choice follows from (seed, row)."""
    rslora: bool = False
    """Scale by alpha / sqrt(rank), which keeps the size of updates equal at any rank."""
    targets: list[str] = field(default_factory=lambda: ["all"])
    """Linears of the layers to adapt: `all`; the end of a name (`q_proj`, `mlp.up_proj`); or a
    regular expression for the whole name (`.*layers\\.[0-3]\\..*_proj`)."""
    modules_to_save: list[str] = field(default_factory=list)
    """`embed_tokens`, `lm_head`: trained whole beside the updates and saved with them, as a grown
    vocabulary needs it."""
    lr_ratio: float = 1.0
    """Learning rate of B relative to that of A (LoRA+); 1 is plain LoRA."""

    def __post_init__(self) -> None:
        rank, alpha = getattr(self, "rank", None), getattr(self, "alpha", None)
        if rank is not None and rank < 1:
            raise ValueError(f"lora.rank={rank}: must be at least 1")
        for name, value in (("alpha", alpha), ("lr_ratio", self.lr_ratio)):
            if value is not None and not (math.isfinite(value) and value > 0):
                raise ValueError(f"lora.{name}={value}: must be positive and finite")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"lora.dropout={self.dropout}: must lie in [0, 1)")
        if not self.targets:
            raise ValueError("lora.targets: empty; name linears, or set lora=none")
        for name in self.modules_to_save:
            if name not in SAVED_NAMES:
                raise ValueError(
                    f"lora.modules_to_save: {name!r}; only {', '.join(SAVED_NAMES)} can be trained "
                    "whole (all else is a target)"
                )


@dataclass(kw_only=True)
class LoraConfig(_Adaptation):
    """Targets and options of the adapter."""

    rank: int
    """R: the rank of each update."""
    alpha: float
    """Scale of the updates: alpha / rank, or alpha / sqrt(rank) with `rslora`."""

    @property
    def scale(self) -> float:
        """What B A is multiplied with."""
        return self.alpha / (math.sqrt(self.rank) if self.rslora else self.rank)


@dataclass(kw_only=True)
class LoraOptions(_Adaptation):
    """Adapter options of a run; see `settle`."""

    rank: int | None = None
    """R: the rank of each update; null (lora=continued): that of the adapter that `init_from`
    names, with its alpha, rslora, targets and modules_to_save."""
    alpha: float | None = None
    """Scale of the updates: alpha / rank, or alpha / sqrt(rank) with `rslora`; null: see `rank`."""


def settle(asked: LoraOptions, adapter: LoraConfig | None, model: Mistral) -> LoraConfig:
    """The settings of a new adapter, or of one whose training continues: then the adapter decides,
    and what is asked for may not contradict. Dropout and lr_ratio are those asked for.

    Args:
        adapter: settings of the adapter that is continued.
        model: before `add_lora`.

    Raises:
        ValueError: no adapter whose rank could be taken, or another one than is asked for.
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
    if model.config.tie_word_embeddings and HEAD in config.modules_to_save:
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
        if isinstance(module, nn.Linear) and name != HEAD
    ]
    matched: set[str] = set()
    for target in targets:
        found = [name for name in linears if _matches(target, name)]
        if not found:
            leaves = sorted({name.rpartition(".")[2] for name in linears})
            advice = f"the linears of a layer are {', '.join(leaves)}"
            if target == HEAD:
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
        raise ValueError(f"lora.targets: {target!r} is no regular expression: {error}") from None


def adapter_names(model: Mistral) -> set[str] | None:
    """Names of the parameters that an adapter consists of; None for a model without one."""
    if model.lora is None:
        return None
    names = {SAVED_NAMES[name] for name in model.lora.modules_to_save}
    for name, module in model.named_modules():
        if isinstance(module, LoraLinear):
            clean = name.replace("_checkpoint_wrapped_module.", "")
            names |= {f"{clean}.lora_A.weight", f"{clean}.lora_B.weight"}
    return names


def seed_dropout(model: Mistral, seeds: Sequence[int] | None) -> None:
    """Let the rows of the next forward and backward pass drop by these seeds; None: no dropout."""
    if model.lora is None or not model.lora.dropout:
        return
    low = None if seeds is None else torch.tensor([seed & 0xFFFFFFFF for seed in seeds])
    for number, module in enumerate(_adapted(model)):
        # Data and not a constant of the layer, for each of which it would be compiled anew.
        module.seeds = None if low is None else salted(low, number).to(module.weight.device)


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
        digest = hashlib.sha256(f"{self._seed}/{name}".encode()).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(digest[:8], "big", signed=True))
        bound = shape[1] ** -0.5
        return torch.empty(shape).uniform_(-bound, bound, generator=generator)[rows]
