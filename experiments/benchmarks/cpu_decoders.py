"""Decode steps on a CPU: decoder=cpu_onednn against decoder=plain, in one process.

    python -m experiments.benchmarks.cpu_decoders [rounds]

The shape is a Mistral-7B layer (hidden 4096, 32 query heads, 8 key heads, feed-forward 14336), two
of them, with 1,024 ids, so that the head hardly counts: in all 32 layers it is 2 % of the weights.
Both decoders read the same weights and take turns, one step each. Printed are milliseconds per
step, by the clock and in CPU time of the process, as the median over rounds of a round's median
step and as the least step, with the ratios plain / cpu_onednn.
"""

import platform
import statistics
import sys
import time

import torch

from inference.generation.engine import Engine
from model.config import ModelConfig
from model.transformer import Mistral

SHAPE = ModelConfig(
    vocab_size=1024,
    hidden_size=4096,
    intermediate_size=14336,
    num_hidden_layers=2,
    num_attention_heads=32,
    num_key_value_heads=8,
    head_dim=128,
    max_position_embeddings=32768,
    rms_norm_eps=1e-5,
    rope_theta=10000.0,
    sliding_window=4096,
    tie_word_embeddings=False,
)
PROMPT_TOKENS = 64
STEPS = 10
"""Of each decoder in one round."""


def drawn_model(dtype: torch.dtype) -> Mistral:
    """A network of small random weights, the same in every call."""
    with torch.device("meta"):
        model = Mistral(SHAPE)
    model.to(dtype).to_empty(device="cpu").requires_grad_(False)
    generator = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        parameter.normal_(0, 0.02, generator=generator)
    return model


def measure(dtype: torch.dtype, rows: int, rounds: int) -> None:
    """Print one row of the table."""
    model = drawn_model(dtype)
    engines = {name: Engine(model, decoder=name) for name in ("plain", "cpu_onednn")}
    prompts = torch.randint(SHAPE.vocab_size, (rows, PROMPT_TOKENS)).tolist()
    capacity = PROMPT_TOKENS + STEPS * (rounds + 1)
    caches = {name: engine.new_cache(rows, capacity) for name, engine in engines.items()}
    logits = {name: engine.prefill(prompts, caches[name]) for name, engine in engines.items()}
    wall: dict[str, list[list[float]]] = {name: [] for name in engines}
    cpu: dict[str, list[list[float]]] = {name: [] for name in engines}
    for number in range(rounds + 1):  # the first warms up and is not counted
        for name in engines:
            wall[name].append([])
            cpu[name].append([])
        for step in range(STEPS):
            ids = torch.full((rows,), step + number)
            for name, engine in engines.items():
                before, used = time.perf_counter(), time.process_time()
                logits[name] = engine.decode(ids, caches[name])
                wall[name][-1].append(time.perf_counter() - before)
                cpu[name][-1].append(time.process_time() - used)
    difference = (logits["plain"] - logits["cpu_onednn"]).abs().max() / logits["plain"].abs().max()
    cells = []
    for times in (wall, cpu):
        for summary in (_median, _least):
            plain, fast = (1000 * summary(times[name][1:]) for name in ("plain", "cpu_onednn"))
            cells.append(f"{plain:.1f} / {fast:.1f} = {plain / fast:.2f}")
    dtype_name = str(dtype).removeprefix("torch.")
    print(f"| {dtype_name} | {rows} | {' | '.join(cells)} | {float(difference):.0e} |", flush=True)


def _median(rounds: list[list[float]]) -> float:
    return statistics.median(statistics.median(steps) for steps in rounds)


def _least(rounds: list[list[float]]) -> float:
    return min(min(steps) for steps in rounds)


def main(rounds: int) -> None:
    """Print the table."""
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {platform.processor()}")
    print("| dtype | rows | clock, median | clock, least | CPU, median | CPU, least | difference |")
    print("|---|---|---|---|---|---|---|")
    for dtype in (torch.float32, torch.bfloat16):
        for rows in (1, 8):
            with torch.inference_mode():
                measure(dtype, rows, rounds)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 7)
