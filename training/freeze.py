"""Frozen parameters and rows of a stage: no gradients for the former, no changes of the latter.

Parameters that do not train at all get no gradient, so nothing is computed, reduced or remembered
for them. Embedding and head train by rows, which the optimizer's groups name: `rows` is the range
of ids that may move. Gradients of the other rows are zeroed before clipping, and their values are
put back after the update, so that neither decay nor anything else an optimizer does to a whole
tensor can move them. Rows that stand for no token are never among those that move.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict

import torch
from torch import Tensor
from torch.distributed.fsdp import FSDPModule

from data.rows.curriculum import StagePlan
from model.config import ModelConfig
from model.lora.layer import LoraConfig
from model.transformer import Mistral
from training.parallelize import local_part, local_rows


def check_stages(
    stages: Sequence[StagePlan], shape: ModelConfig, lora: LoraConfig | None = None
) -> None:
    """Compare what stages train, and how fast, with the model.

    Raises:
        ValueError: it has no new rows, one tensor is asked to learn at two rates, or an adapter
            leaves nothing to train.
    """
    for stage in stages:
        key, multipliers = f"curriculum.stages.{stage.name}", stage.config.lr_multipliers
        if lora and stage.config.trains != "all" and not lora.modules_to_save:
            raise ValueError(
                f"{key}.trains={stage.config.trains}, but with lora embedding and head are frozen; "
                "add lora.modules_to_save=[embed_tokens,lm_head], or use trains=all"
            )
        if stage.config.trains == "new_rows" and shape.num_base_ids in (None, shape.num_tokens):
            raise ValueError(
                f"{key}.trains=new_rows, but model.num_base_ids={shape.num_base_ids} of "
                f"{shape.num_tokens} ids, so the vocabulary is not grown; start from a model whose "
                "vocabulary was grown (init_from), or use trains=embeddings"
            )
        if shape.tie_word_embeddings and multipliers.embeddings != multipliers.head:
            raise ValueError(
                f"{key}.lr_multipliers: {asdict(multipliers)}, but this model's head is its "
                "embedding; give embeddings and head the same"
            )


def freeze(model: Mistral, optimizer: torch.optim.Optimizer, trains: str) -> None:
    """Train the parameters that a stage trains and freeze all others.

    Args:
        trains: one of `data.rows.curriculum_config.TRAINS`.
    """
    first = model.config.num_base_ids if trains == "new_rows" else 0
    changed = False
    for group in optimizer.param_groups:
        by_rows = "rows" in group
        if by_rows:
            group["rows"] = (first, model.config.num_tokens)
        for parameter in group["params"]:
            changed |= parameter.requires_grad != (by_rows or trains == "all")
            parameter.requires_grad_(by_rows or trains == "all")
    if changed:
        _refresh_fsdp(model)


def _refresh_fsdp(model: Mistral) -> None:
    """Make FSDP read again which parameters have gradients.

    Its gathered copies follow `requires_grad` with each gathering, but in which dtype a block
    reduces gradients is settled when the block is set up, from those of its parameters that have
    any: a block that was frozen at setup would always reduce in the compute dtype. Gathering by
    hand sets the block up again.
    """
    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.unshard()
            module.reshard()


@torch.no_grad()
def zero_frozen_gradients(optimizer: torch.optim.Optimizer) -> None:
    """Zero the gradients of frozen rows."""
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            if "rows" in group and parameter.grad is not None:
                for part in _others(parameter.grad, group["rows"]):
                    part.zero_()


@contextmanager
def frozen_rows_held(optimizer: torch.optim.Optimizer) -> Iterator[None]:
    """Restore frozen rows after an update, bit for bit."""
    parts = [
        part
        for group in optimizer.param_groups
        for parameter in group["params"]
        if "rows" in group
        for part in _others(parameter.detach(), group["rows"])
    ]
    before = [part.clone() for part in parts]
    yield
    for part, values in zip(parts, before, strict=True):
        part.copy_(values)


def _others(tensor: Tensor, rows: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Views of what this rank keeps of the rows before and behind a range."""
    local = local_part(tensor)
    start = local_rows(tensor).start
    first, stop = (min(max(row - start, 0), len(local)) for row in rows)
    return local[:first], local[stop:]
