"""Tiny networks, packed rows and transformers' twins of both, shared by the tests."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import Tensor, nn

from model.config import ModelConfig
from model.documents import Documents
from model.transformer import Mistral
from tests.helpers.sizes import THREADS

if TYPE_CHECKING:
    from transformers import PreTrainedModel

ROOT = Path(__file__).parents[2]

torch.set_num_threads(THREADS)


def toy_config(**changes: Any) -> ModelConfig:
    """Two layers, two query heads per key head, a window of 8 keys; any field can be changed."""
    shape: dict[str, Any] = {
        "vocab_size": 61,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "sliding_window": 8,
    }
    return ModelConfig(**(shape | changes))


def mistral_7b_config() -> ModelConfig:
    """The shape of Mistral-7B-v0.1, for what is counted and not computed."""
    return ModelConfig(
        vocab_size=32000,
        hidden_size=4096,
        intermediate_size=14336,
        num_hidden_layers=32,
        num_attention_heads=32,
        num_key_value_heads=8,
        sliding_window=4096,
    )


def toy_model(config: ModelConfig, *, backend: str = "banded", seed: int = 0) -> Mistral:
    """A network with weights so large that a wrong key or angle cannot hide."""
    model = Mistral(config, backend=backend)
    randomize(model, 0.3, seed)
    return model


@torch.no_grad()
def randomize(model: nn.Module, std: float, seed: int = 0) -> None:
    """Draw all weights from a normal distribution: matrices around 0, norms around 1."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        drawn = torch.randn(parameter.shape, generator=generator)
        parameter.copy_(drawn * std + (parameter.ndim == 1))


def random_tokens(config: ModelConfig, rows: int, length: int, seed: int = 0) -> Tensor:
    """Ids in (rows, length), padded ids left out."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(config.num_tokens, (rows, length), generator=generator)


def random_segments(rows: int, length: int, seed: int = 0, *, padding: bool = False) -> Tensor:
    """Segment numbers (rows, length): row r has about r + 1 documents, and a padded end if asked.

    At least one token of each row is real.
    """
    generator = torch.Generator().manual_seed(seed)
    segments = torch.ones(rows, length, dtype=torch.int32)
    for row in range(rows):
        for cut in torch.randint(1, length + 1, (row,), generator=generator).tolist():
            segments[row, cut:] += 1
        if padding:
            segments[row, torch.randint(1, length + 1, (), generator=generator) :] = 0
    return segments


def random_qkv(
    rows: int,
    length: int,
    heads: int = 4,
    key_heads: int = 2,
    width: int = 6,
    *,
    dtype: torch.dtype = torch.float64,
    seed: int = 0,
) -> list[Tensor]:
    """Query, key and value of one attention call."""
    generator = torch.Generator().manual_seed(seed)
    shapes = [(rows, length, n, width) for n in (heads, key_heads, key_heads)]
    return [torch.randn(shape, generator=generator, dtype=dtype) for shape in shapes]


def small_bands(patch: pytest.MonkeyPatch, block: int, alignment: int = 1) -> None:
    """Cut banded attention so small that toy rows cross the borders of blocks and bands."""
    patch.setattr("model.backends.banded.band_block", lambda dtype: block)
    patch.setattr("model.backends.banded.KEY_ALIGNMENT", alignment)


def spans(segments: Tensor) -> Iterator[tuple[int, slice]]:
    """(row, place) of each document, padding left out; read off one token at a time."""
    for row, numbers in enumerate(segments.tolist()):
        start = 0
        for i in range(1, len(numbers) + 1):
            if i == len(numbers) or numbers[i] != numbers[start]:
                if numbers[start]:
                    yield row, slice(start, i)
                start = i


def hf_twin(model: Mistral) -> "PreTrainedModel":
    """transformers' eager network with the same shape, weights and dtype."""
    # Imported here, for it takes seconds that tests in several processes should not wait.
    from transformers import AutoModelForCausalLM, LlamaConfig, MistralConfig

    shape = asdict(model.config)
    for name in ("model_type", "num_padded_ids", "num_base_ids"):
        del shape[name]
    shape["rope_parameters"] = {"rope_type": "default", "rope_theta": shape.pop("rope_theta")}
    if model.config.model_type == "mistral":
        config = MistralConfig(**shape)
    else:
        del shape["sliding_window"]
        config = LlamaConfig(**shape)
    # Not `.to(dtype)`, which would round the rotary frequencies too and handicap the twin.
    twin = AutoModelForCausalLM.from_config(
        config, dtype=model.lm_head.weight.dtype, attn_implementation="eager"
    )
    twin.load_state_dict(model.state_dict())
    return twin


def hf_logits(twin: nn.Module, tokens: Tensor, segments: Tensor | None = None) -> Tensor:
    """The twin's logits (B, T, V), each document alone; 0 in padding."""
    if segments is None:
        return twin(tokens, use_cache=False).logits
    rows: list[list[Tensor]] = [[] for _ in tokens]
    for row, place in spans(segments):
        rows[row].append(twin(tokens[row : row + 1, place], use_cache=False).logits[0])
    length = tokens.shape[1]
    return torch.stack(
        [nn.functional.pad(x := torch.cat(row), (0, 0, 0, length - len(x))) for row in rows]
    )


def documents_of(segments: Tensor | None) -> Documents | None:
    """What `Mistral.forward` takes: None stays None, one document per row."""
    return None if segments is None else Documents.from_segments(segments)


def run_without_hook(function: Callable[..., None], *arguments: object) -> str:
    """Call a test module's function in a fresh interpreter; return what it printed.

    For what torch.compile traces, since it cannot trace the shape checks that pytest installs, and
    for memory, which only a young process measures well. Arguments must survive `repr`.
    """
    name = function.__module__
    code = f"import {name} as module; module.{function.__name__}(*{arguments!r})"
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    return result.stdout
