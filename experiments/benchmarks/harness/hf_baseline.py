"""Baseline: the same work by transformers and PEFT, used as their documentation recommends."""

import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from experiments.benchmarks.harness.common import drawn, need, random_ids, timed
from experiments.benchmarks.harness.workloads import Decoding, Training
from model.config import ModelConfig
from model.device import DTYPES, choose_device
from training.optim import OptimConfig

_NOT_THEIRS = ("model_type", "num_padded_ids", "num_base_ids")
_LINEARS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


def network(shape: dict[str, Any], dtype: torch.dtype, device: torch.device) -> Any:
    """transformers' Mistral (sdpa) with the weights that our side draws."""
    need("transformers")
    from transformers import AutoModelForCausalLM, MistralConfig

    fields = {
        name: value for name, value in vars(ModelConfig(**shape)).items() if name not in _NOT_THEIRS
    }
    fields["rope_parameters"] = {"rope_type": "default", "rope_theta": fields.pop("rope_theta")}
    config = MistralConfig(**fields, bos_token_id=None, eos_token_id=None)
    with torch.device(device):
        # Not `.to(dtype)`, which would round the rotary frequencies too.
        model = AutoModelForCausalLM.from_config(config, dtype=dtype, attn_implementation="sdpa")
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(drawn(name, parameter.shape, device))
    return model


def train(
    work: Training, *, compile: bool
) -> tuple[Training, list[float], Tensor, torch.optim.Optimizer, list[Tensor], torch.device]:
    """Train with transformers; returns the arguments of `benchmarks.training.report`."""
    work = replace(work, rows=work.peer_rows or work.rows)
    need("transformers", *(["peft"] if work.lora_rank else []))
    if work.checkpointing == "selective":
        raise ValueError("transformers has no selective checkpointing; compare full or none")
    device, dtype = choose_device(work.device, 0), DTYPES[work.dtype]
    full_masters = work.masters and work.lora_rank is None
    model = network(work.shape, torch.float32 if full_masters else dtype, device)
    if work.checkpointing == "full":
        model.gradient_checkpointing_enable({"use_reentrant": False})
    if work.lora_rank is not None:
        model = _adapted(model, work.lora_rank, masters=work.masters)
    model.train()
    called: Callable[..., Any] = torch.compile(model) if compile else model
    optim = OptimConfig()
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=optim.lr, fused=True)
    tokens = random_ids(ModelConfig(**work.shape).num_tokens, work.rows, work.length, device)
    losses: list[Tensor] = []
    # With fp32 masters, automatic casts are transformers' own way to compute in 16 bits.
    casts = work.masters and dtype != torch.float32

    def step() -> None:
        with torch.autocast(device.type, dtype) if casts else nullcontext():
            loss = called(input_ids=tokens, labels=tokens, use_cache=False).loss
        losses.append(loss.detach())
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    seconds = timed(step, work.steps, device)
    frozen = [p for p in model.parameters() if not p.requires_grad]
    return work, seconds, losses[0], optimizer, frozen, device


def _adapted(model: Any, rank: int, *, masters: bool) -> Any:
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=list(_LINEARS))
    return get_peft_model(model, config, autocast_adapter_dtype=masters)


@torch.inference_mode()
def decode(
    work: Decoding, *, compile: bool
) -> tuple[Decoding, list[float], list[float], list[list[int]], Tensor]:
    """Generate with transformers; returns the arguments of `benchmarks.decoding.report`."""
    device = choose_device(work.device, 0)
    model = network(work.shape, DTYPES[work.dtype], device).eval()
    tokens = ModelConfig(**work.shape).num_tokens
    prompts = random_ids(tokens, work.rows, work.prompt_tokens, device)
    options: dict[str, Any] = {"max_new_tokens": work.new_tokens, "do_sample": False}
    options |= {"pad_token_id": 0, "attention_mask": torch.ones_like(prompts)}
    if compile:
        model.forward = torch.compile(model.forward)
        options["cache_implementation"] = "static"  # the one with fixed shapes
    prefills = timed(
        lambda: model(prompts, use_cache=True, logits_to_keep=1), work.prefills, device
    )
    times: list[float] = []

    def note(_ids: Tensor, scores: Tensor) -> Tensor:
        scores.sum().item()  # waits for the device: the id is known
        times.append(time.perf_counter())
        return scores

    if compile:
        model.generate(prompts, **options)  # compiles what the timed one calls
    out = model.generate(prompts, logits_processor=[note], **options)
    steps = [after - before for before, after in pairwise(times)]
    weight = model.lm_head.weight
    return work, prefills, steps, out[:, work.prompt_tokens :].tolist(), weight
