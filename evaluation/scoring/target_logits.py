"""Forward pass that computes logits only at the positions of its targets."""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn

from inference.generation.cache.prefix import Branches, Prefix, Tree
from model.loss import CHUNK_LOGITS
from model.transformer import Mistral


class TargetLogits:
    """Negative log-likelihoods of targets, computed in place of the logits of all positions.

    A forward pre-hook of the head, because sharded weights are complete only inside the forward.

    Args:
        before: (1, D), hidden state before the first token of the pass.
        rows: position that predicts each target: 0 is `before`, n + 1 is token n of the pass.
        targets: predicted ids.
        num_tokens: ids from this one on get no probability.

    Attributes:
        nats: of each target, in fp32 or better.
        greedy: each target is the most likely id.
        last: (1, D), hidden state of the last token of the pass.
    """

    def __init__(
        self, before: Tensor | None, rows: list[int], targets: list[int], num_tokens: int
    ) -> None:
        self.before, self.num_tokens = before, num_tokens
        self.rows, self.targets = torch.tensor([rows, targets], dtype=torch.int64)

    def __call__(self, head: nn.Module, inputs: tuple[Tensor]) -> tuple[Tensor]:
        """Score the targets; the head then computes one position."""
        hidden = inputs[0].flatten(0, 1)
        self.last = hidden[-1:].clone()
        before = torch.zeros_like(self.last) if self.before is None else self.before
        hidden = torch.cat([before, hidden])
        rows, targets = self.rows.to(hidden.device), self.targets.to(hidden.device)
        rows, place = rows.unique(return_inverse=True)
        exact = torch.promote_types(hidden.dtype, torch.float32)
        self.nats = torch.empty(len(targets), dtype=exact, device=hidden.device)
        self.greedy = torch.empty(len(targets), dtype=torch.bool, device=hidden.device)
        size = max(1, CHUNK_LOGITS // self.num_tokens)
        for first in range(0, len(rows), size):
            # `head(...)` would call this hook again.
            logits = head.forward(hidden[rows[first : first + size]])[:, : self.num_tokens]
            logits = logits.to(exact)
            chosen = ((place >= first) & (place < first + size)).nonzero().squeeze(1)
            at, ids = place[chosen] - first, targets[chosen]
            self.greedy[chosen] = logits.argmax(1)[at] == ids
            self.nats[chosen] = -logits.log_softmax(1)[at, ids]  # far faster than logsumexp on CPU
        return (inputs[0][:, :1],)


@torch.no_grad()
def run_pass(
    model: Mistral,
    tokens: Sequence[int],
    prefix: Prefix,
    trees: Sequence[Tree],
    reader: TargetLogits,
    *,
    extend: bool = False,
) -> Prefix:
    """Run one forward pass; returns the prefix, extended by the pass with `extend`."""
    device = model.lm_head.weight.device
    branches = Branches(model.config, prefix, trees, device, extend=extend)
    hook = model.lm_head.register_forward_pre_hook(reader)
    try:
        with _eager(model):
            model(torch.tensor([tokens], device=device), context=branches)
    finally:
        hook.remove()
    return branches.extended() if extend else prefix


@torch.no_grad()
def run_dummy_pass(model: Mistral) -> None:
    """Run a pass without result: other ranks need this rank's part of the sharded weights."""
    with _eager(model):
        model(torch.zeros(1, 1, dtype=torch.int64, device=model.lm_head.weight.device))


def _eager(model: Mistral) -> AbstractContextManager[object]:
    """Run compiled layers uncompiled: shapes differ per pass, and `Branches` cannot compile."""
    # The check comes first because importing the compiler takes seconds.
    if any(layer._compiled_call_impl is not None for layer in model.model.layers):
        return torch.compiler.set_stance("force_eager")
    return nullcontext()
