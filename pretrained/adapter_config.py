"""PEFT's adapter_config.json of a LoRA adapter: what it asks for, or why that is not implemented.

The meaning of every key is that of `peft.LoraConfig` (PEFT 0.21). A key that changes what is
computed and is not implemented is refused by name, and so is an unknown key that is switched on.
"""

import json
import math
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

CONFIG = "adapter_config.json"
_TABLES = ("model.embed_tokens", "lm_head")

# Keys that change nothing that is computed from a trained adapter.
_HARMLESS = {
    *("auto_mapping", "inference_mode", "peft_type", "peft_version", "revision", "task_type"),
    # Options of how training begins; a start that changes the base is refused (`_STARTS`).
    *("corda_config", "eva_config", "loftq_config", "lora_ga_config"),
    *("velora_config", "monteclora_config"),  # they change what training computes, nothing else
    *("megatron_core", "qalora_group_size", "runtime_config"),  # of options that are refused
    "fan_in_fan_out",  # PEFT takes it as false for a linear, and an embedding has no such choice
}
_READ = {
    *("base_model_name_or_path", "r", "lora_alpha", "lora_dropout", "use_rslora", "use_dora"),
    *("rank_pattern", "alpha_pattern", "target_modules", "exclude_modules", "modules_to_save"),
    *("layers_to_transform", "layers_pattern", "ensure_weight_tying", "trainable_token_indices"),
    *("bias", "init_lora_weights"),
}
_REFUSED = {
    "alora_invocation_tokens": "the update is on for a part of the tokens only",
    "arrow_config": "several adapters are mixed for each token",
    "kasa_config": "the base is truncated before the update is added",
    "layer_replication": "the network has other layers than its base",
    "lora_bias": "the update has a bias, and the network has none",
    "megatron_config": "the tensors are those of Megatron's layers",
    "target_parameters": "parameters other than the weights of modules are adapted",
    "use_bdlora": "the factors are block-diagonal",
    "use_qalora": "the inputs are pooled for a quantized base",
}
# Ways to begin that leave the base as it is; others subtract from it what the factors begin with.
_STARTS = ("true", "false", "none", "gaussian", "eva", "orthogonal", "mica")
_CHANGING_STARTS = ("pissa", "olora", "corda", "loftq", "lora_ga")


@dataclass(frozen=True, kw_only=True)
class AdapterConfig:
    """The contents of an adapter_config.json, checked.

    Attributes:
        base: where the base model is, as the file names it; None if it does not.
        rank, alpha: of the updates, where no pattern names another.
        rank_pattern, alpha_pattern: regular expressions for the end of a module's name.
        dora: updates have a magnitude (Liu et al. 2024, DoRA).
        targets: names of modules or one regular expression; None: the file does not say.
        excluded: as `targets`, taken away from them.
        layers: the only numbers of layers whose modules are adapted; None: all.
        layers_pattern: names that can precede the number of a layer; empty: any.
        modules_to_save: the ends of names of modules that are trained whole.
        weight_tying: a tied head follows the embedding.
        token_rows: by the end of a module's name, the rows of its table that are trained.
    """

    base: str | None = None
    rank: int = 8
    alpha: float = 8.0
    dropout: float = 0.0
    rslora: bool = False
    dora: bool = False
    rank_pattern: dict[str, int] = field(default_factory=dict)
    alpha_pattern: dict[str, float] = field(default_factory=dict)
    targets: list[str] | str | None = None
    excluded: list[str] | str | None = None
    layers: list[int] | None = None
    layers_pattern: list[str] = field(default_factory=list)
    modules_to_save: list[str] = field(default_factory=list)
    weight_tying: bool = False
    token_rows: dict[str, list[int]] = field(default_factory=dict)

    def rank_of(self, module: str) -> int:
        """The rank of a module's update."""
        return self.rank_pattern.get(_pattern_of(self.rank_pattern, module), self.rank)

    def alpha_of(self, module: str) -> float:
        """The alpha of a module's update."""
        return self.alpha_pattern.get(_pattern_of(self.alpha_pattern, module), self.alpha)

    def scale_of(self, module: str) -> float:
        """Factor of the product B A of a module."""
        rank = self.rank_of(module)
        return self.alpha_of(module) / (math.sqrt(rank) if self.rslora else rank)

    def adapts(self, module: str) -> bool:
        """PEFT's rule for the modules that get an update (`check_target_module_exists`).

        With `weight_tying`, embedding and head get one where either is named.
        """
        modules = _TABLES if self.weight_tying and module in _TABLES else (module,)
        return any(map(self._adapts, modules))

    def _adapts(self, module: str) -> bool:
        if self.excluded and _named(self.excluded, module):
            return False
        if any(re.match(rf"(^|.*\.){name}($|\..*)", module) for name in self.modules_to_save):
            return False
        if self.targets is None:
            return True
        if isinstance(self.targets, str) or module in self.targets or self.layers is None:
            return _named(self.targets, module)
        return _named(self.targets, module) and self._layer(module) in self.layers

    def _layer(self, module: str) -> int | None:
        patterns = [rf"(?:^|.*?\.){name}\." for name in self.layers_pattern]
        for pattern in patterns or [r".*?\.[^.]*\."]:
            if found := re.match(rf"{pattern}(\d+)\.", module):
                return int(found[1])
        return None

    def saves(self, module: str) -> bool:
        """PEFT's rule for the modules that are trained whole."""
        return any(module.endswith(name) for name in self.modules_to_save)

    def rows_of(self, module: str) -> list[int] | None:
        """The rows of a module's table that are trained; None: it is not named."""
        for name, rows in self.token_rows.items():
            if module == name or module.endswith(f".{name}"):
                return rows
        return None


def _named(names: list[str] | str, module: str) -> bool:
    if isinstance(names, str):
        return re.fullmatch(names, module) is not None
    return module in names or any(module.endswith(f".{name}") for name in names)


def _pattern_of(patterns: dict[str, Any], module: str) -> str:
    """The first pattern that matches the end of a name (`get_pattern_key`); else the name."""
    matching = (key for key in patterns if re.match(rf"(.*\.)?({key})$", module))
    return next(matching, module)


def read_config(folder: Path) -> AdapterConfig:
    """Read the adapter_config.json of a folder.

    Raises:
        ValueError: there is none, it is damaged, or it asks for what is not implemented.
    """
    path = folder / CONFIG
    if not path.is_file():
        if named := named_adapters(folder):
            raise ValueError(_name_one(folder, named))
        raise ValueError(f"{folder}: no {CONFIG}; give the folder of an adapter")
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is not JSON ({error}); the file is damaged") from None
    if not isinstance(raw, dict):
        raise ValueError(f"{path} is not a JSON object; the file is damaged")
    _check_kind(path, raw)
    for key in sorted(raw.keys() - _HARMLESS - _READ):
        if _is_on(raw[key]):
            if key not in _REFUSED:
                raise ValueError(
                    f"{path}: {key}={raw[key]!r} is an unknown key; remove it if it does not "
                    "change the results, or merge the adapter with the PEFT that "
                    "wrote it (merge_and_unload) and give the merged folder"
                )
            raise ValueError(
                f"{path}: {key}={raw[key]!r} is not implemented ({_REFUSED[key]}); where PEFT can "
                "merge this kind (merge_and_unload), give the merged folder"
            )
    return _Reader(path, raw).config()


def is_adapter(folder: Path) -> bool:
    """Check if a folder is an adapter and not a model.

    Raises:
        ValueError: the folder is neither, and contains folders with adapters.
    """
    if (folder / CONFIG).is_file():
        return True
    if not (folder / "config.json").is_file() and (named := named_adapters(folder)):
        raise ValueError(_name_one(folder, named))
    return False


def _name_one(folder: Path, named: list[str]) -> str:
    return (
        f"{folder}: no {CONFIG}, but adapters in {', '.join(named)}; give one of these folders, "
        f"such as {folder / named[0]}"
    )


def named_adapters(folder: Path) -> list[str]:
    """Names of the folders in a folder that hold an adapter each, as PEFT saves several."""
    return sorted(path.parent.name for path in folder.glob(f"*/{CONFIG}"))


def _check_kind(path: Path, raw: dict[str, Any]) -> None:
    kind = raw.get("peft_type")
    if kind != "LORA":
        raise ValueError(
            f"{path}: peft_type={kind!r}; only LORA adapters are read. Where PEFT can merge this "
            "kind (merge_and_unload), give the merged folder"
        )
    start = raw.get("init_lora_weights", True)
    if str(start).lower() in _STARTS:
        return
    if str(start).lower().startswith(_CHANGING_STARTS):
        raise ValueError(
            f"{path}: init_lora_weights={start!r} changes the base when training begins, and this "
            "adapter belongs to the changed one, of which nothing is stored; convert it (PEFT: "
            "save_pretrained(..., path_initial_model_for_weight_conversion=<adapter at the "
            "start>)), or save the whole merged model"
        )
    raise ValueError(
        f"{path}: init_lora_weights={start!r} is not known here; set it to true if the base is not "
        "changed by it"
    )


def _is_on(value: object) -> bool:
    """Check if a value switches something on: null, false, 0 and empty values do not."""
    return value not in (None, False, 0, "", [], {})


class _Reader:
    """The fields of an adapter_config.json, each checked for its type."""

    def __init__(self, path: Path, raw: dict[str, Any]) -> None:
        self._path, self._raw = path, raw

    def config(self) -> AdapterConfig:
        # The network has no biases, whichever of them were trained.
        if self._raw.get("bias", "none") not in ("none", "all", "lora_only"):
            raise self._bad("bias", "one of none, all, lora_only")
        base = self._raw.get("base_model_name_or_path")
        return AdapterConfig(
            base=base if isinstance(base, str) and base else None,
            rank=self._rank("r", self._raw.get("r", 8)),
            alpha=self._number("lora_alpha", self._raw.get("lora_alpha", 8)),
            dropout=self._number("lora_dropout", self._raw.get("lora_dropout") or 0.0),
            rslora=self._flag("use_rslora"),
            dora=self._flag("use_dora"),
            rank_pattern=self._patterns("rank_pattern", self._rank),
            alpha_pattern=self._patterns("alpha_pattern", self._number),
            # PEFT's choice for Mistral and Llama where the file names none.
            targets=self._modules("target_modules")
            if self._raw.get("target_modules", "all-linear") is not None
            else ["q_proj", "v_proj"],
            excluded=self._modules("exclude_modules"),
            layers=self._layers(),
            layers_pattern=self._names("layers_pattern"),
            modules_to_save=self._names("modules_to_save"),
            weight_tying=self._flag("ensure_weight_tying"),
            token_rows=self._token_rows(),
        )

    def _bad(self, key: str, wanted: str) -> ValueError:
        return ValueError(f"{self._path}: {key}={self._raw.get(key)!r}: must be {wanted}")

    def _flag(self, key: str) -> bool:
        value = self._raw.get(key)
        if value not in (None, False, True):
            raise self._bad(key, "true or false")
        return bool(value)

    def _rank(self, key: str, value: Any) -> int:
        if type(value) is not int or value < 1:
            raise self._bad(key, "a rank from 1 on")
        return value

    def _number(self, key: str, value: Any) -> float:
        if type(value) not in (int, float) or not math.isfinite(value):
            raise self._bad(key, "a finite number")
        return float(value)

    def _patterns(self, key: str, read: Callable[[str, Any], Any]) -> dict[str, Any]:
        value = self._raw.get(key) or {}
        if not isinstance(value, dict):
            raise self._bad(key, "a mapping from names or patterns")
        for pattern in value:
            self._check_pattern(key, pattern)
        return {pattern: read(key, each) for pattern, each in value.items()}

    def _check_pattern(self, key: str, pattern: str) -> None:
        try:
            re.compile(pattern)
        except re.error as error:
            raise ValueError(
                f"{self._path}: {key}: {pattern!r} is not a valid regular expression: {error}"
            ) from None

    def _modules(self, key: str) -> list[str] | str | None:
        value = self._raw.get(key)
        if isinstance(value, str) and value != "all-linear":
            self._check_pattern(key, value)
            return value
        return None if value == "all-linear" else self._names(key) or None

    def _names(self, key: str) -> list[str]:
        value = self._raw.get(key)
        value = [value] if isinstance(value, str) else value or []
        if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
            raise self._bad(key, "names")
        return value

    def _layers(self) -> list[int] | None:
        value = self._raw.get("layers_to_transform")
        value = [value] if type(value) is int else value
        if value is None or value == []:
            return None
        if not isinstance(value, list) or not all(type(number) is int for number in value):
            raise self._bad("layers_to_transform", "numbers of layers")
        return value

    def _token_rows(self) -> dict[str, list[int]]:
        key = "trainable_token_indices"
        value = self._raw.get(key) or {}
        value = {"embed_tokens": value} if isinstance(value, list) else value
        if not isinstance(value, dict):
            raise self._bad(key, "ids, or names of tables with ids")
        for ids in value.values():
            if not isinstance(ids, list) or not all(type(id) is int and id >= 0 for id in ids):
                raise self._bad(key, "ids, or names of tables with ids")
        return value
