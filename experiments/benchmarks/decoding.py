"""Our side of greedy decoding, and the figures of either side."""

import hashlib
import json
import statistics
import time
from itertools import pairwise

import torch
from torch import Tensor

from experiments.benchmarks.harness.common import (
    DrawnWeights,
    dtype_names,
    peak_gib,
    random_ids,
    read_rate,
    timed,
)
from experiments.benchmarks.harness.workloads import Decoding
from inference.generation.engine import Engine
from inference.generation.generate import stream
from inference.generation.sampling import SamplingConfig
from model.attention import resolve_backend
from model.config import ModelConfig
from model.device import DTYPES, choose_device, keep_freed_memory
from model.transformer import Mistral
from model.weights import fill
from training.run.metrics import measure_peak_flops


def measure(work: Decoding, side: str) -> dict:
    """Tokens per second of reading the prompts and of each token after them."""
    if side.startswith("peer"):
        # Imported here, because our side does without transformers.
        from experiments.benchmarks.harness import hf_baseline

        return report(*hf_baseline.decode(work, compile=side == "peer_compile"))
    device, dtype = choose_device(work.device, 0), DTYPES[work.dtype]
    shape = ModelConfig(**work.shape)
    if device.type == "cpu":
        keep_freed_memory()  # as `pretrained.load` does
    with torch.device("meta"):
        model = Mistral(shape, backend=resolve_backend("auto", device, dtype, shape.head_size))
    weights = DrawnWeights(model, device)
    model.to(dtype).to_empty(device=device)
    model.tie_weights()
    with torch.no_grad():
        fill(model, weights)
    engine = Engine(model.requires_grad_(False))
    prompts = random_ids(shape.num_tokens, work.rows, work.prompt_tokens, device).tolist()
    capacity = work.prompt_tokens + work.new_tokens
    prefills = timed(
        lambda: engine.prefill(prompts, engine.new_cache(work.rows, capacity)),
        work.prefills,
        device,
    )
    config = SamplingConfig(max_new_tokens=work.new_tokens, temperature=0.0)
    ids: list[list[int]] = [[] for _ in prompts]
    times = []
    for event in stream(engine, prompts, config):
        ids[event.prompt].append(event.id)
        if event.prompt == 0:
            times.append(time.perf_counter())
    steps = [after - before for before, after in pairwise(times)]
    return report(work, prefills, steps, ids, model.lm_head.weight)


def report(
    work: Decoding, prefills: list[float], steps: list[float], ids: list[list[int]], weight: Tensor
) -> dict:
    """The figures of either side.

    Args:
        prefills, steps: seconds of each.
        ids: the answers.
        weight: one of the network's, for device and dtype.
    """
    peak = peak_gib(weight.device)  # before the machine's rates are measured
    matrix = measure_peak_flops(weight.device, weight.dtype)
    step = step_bytes(work, weight.itemsize)
    read = read_rate(weight.device, step)
    prompt_tokens = work.rows * work.prompt_tokens
    return {
        "figures": {
            "decode_tokens_per_second": work.rows / statistics.median(steps),
            "prefill_tokens_per_second": prompt_tokens / statistics.median(prefills),
            "peak_gib": peak,
        },
        "ceilings": {
            "decode_tokens_per_second": work.rows * read / step,
            "prefill_tokens_per_second": prompt_tokens * matrix / prefill_flops(work),
        },
        "machine": {"matrix_tflops": matrix / 1e12, "read_gb_per_second": read / 1e9},
        "precision": {"weights": dtype_names([weight])},
        "answers": [hashlib.sha256(json.dumps(row).encode()).hexdigest()[:16] for row in ids],
    }


def step_bytes(work: Decoding, itemsize: int) -> int:
    """Bytes that one step reads: all weights but the embedding, and the visible keys and values."""
    shape = ModelConfig(**work.shape)
    length = work.prompt_tokens + work.new_tokens
    seen = min(length, shape.sliding_window or length)
    per_key = 2 * shape.num_hidden_layers * shape.num_key_value_heads * shape.head_size
    return (shape.num_matrix_weights + work.rows * seen * per_key) * itemsize


def prefill_flops(work: Decoding) -> int:
    """FLOPs that the answer needs: of each layer the outputs that later ones look at, and the keys
    and values of what these look at, which are W - 1 tokens more."""
    shape = ModelConfig(**work.shape)
    length, width = work.prompt_tokens, shape.num_attention_heads * shape.head_size
    window = shape.sliding_window or length
    keys = 2 * shape.num_key_value_heads * shape.head_size * shape.hidden_size
    others = (2 * width + 3 * shape.intermediate_size) * shape.hidden_size
    total = 2 * shape.num_tokens * shape.hidden_size
    for layer in range(shape.num_hidden_layers):
        asked, seen = (
            min(length, (shape.num_hidden_layers - layer - more) * (window - 1) + 1)
            for more in (1, 0)
        )
        pairs = sum(min(place + 1, window) for place in range(length - asked, length))
        total += 2 * (asked * others + seen * keys) + 4 * width * pairs
    return work.rows * total
