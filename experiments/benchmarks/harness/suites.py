"""The suites: which measurements, in which order, of which sides, against which goals."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from omegaconf import OmegaConf

from conf.suggest import CONF
from experiments.benchmarks.harness.workloads import (
    Attention,
    Decoding,
    Kernel,
    Loss,
    Rows,
    Saving,
    Tokenizing,
    Training,
    Work,
)

TRAINING_SIDES = ("ours", "peer", "ours_compile", "peer_compile")
COMPILED_SIDES = ("ours_compile", "peer")
BOTH_COMPILED = ("ours_compile", "peer_compile")
DECODING_SIDES = ("ours", "peer", "peer_compile")
KERNEL_SIDES = ("ours", "eager", "compile", "liger")
ATTENTION_SIDES = ("flash4", "flash", "varlen", "flex", "banded")
DENSE = 8192
LORA_GOAL = {"tokens_per_second": 1.4}
OPERATIONS = ("add_rms_norm", "rope", "swiglu", "lora_swiglu", "linear_cross_entropy")
TINY = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "sliding_window": 8,
}


@dataclass(frozen=True)
class Part:
    """One row or a few of the table.

    Attributes:
        sides: in the order they are measured, again and again; the first is compared with each
            other one.
        goals: of the first side's figure divided by the peer's; at most for memory and time, at
            least for all else.
    """

    name: str
    work: Work
    sides: tuple[str, ...]
    goals: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Suite:
    """Parts, and how often each side of each is measured unless asked otherwise."""

    parts: Callable[[], list[Part]]
    rounds: int


def shape_of(model: str, window: int, ids: int = 32000) -> dict[str, Any]:
    """A network of conf/model with another window: fields of `ModelConfig`."""
    preset = OmegaConf.load(CONF / "model" / f"{model}.yaml")
    whole = OmegaConf.create({"model": preset.model, "data": {"vocab_size": ids}})
    resolved = OmegaConf.to_container(whole, resolve=True)
    assert isinstance(resolved, dict)
    return {**resolved["model"], "sliding_window": window}


def cpu_parts() -> list[Part]:
    """Parts of the suite for a laptop."""
    short = {"shape": shape_of("small", 256), "rows": 4, "length": 1024}
    long = {"shape": shape_of("small", 512), "rows": 1, "length": 8192, "steps": 2}
    lean = {"tokens_per_second": 2.5, "peak_gib": 0.6}
    goals: list[tuple[str, dict[str, Any], dict[str, float]]] = [
        ("train_1024_float32", short | {"dtype": "float32"}, {"tokens_per_second": 1.3}),
        ("train_1024_bfloat16", short | {"dtype": "bfloat16"}, {"tokens_per_second": 1.5}),
        ("train_1024_bfloat16_masters", short | {"dtype": "bfloat16", "masters": True}, {}),
        ("train_8192_float32", long | {"dtype": "float32"}, lean),
        ("train_8192_bfloat16", long | {"dtype": "bfloat16"}, lean | {"tokens_per_second": 4.0}),
        ("lora_1024_float32", short | {"dtype": "float32", "lora_rank": 8}, LORA_GOAL),
        ("lora_1024_bfloat16", short | {"dtype": "bfloat16", "lora_rank": 8}, LORA_GOAL),
    ]
    parts = [Part(name, Training(**work), TRAINING_SIDES, goal) for name, work, goal in goals]
    for dtype in ("float32", "bfloat16"):
        for rows, goal in ((1, 2.0), (8, 2.5)):
            work = Decoding(
                shape=shape_of("small", 256),
                rows=rows,
                prompt_tokens=1024,
                new_tokens=128,
                dtype=dtype,
            )
            figures = {"decode_tokens_per_second": goal, "prefill_tokens_per_second": 1.5}
            parts.append(Part(f"decode_{rows}_{dtype}", work, DECODING_SIDES, figures))
    head: dict[str, Any] = {"ids": 65536, "width": 1024, "tokens": 2048, "supervised": 2048}
    # Chunks come one after the other: a few of them show the memory of all.
    large: dict[str, Any] = {"ids": 65536, "width": 4096, "tokens": 16384, "supervised": 1024}
    return [
        *parts,
        Part("loss_float32", Loss(**head, dtype="float32"), ("ours", "plain")),
        Part("loss_bfloat16", Loss(**head, dtype="bfloat16"), ("ours", "plain")),
        # Plain would hold every logit of 16,384 tokens several times: 12 GiB and more.
        Part("loss_16384_bfloat16", Loss(**large, dtype="bfloat16", times=1), ("ours",)),
        Part("rows", Rows(documents=50_000, length=1024, rows=10_000), ("ours",)),
        Part("tokenizing", Tokenizing(scale=1.0), ("ours", "peer")),
        Part("saving", Saving(shape=shape_of("small", 256)), ("ours",)),
    ]


def gpu_parts() -> list[Part]:
    """Parts of the suite for one GPU, all at Mistral-7B's shape."""
    shape = shape_of("mistral_7b", 4096)
    compiled = large_step(LARGE["full_4096"], shape, device="cuda")
    return [
        *large_training(shape, LARGE, device="cuda"),
        *(
            Part(
                f"decode_{rows}",
                Decoding(
                    shape=shape,
                    rows=rows,
                    prompt_tokens=1024,
                    new_tokens=64,
                    dtype="bfloat16",
                    device="cuda",
                ),
                ("ours", "peer"),
            )
            for rows in (1, 64)
        ),
        Part(
            "loss_16384",
            Loss(
                tokens=16384, supervised=16384, ids=65536, width=4096, dtype="bfloat16",
                device="cuda",
            ),
            ("ours", "plain"),
        ),
        *kernels(tokens=32768, width=4096, feed_forward=14336, ids=65536, device="cuda"),
        *attentions((4096, 8192, 16384, 32768), window=4096, head_size=128, device="cuda"),
        # Last, for compiling all layers of the peer at once takes longest.
        Part("full_4096_compiled", compiled, BOTH_COMPILED),
    ]  # fmt: skip


LORA = {"lora_rank": 8, "masters": True}
LARGE: dict[str, dict[str, Any]] = {
    "full_4096": {"length": 4096, "rows": 4, "peer_rows": 2},
    "full_8192": {"length": 8192, "rows": 2, "peer_rows": 1},
    "full_32768_alone": {
        "length": 32768, "rows": 1, "checkpointing": "full", "checkpointed_layers": 3,
        "other_layers": "selective",
    },
    "full_8192_masters_alone": {"length": 8192, "rows": 1, "masters": True},
    "full_8192_rounded_alone": {
        "length": 8192, "rows": 2, "masters": True, "rounded_moments": True
    },
    "lora_4096": {"length": 4096, "rows": 8, "peer_rows": 2, **LORA},
    "lora_8192_alone": {"length": 8192, "rows": 4, **LORA},
    "lora_32768_alone": {"length": 32768, "rows": 1, **LORA},
    "lora_4096_checkpointed_alone": {
        "length": 4096, "rows": 1, "checkpointing": "full", **LORA
    },
}  # fmt: skip
"""Steps of Mistral-7B's shape, in as many rows as fit 139 GiB and with as little recomputation: all
weights in bfloat16, with fp32 masters, and with these and moments in 16 bits; LoRA with fp32
adapters, and in as little memory as it takes. `alone`: without a peer, which has no room, nothing
like it, or no time in ten minutes."""


def large_training(
    shape: dict[str, Any], steps: dict[str, dict[str, Any]], *, device: str
) -> Iterator[Part]:
    """Compiled steps, at the two shorter lengths with the peer's, where it can do the same."""
    for name, step in steps.items():
        sides = COMPILED_SIDES[:1] if "alone" in name else COMPILED_SIDES
        yield Part(name, large_step(step, shape, device=device), sides)


def large_step(step: dict[str, Any], shape: dict[str, Any], *, device: str) -> Training:
    """One of `LARGE`."""
    return Training(shape=shape, dtype="bfloat16", steps=3, device=device, **step)


def kernels(
    *, tokens: int, width: int, feed_forward: int, ids: int, device: str, **sizes: Any
) -> Iterator[Part]:
    """Every operation that has a Triton kernel."""
    heads = {"heads": 32, "key_heads": 8, "dtype": "bfloat16"} | sizes
    for operation in OPERATIONS:
        # A product with 65,536 rows takes long enough; the others must outlast their launches.
        work = Kernel(
            operation=operation,
            tokens=tokens if operation != "linear_cross_entropy" else -(-tokens // 4),
            width=width,
            feed_forward=feed_forward,
            ids=ids,
            device=device,
            **heads,
        )
        sides = KERNEL_SIDES[:-1] if operation == "lora_swiglu" else KERNEL_SIDES  # Liger has none
        yield Part(f"kernel_{operation}", work, sides)


def attentions(
    lengths: tuple[int, ...], *, window: int, head_size: int, device: str, **sizes: Any
) -> Iterator[Part]:
    """All backends on one row, whole and packed."""
    heads = {"heads": 32, "key_heads": 8, "dtype": "bfloat16"} | sizes
    for length in lengths:
        for packed in (False, True):
            work = Attention(
                length=length,
                packed=packed,
                window=window,
                head_size=head_size,
                device=device,
                **heads,
            )
            name = f"attention_{length}{'_packed' if packed else ''}"
            # A dense mask has T^2 entries, for all heads as numbers.
            dense = ("sdpa",) if length <= DENSE else ()
            yield Part(name, work, (*ATTENTION_SIDES, *dense))


SMALL: dict[str, dict[str, Any]] = {
    "full_32": {"length": 32, "rows": 1},
    "full_32_checkpointed_alone": {
        "length": 32, "rows": 1, "checkpointing": "full", "checkpointed_layers": 1,
        "other_layers": "selective",
    },
    "lora_32": {"length": 32, "rows": 1, **LORA},
}  # fmt: skip


def toy_parts() -> list[Part]:
    """All kinds of work of both other suites at sizes that say nothing about speed."""
    train: dict[str, Any] = {"shape": TINY, "rows": 2, "length": 32, "steps": 2}
    prompts: dict[str, Any] = {"shape": TINY, "prompt_tokens": 12, "new_tokens": 6}
    heads: dict[str, Any] = {"heads": 4, "key_heads": 2, "dtype": "float32", "times": 2}
    head = Loss(tokens=64, supervised=64, ids=128, width=16, dtype="float32", times=2)
    copies = {"bandwidth_bytes": 1 << 16}
    return [
        Part("train_32_float32", Training(**train, dtype="float32"), ("ours", "peer")),
        Part("train_32_bfloat16", Training(**train, dtype="bfloat16"), ("ours", "peer")),
        *large_training(TINY, SMALL, device="cpu"),
        Part("full_32_compiled", large_step(SMALL["full_32"], TINY, device="cpu"), BOTH_COMPILED),
        Part("decode_2_float32", Decoding(**prompts, rows=2, dtype="float32"), ("ours", "peer")),
        Part("loss_64", head, ("ours", "plain")),
        Part("rows", Rows(documents=2000, length=64, rows=50, **copies), ("ours",)),
        Part("tokenizing", Tokenizing(scale=0.05, times=1, **copies), ("ours", "peer")),
        Part("saving", Saving(shape=TINY), ("ours",)),
        *kernels(tokens=8, width=16, feed_forward=24, ids=40, device="cpu", **heads, **copies),
        *attentions((48,), window=16, head_size=8, device="cpu", **heads),
    ]


SUITES = {
    "cpu": Suite(cpu_parts, rounds=3),
    "gpu": Suite(gpu_parts, rounds=1),
    "toy": Suite(toy_parts, rounds=1),
}


def chosen_parts(suite: str, only: list[str]) -> list[Part]:
    """The parts of a suite, or some of them, in its order.

    Raises:
        ValueError: the suite or the part does not exist.
    """
    if suite not in SUITES:
        raise ValueError(f"suite={suite!r}: one of {', '.join(SUITES)}")
    parts = SUITES[suite].parts()
    known = [part.name for part in parts]
    if unknown := [name for name in only if name not in known]:
        raise ValueError(
            f"only: no part {', '.join(unknown)} in {suite}; it has {', '.join(known)}"
        )
    return [part for part in parts if not only or part.name in only]
