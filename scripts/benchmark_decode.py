"""Time greedy decoding against transformers' `generate`: same weights, prompts and process.

    python -m scripts.benchmark_decode                 # the table of docs/generation.md
    python -m scripts.benchmark_decode batch_sizes='[1]' dtypes='[bfloat16]' model=toy

The two sides take turns, `rounds` times, and each step of both is timed; a round's figure is the
median of its steps, a table's the median of the rounds. Without transformers only ours is timed.
"""

import json
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from typing import Any

import torch
from hydra.core.config_store import ConfigStore
from omegaconf import DictConfig, OmegaConf
from torch import Tensor

from conf.command import command
from model.config import ModelConfig
from model.generate import stream
from model.initial import InitialWeights
from model.runner import Runner
from model.sampling import SamplingConfig
from model.transformer import Mistral
from model.weights import fill
from scripts.benchmark import VocabularyConfig
from training.parallelize import DTYPES


@dataclass(kw_only=True)
class DecodeBenchmarkConfig:
    """What is decoded, and how often."""

    model: ModelConfig
    data: VocabularyConfig = field(default_factory=VocabularyConfig)
    optim: dict[str, Any] = field(default_factory=dict)
    """Not read: the model presets set a learning rate."""
    prompt_tokens: int = 1024
    new_tokens: int = 128
    batch_sizes: list[int] = field(default_factory=lambda: [1, 8])
    dtypes: list[str] = field(default_factory=lambda: ["float32", "bfloat16"])
    rounds: int = 3
    """Turns of each side."""
    pack: bool | None = None
    """See `model.runner.Runner`."""


Decoder = Callable[[], tuple[list[float], list[list[int]]]]
"""Seconds of each decode step, and the ids."""


def ours(runner: Runner, prompts: Tensor, new_tokens: int) -> Decoder:
    """This project's side."""
    config = SamplingConfig(max_new_tokens=new_tokens, temperature=0.0)

    def decode() -> tuple[list[float], list[list[int]]]:
        ids: list[list[int]] = [[] for _ in prompts]
        times = []
        for event in stream(runner, prompts.tolist(), config):
            ids[event.prompt].append(event.id)
            if event.prompt == 0:
                times.append(time.perf_counter())
        return [b - a for a, b in pairwise(times)], ids

    return decode


def theirs(model: Mistral, prompts: Tensor, new_tokens: int) -> Decoder | None:
    """transformers' side; None where it is not installed."""
    try:
        from transformers import MistralConfig, MistralForCausalLM
    except ImportError:
        return None
    shape = asdict(model.config)
    for name in ("model_type", "num_padded_ids", "num_base_ids"):
        del shape[name]
    shape["rope_parameters"] = {"rope_type": "default", "rope_theta": shape.pop("rope_theta")}
    shape |= {"bos_token_id": None, "eos_token_id": None}
    shape |= {"attn_implementation": "sdpa"}
    twin: Any = MistralForCausalLM(MistralConfig(**shape))
    twin.to(model.lm_head.weight.dtype).eval()
    twin.load_state_dict(model.state_dict())

    def decode() -> tuple[list[float], list[list[int]]]:
        times: list[float] = []

        def note(_ids: Tensor, scores: Tensor) -> Tensor:
            times.append(time.perf_counter())
            return scores

        options = {"max_new_tokens": new_tokens, "do_sample": False, "pad_token_id": 0}
        mask = torch.ones_like(prompts)
        with torch.inference_mode():
            out = twin.generate(prompts, attention_mask=mask, logits_processor=[note], **options)
        steps = [b - a for a, b in pairwise(times)]
        return steps, out[:, prompts.shape[1] :].tolist()

    return decode


def read_bandwidth(dtype: torch.dtype) -> float:
    """Bytes per second of summing half a GiB, the best of five."""
    x = torch.ones(2**29 // dtype.itemsize, dtype=dtype)
    seconds = []
    for _ in range(5):
        start = time.perf_counter()
        x.sum()
        seconds.append(time.perf_counter() - start)
    return x.nbytes / min(seconds)


def step_bytes(model: Mistral, rows: int, length: int) -> int:
    """What one step must read: all weights but the embedding, and the keys and values in sight."""
    config = model.config
    weights = config.num_matrix_weights * model.lm_head.weight.itemsize
    seen = min(length, config.sliding_window or length)
    per_key = 2 * config.num_hidden_layers * config.num_key_value_heads * config.head_size
    return weights + rows * seen * per_key * model.lm_head.weight.itemsize


def compare(config: DecodeBenchmarkConfig, model: Mistral, rows: int) -> dict[str, Any]:
    """One row of the table."""
    torch.manual_seed(0)
    prompts = torch.randint(config.model.num_tokens, (rows, config.prompt_tokens))
    runner = Runner(model, pack=config.pack)
    sides = {
        "ours": ours(runner, prompts, config.new_tokens),
        "transformers": theirs(model, prompts, config.new_tokens),
    }
    medians: dict[str, list[float]] = {name: [] for name in sides}
    ids = {}
    bandwidth = 0.0
    for _ in range(config.rounds):
        bandwidth = max(bandwidth, read_bandwidth(model.lm_head.weight.dtype))
        for name, decode in sides.items():
            if decode is not None:
                steps, ids[name] = decode()
                medians[name].append(statistics.median(steps))
    seconds = {name: statistics.median(found) for name, found in medians.items() if found}
    read = step_bytes(model, rows, config.prompt_tokens + config.new_tokens)
    row: dict[str, Any] = {
        "dtype": str(model.lm_head.weight.dtype).removeprefix("torch."),
        "batch": rows,
        "tokens_per_second": rows / seconds["ours"],
        "bandwidth_gb_s": bandwidth / 1e9,
        "share_of_bandwidth": read / seconds["ours"] / bandwidth,
        "rounds_ms": [round(1e3 * x, 2) for x in medians["ours"]],
    }
    if "transformers" in seconds:
        row["transformers_tokens_per_second"] = rows / seconds["transformers"]
        row["ratio"] = seconds["transformers"] / seconds["ours"]
        row["transformers_rounds_ms"] = [round(1e3 * x, 2) for x in medians["transformers"]]
        pairs = zip(ids["ours"], ids["transformers"], strict=True)
        row["same_answers"] = sum(one == two for one, two in pairs)
    return row


@command("benchmark_decode")
def main(composed: DictConfig) -> None:
    """Compose, time, print one JSON object per row."""
    config = OmegaConf.to_object(composed)
    assert isinstance(config, DecodeBenchmarkConfig)
    for dtype in config.dtypes:
        if dtype not in DTYPES:
            raise ValueError(f"dtypes: {dtype!r}; choose from {', '.join(DTYPES)}")
        model = Mistral(config.model)
        fill(model, InitialWeights(model, seed=0))
        model.to(DTYPES[dtype]).requires_grad_(False)
        for rows in config.batch_sizes:
            print(json.dumps(compare(config, model, rows)), flush=True)


if __name__ == "__main__":
    ConfigStore.instance().store(name="benchmark_decode_schema", node=DecodeBenchmarkConfig)
    main()
