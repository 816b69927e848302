"""Adapters on disk, in PEFT's own format: adapter_config.json and adapter_model.safetensors.

PEFT's tensor names are ours behind a prefix. What PEFT can do and this network cannot (DoRA,
biases, ranks by layer, ...) is refused by name. The digest of the base lies in the safetensors
metadata, which other readers ignore, so that an adapter is not put on another base unnoticed.
"""

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from model.durable import new_folder
from model.lora import EMBEDDING, HEAD, SAVED_NAMES, LoraConfig, add_lora
from model.transformer import Mistral
from model.weights import PretrainedFolder, SavedTokenizer

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
PREFIX = "base_model.model."
BASE_DIGEST = "base_digest"

# Options of PEFT's LoraConfig that change what is computed, with the values that mean nothing.
_UNUSED: dict[str, tuple[Any, ...]] = {
    "bias": ("none",),
    "use_dora": (False, None),
    "use_qalora": (False, None),
    "lora_bias": (False, None),
    "fan_in_fan_out": (False, None),
    "rank_pattern": ({}, None),
    "alpha_pattern": ({}, None),
    "layer_replication": (None,),
    "trainable_token_indices": (None,),
    "target_parameters": (None, []),
    "alora_invocation_tokens": (None,),
    # Others change the base too, so that an adapter alone does not tell what it belongs to.
    "init_lora_weights": (True, False, None, "gaussian", "eva", "orthogonal"),
}


class AdapterFolder:
    """An adapter opened for reading; tensors stay on disk until they are read.

    Attributes:
        config: rank, scale and what is adapted, as `add_lora` takes it.
        base: where the folder says its base model is; None if it does not.
        base_digest: `PretrainedFolder.digest` of the base that it was trained on, where known.
        shapes: the shape of every tensor, by the name it has in the network.

    Raises:
        ValueError: a file is missing or damaged, or asks for what is not implemented.
    """

    def __init__(self, folder: Path | str) -> None:
        self.folder = Path(folder)
        raw = _read_config(self.folder)
        base = raw.get("base_model_name_or_path")
        self.base: str | None = base if isinstance(base, str) else None
        try:
            self._file: Any = safe_open(self.folder / WEIGHTS, framework="pt")
        except (SafetensorError, OSError) as error:
            raise ValueError(
                f"{self.folder / WEIGHTS}: {error}; the file is missing or damaged"
            ) from None
        self.base_digest: str | None = (self._file.metadata() or {}).get(BASE_DIGEST)
        self.shapes = {
            key.removeprefix(PREFIX): torch.Size(self._file.get_slice(key).get_shape())
            for key in self._file.keys()  # noqa: SIM118 it is no dict
        }
        self.config = self._read_lora(raw)

    def _read_lora(self, raw: dict[str, Any]) -> LoraConfig:
        """The configuration, with the targets that there are tensors for."""
        targets = sorted(
            name.removesuffix(".lora_A.weight")
            for name in self.shapes
            if name.endswith(".lora_A.weight")
        )
        saved = [name for name, tensor in SAVED_NAMES.items() if tensor in self.shapes]
        self._tied = tied = bool(raw.get("ensure_weight_tying")) and EMBEDDING in saved
        try:
            config = LoraConfig(
                rank=raw["r"],
                alpha=float(raw["lora_alpha"]),
                dropout=float(raw.get("lora_dropout", 0.0)),
                rslora=bool(raw.get("use_rslora", False)),
                targets=targets,
                modules_to_save=[name for name in saved if not (tied and name == HEAD)],
            )
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{self.folder / CONFIG}: {error!r}; the file is damaged") from None
        if tied:
            self.shapes.pop(SAVED_NAMES[HEAD], None)
        wanted = {f"{name}.lora_{x}.weight" for name in targets for x in "AB"}
        wanted |= {SAVED_NAMES[name] for name in config.modules_to_save}
        if any(name.startswith(f"{HEAD}.lora_") for name in self.shapes):
            raise ValueError(f"{self.folder} adapts lm_head, which only modules_to_save can train")
        if different := sorted(wanted ^ self.shapes.keys()):
            raise ValueError(
                f"{self.folder / WEIGHTS}: {different[0]} is missing or not what a linear's update "
                "consists of; the file is damaged, or adapts what is not a linear"
            )
        for name in targets:
            ranks = {
                self.shapes[f"{name}.lora_A.weight"][0],
                self.shapes[f"{name}.lora_B.weight"][1],
            }
            if ranks != {config.rank}:
                raise ValueError(
                    f"{self.folder}: {CONFIG} says r={config.rank}, the tensors of {name} have "
                    f"rank {', '.join(map(str, sorted(ranks)))}"
                )
        return config

    def read(self, name: str, rows: slice) -> Tensor:
        """Rows of one tensor; only they are read from disk."""
        return self._file.get_slice(PREFIX + name)[rows]

    def add_to(self, model: Mistral, dtype: torch.dtype = torch.float32) -> None:
        """`add_lora` with this adapter's configuration.

        Raises:
            ValueError: the model is not one that it can have been trained on.
        """
        if model.config.tie_word_embeddings and self.config.modules_to_save and not self._tied:
            raise ValueError(
                f"{self.folder} has trained embedding or head of a tied model apart "
                "(ensure_weight_tying is not set); no network of ours holds both"
            )
        try:
            add_lora(model, self.config, dtype)
        except ValueError as error:
            raise ValueError(f"{self.folder} was trained on another base: {error}") from None

    def check(self, model: Mistral, base: PretrainedFolder | None = None) -> None:
        """Compare with the model that went through `add_lora(model, self.config)`.

        Args:
            base: where the model's weights come from.

        Raises:
            ValueError: another base, or shapes that do not fit.
        """
        shapes = {name: parameter.shape for name, parameter in model.named_parameters()}
        wrong = [
            f"{name} has shape {tuple(shape)}, the base means {tuple(shapes[name])}"
            for name, shape in self.shapes.items()
            if shapes[name] != shape
        ]
        if wrong:
            raise ValueError(f"{self.folder} was trained on another base: " + "; ".join(wrong[:3]))
        if base is not None and self.base_digest not in (None, base.digest):
            raise ValueError(
                f"{self.folder} was trained on other weights than {base.folder} holds; name its "
                f"base ({self.base})"
            )


def load_adapter(model: Mistral, adapter: AdapterFolder, base: PretrainedFolder | None) -> None:
    """Put an adapter on a loaded model, unmerged, in the dtype and on the device of the model.

    Raises:
        ValueError: it does not fit.
    """
    weight = model.lm_head.weight
    dtype, device = weight.dtype, weight.device
    adapter.add_to(model, dtype)
    adapter.check(model, base)
    model.to(device=device, dtype=dtype).requires_grad_(False)
    parameters: Mapping[str, nn.Parameter] = dict(model.named_parameters())
    with torch.no_grad():
        for name in adapter.shapes:
            parameters[name].copy_(adapter.read(name, slice(None)))


def save_adapter(
    folder: Path | str,
    model: Mistral,
    tensors: Iterable[tuple[str, Tensor]],
    *,
    base: Path | str,
    base_digest: str,
    tokenizer: SavedTokenizer | None = None,
    files: Mapping[str, bytes] = MappingProxyType({}),
) -> None:
    """Write an adapter; the folder appears complete or not at all.

    Args:
        model: that went through `add_lora`.
        tensors: (name, tensor) of all `adapter_names`, whole and not sharded.
        base: folder of the base model, as PEFT will look for it.
        files: what else belongs into the folder, by name.

    Raises:
        ValueError: the folder exists.
    """
    state = {PREFIX + name: tensor.detach().cpu().contiguous() for name, tensor in tensors}
    if model.config.tie_word_embeddings and PREFIX + SAVED_NAMES[EMBEDDING] in state:
        # PEFT trains the two as one, and writes both.
        state[PREFIX + SAVED_NAMES[HEAD]] = state[PREFIX + SAVED_NAMES[EMBEDDING]].clone()
    with new_folder(folder) as partial:
        # One entry of metadata: safetensors writes several in an order that changes between runs.
        save_file(state, partial / WEIGHTS, metadata={BASE_DIGEST: base_digest})
        config = json.dumps(_peft_config(model, base), indent=2, sort_keys=True)
        (partial / CONFIG).write_text(config + "\n", encoding="utf-8")
        if tokenizer is not None:
            tokenizer.save(partial)
        for name, content in files.items():
            (partial / name).write_bytes(content)


def _peft_config(model: Mistral, base: Path | str) -> dict[str, Any]:
    lora = model.lora
    assert lora is not None
    adapted = [n.removesuffix(".lora_A") for n, _ in model.named_modules() if n.endswith(".lora_A")]
    adapted = [name.replace("_checkpoint_wrapped_module.", "") for name in adapted]
    return {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": str(base),
        "inference_mode": True,
        "r": lora.rank,
        "lora_alpha": lora.alpha,
        "lora_dropout": lora.dropout,
        "use_rslora": lora.rslora,
        "target_modules": _shortest(adapted, model.config.num_hidden_layers),
        "modules_to_save": lora.modules_to_save or None,
        "ensure_weight_tying": model.config.tie_word_embeddings and bool(lora.modules_to_save),
        "bias": "none",
        "fan_in_fan_out": False,
        "init_lora_weights": True,
    }


def _shortest(names: list[str], layers: int) -> list[str]:
    """Last parts of names where they stand for every layer, as servers expect them; else all."""
    leaves = Counter(name.rpartition(".")[2] for name in names)
    if all(count == layers for count in leaves.values()):
        return sorted(leaves)
    return names


def _read_config(folder: Path) -> dict[str, Any]:
    path = folder / CONFIG
    if not path.is_file():
        raise ValueError(f"{folder}: no {CONFIG}; give the folder of an adapter")
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is not JSON ({error}); the file is damaged") from None
    if not isinstance(raw, dict) or raw.get("peft_type") != "LORA":
        raise ValueError(f"{path}: peft_type is not LORA; only such adapters are read")
    for name, allowed in _UNUSED.items():
        if name in raw and raw[name] not in allowed:
            raise ValueError(f"{path}: {name}={raw[name]!r} is not supported")
    return raw
