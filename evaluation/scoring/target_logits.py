"""One forward pass that is read where it is asked, in place of logits of all its positions."""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn

from inference.generation.cache.prefix import Branches, Prefix, Tree
from model.loss import CHUNK_LOGITS
from model.transformer import Mistral


class Reader:
    """Reads off negative log-likelihoods where the head would have made logits of all positions.

    That is inside the forward pass, for only there sharded weights are whole.

    Args:
        before: (1, D), the hidden state before the pass's first token.
        rows: where each target is predicted: 0 is `before`, n + 1 the pass's token n.
        targets: ids, as many.
        num_tokens: ids from here on get no probability.

    Attributes:
        nats: of each target, in fp32 or better.
        greedy: whether each target is the most likely id.
        last: (1, D), the hidden state of the pass's last token.
    """

    def __init__(
        self, before: Tensor | None, rows: list[int], targets: list[int], num_tokens: int
    ) -> None:
        self.before, self.num_tokens = before, num_tokens
        self.rows, self.targets = torch.tensor([rows, targets], dtype=torch.int64)

    def __call__(self, head: nn.Module, inputs: tuple[Tensor]) -> tuple[Tensor]:
        """A forward pre-hook of the head: leaves it one position to compute."""
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
            # Not `head(...)`, which would call this hook again.
            logits = head.forward(hidden[rows[first : first + size]])[:, : self.num_tokens]
            logits = logits.to(exact)
            chosen = ((place >= first) & (place < first + size)).nonzero().squeeze(1)
            at, ids = place[chosen] - first, targets[chosen]
            self.greedy[chosen] = logits.argmax(1)[at] == ids
            self.nats[chosen] = -logits.log_softmax(1)[at, ids]  # on CPU far faster than logsumexp
        return (inputs[0][:, :1],)


@torch.no_grad()
def run_pass(
    model: Mistral,
    tokens: Sequence[int],
    prefix: Prefix,
    trees: Sequence[Tree],
    reader: Reader,
    *,
    extend: bool = False,
) -> Prefix:
    """One forward pass; returns the prefix, longer by the pass if asked to extend it."""
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
def run_idly(model: Mistral) -> None:
    """A pass for the sake of the other ranks, which wait for this one's part of the weights."""
    with _eager(model):
        model(torch.zeros(1, 1, dtype=torch.int64, device=model.lm_head.weight.device))


def _eager(model: Mistral) -> AbstractContextManager[object]:
    """Let compiled layers run as they were: each pass has another shape, and `Branches` is not for
    a compiler."""
    # Asked first, for the compiler takes seconds to import.
    if any(layer._compiled_call_impl is not None for layer in model.model.layers):
        return torch.compiler.set_stance("force_eager")
    return nullcontext()
