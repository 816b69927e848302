"""Small HF folders with the keys that real ones have, and transformers' answer to each.

Two layers of width 64, random weights, matrices large and norm weights away from 1, so that a wrong
window, scaling, bias or norm shows in the logits.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from pretrained.safetensors_folder import load_pretrained

SMALL: dict[str, Any] = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 97,
    "hidden_act": "silu",
    "initializer_range": 0.02,
    "rms_norm_eps": 1e-5,
    "tie_word_embeddings": False,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "use_cache": True,
    "transformers_version": "4.41.2",
}
MISTRAL = SMALL | {
    "model_type": "mistral",
    "architectures": ["MistralForCausalLM"],
    "attention_dropout": 0.0,
    "max_position_embeddings": 32768,
    "rope_theta": 10000.0,
    "sliding_window": 16,
    "torch_dtype": "float32",
}
LLAMA = SMALL | {
    "model_type": "llama",
    "architectures": ["LlamaForCausalLM"],
    "attention_bias": False,
    "mlp_bias": False,
    "max_position_embeddings": 4096,
    "pretraining_tp": 1,
    "rope_scaling": None,
    "torch_dtype": "float32",
}
FAMILIES = {"mistral": MISTRAL, "llama": LLAMA}
LENGTH = 40
"""Tokens that are compared: beyond two windows."""


def put_json(path: Path, value: object) -> None:
    """Write a JSON file."""
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False), encoding="utf-8")


def get_json(path: Path) -> Any:
    """Read a JSON file."""
    return json.loads(path.read_text(encoding="utf-8"))


def random_weights(raw: Mapping[str, Any], seed: int = 0) -> dict[str, Tensor]:
    """Tensors with the names and shapes that transformers gives to a config."""
    from transformers import AutoConfig, AutoModelForCausalLM

    shape = {k: v for k, v in raw.items() if k not in ("model_type", "architectures")}
    config = AutoConfig.for_model(raw["model_type"], **json.loads(json.dumps(shape)))
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    generator = torch.Generator().manual_seed(seed)
    tensors = {}
    for name, parameter in model.named_parameters():
        drawn = torch.randn(parameter.shape, generator=generator)
        large = 0.5 if "embed" in name else 0.15
        tensors[name] = drawn * large if drawn.ndim > 1 else 1 + 0.3 * drawn
    return tensors


def hf_folder(
    folder: Path,
    raw: Mapping[str, Any] = MISTRAL,
    *,
    tensors: Mapping[str, Tensor] | None = None,
    generation: Mapping[str, Any] | None = None,
    seed: int = 0,
) -> Path:
    """Write config.json, model.safetensors and, where given, generation_config.json."""
    folder.mkdir(parents=True, exist_ok=True)
    put_json(folder / "config.json", raw)
    tensors = random_weights(raw, seed) if tensors is None else tensors
    save_file(dict(tensors), folder / "model.safetensors", metadata={"format": "pt"})
    if generation is not None:
        put_json(folder / "generation_config.json", generation)
    return folder


def shard(folder: Path, tensors: Mapping[str, Tensor], files: int = 2) -> None:
    """Write tensors in several files with an index, as transformers splits them."""
    names = sorted(tensors)
    weight_map = {}
    for number in range(files):
        file = f"model-{number + 1:05d}-of-{files:05d}.safetensors"
        some = names[number::files]
        save_file({n: tensors[n] for n in some}, folder / file, metadata={"format": "pt"})
        weight_map |= dict.fromkeys(some, file)
    index = {"metadata": {"total_size": 0}, "weight_map": weight_map}
    put_json(folder / "model.safetensors.index.json", index)


def hf_model(folder: Path) -> Any:
    """The network that transformers opens, in fp32, with eager attention."""
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager"
    ).eval()


@torch.no_grad()
def apart(folder: Path, other: Path | None = None) -> float:
    """Largest difference between our logits of a folder and transformers' logits of the same or
    another one, as a share of the largest logit."""
    twin, ours = hf_model(other or folder), load_pretrained(folder)
    rows = ours.config.vocab_size
    ids = torch.randint(3, rows, (2, LENGTH), generator=torch.Generator().manual_seed(0))
    expected = twin(ids, use_cache=False).logits
    return float((ours(ids) - expected).abs().max() / expected.abs().max())


def is_equal(folder: Path, other: Path | None = None) -> bool:
    """True where the logits agree with transformers' to 1e-5 of the largest."""
    return apart(folder, other) <= 1e-5
