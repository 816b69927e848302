"""What flash-attn-4 is asked for, and that its operators are differentiable and traceable.

The package stands for itself as a dense reference with its signature and meaning of windows;
docs/results/performance.md has the kernels on hardware.
"""

import math
from types import SimpleNamespace

import pytest
import torch

from model.attention import describe_backend, resolve_backend
from model.backends import flash4
from model.backends.flash4 import runs_flash4
from model.documents import Documents
from model.transformer import Mistral
from tests.helpers.toy import random_tokens, randomize, toy_config
from training.distributed import deterministic_algorithms

CUDA = torch.device("cuda")


def scores_of(query, key, cu_seqlens, causal, left, right):
    """Their definition, (H, T, T): with neither side, `causal` decides; else key j of query i has
    i - left <= j <= i + right."""
    length = len(query)
    i, j = torch.arange(length)[:, None], torch.arange(length)[None]
    document = torch.bucketize(torch.arange(length), cu_seqlens[1:].long(), right=True)
    seen = document[:, None] == document[None]
    if left is None and right is None:
        assert causal
        seen &= j <= i
    else:
        seen &= (i - j <= left) & (j - i <= right)
    scores = query.transpose(0, 1) @ key.permute(1, 2, 0) / math.sqrt(query.shape[-1])
    return scores.masked_fill(~seen, -math.inf)


def spread(x, heads):
    """(T, K, E) -> (T, H, E)."""
    return x.repeat_interleave(heads // x.shape[1], 1)


class Package:
    """Its two entry points."""

    def __init__(self):
        self.asked, self.deterministic = [], []

    def _flash_attn_fwd(self, query, key, value, *, return_lse, **options):
        assert return_lse
        self.asked.append(self._check(options))
        sides = (options["window_size_left"], options["window_size_right"])
        k, v = (spread(x, query.shape[1]) for x in (key, value))
        scores = scores_of(query, k, options["cu_seqlens_q"], options["causal"], *sides)
        out = (scores.softmax(-1) @ v.transpose(0, 1)).transpose(0, 1)
        return out.contiguous(), scores.logsumexp(-1), None, None, None

    def _flash_attn_bwd(
        self, query, key, value, out, grad, sums, scale, causal, softcap, **options
    ):
        assert scale is None
        assert softcap == 0.0
        assert grad.is_contiguous()
        self.deterministic.append(options["deterministic"])
        self._check(options)
        sides = (options["window_size_left"], options["window_size_right"])
        heads, key_heads = query.shape[1], key.shape[1]
        k, v = (spread(x, heads) for x in (key, value))
        shares = (
            scores_of(query, k, options["cu_seqlens_q"], causal, *sides) - sums[..., None]
        ).exp()
        q, k, v, o, g = (x.transpose(0, 1) for x in (query, k, v, out, grad))  # (H, T, E)
        slopes = shares * (g @ v.mT - (g * o).sum(-1, keepdim=True)) / math.sqrt(q.shape[-1])
        shared = (
            x.unflatten(0, (key_heads, -1)).sum(1).transpose(0, 1)
            for x in (slopes.mT @ q, shares.mT @ g)
        )
        return ((slopes @ k).transpose(0, 1), *shared)

    @staticmethod
    def _check(options):
        assert options["cu_seqlens_q"] is options["cu_seqlens_k"]
        assert options["max_seqlen_q"] == options["max_seqlen_k"]
        return options["max_seqlen_q"], options["window_size_left"], options["window_size_right"]


@pytest.fixture
def package(monkeypatch):
    package = Package()
    monkeypatch.setattr(flash4, "_package", lambda: package)
    return package


def batch():
    segments = torch.ones(2, 24, dtype=torch.int32)
    segments[0, 5:] = 2
    segments[0, 21:] = 3
    return Documents.from_segments(segments)


def results(model, tokens, documents):
    model.zero_grad()
    losses = model(tokens, documents=documents, labels=tokens.roll(-1, 1))
    losses.total.backward()
    return [losses.rows, *(p.grad.clone() for p in model.parameters())]


# Windows beyond the longest document are left out.
@pytest.mark.parametrize(
    ("window", "sides"), [(1, (0, 0)), (7, (6, 0)), (24, (None, None)), (None, (None, None))]
)
def test_a_network_asks_for_what_it_means(package, window, sides):
    config, tokens = toy_config(sliding_window=window), random_tokens(toy_config(), 2, 24)
    found = []
    for backend in ("flash4", "reference"):
        model = Mistral(config, backend=backend)
        randomize(model, 0.3, 0)
        found.append(results(model, tokens, batch()))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)
    assert package.asked == [(24, *sides)] * config.num_hidden_layers


def test_the_backward_pass_adds_in_a_fixed_order_where_that_is_asked_for(package):
    model = Mistral(toy_config(num_hidden_layers=1), backend="flash4")
    randomize(model, 0.3, 0)
    for wanted in (True, False):
        with deterministic_algorithms(wanted):
            results(model, random_tokens(toy_config(), 2, 24), batch())
    assert package.deterministic == [True, False]


@pytest.mark.parametrize("window", [0, 5])
def test_its_operators_are_what_compilers_ask_for(package, window):
    """Shapes without values, gradients, nothing changed in place, with fixed and dynamic shapes."""
    documents = batch()
    generator = torch.Generator().manual_seed(0)
    tensors = [torch.randn(48, n, 8, generator=generator).requires_grad_() for n in (4, 2, 2)]
    torch.library.opcheck(flash4._flash4, (*tensors, documents.cu_seqlens, 24, window))
    assert len(package.asked) > 1


@pytest.mark.parametrize(
    ("installed", "capability", "width", "runs", "chosen"),
    [
        (True, (9, 0), 128, True, True),
        (True, (9, 0), 32, True, False),
        (True, (10, 0), 128, True, False),
        (True, (12, 0), 128, False, False),
        (True, (8, 0), 128, False, False),
        (False, (9, 0), 128, False, False),
    ],
)
def test_it_is_chosen_where_it_was_measured(
    monkeypatch, installed, capability, width, runs, chosen
):
    monkeypatch.setattr(flash4, "find_spec", lambda name: SimpleNamespace() if installed else None)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    runs_flash4.cache_clear()
    name = resolve_backend("auto", CUDA, torch.bfloat16, width)
    assert name == ("flash4" if chosen else "flash")
    if runs:
        asked = resolve_backend("flash4", CUDA, torch.bfloat16, width)
        assert describe_backend(asked) == "flash4 (flash-attn-4)"
    else:
        with pytest.raises(ValueError, match="needs a Hopper or a data-center Blackwell"):
            resolve_backend("flash4", CUDA, torch.bfloat16, width)
    runs_flash4.cache_clear()


def test_without_any_flash_attn(monkeypatch):
    def missing(name):
        raise ModuleNotFoundError(name)

    monkeypatch.setattr(flash4, "find_spec", missing)
    runs_flash4.cache_clear()
    assert not runs_flash4(CUDA)
    runs_flash4.cache_clear()
