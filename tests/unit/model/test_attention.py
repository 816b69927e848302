"""Attention backends against the definition, against each other and against their kernels."""

import inspect
import math

import pytest
import torch
import torch.nn.functional as F
from torch.nn.attention import varlen

import model.attention
import model.backends.varlen
from model.attention import attention, describe_backend, prepare_documents, resolve_backend
from model.documents import Documents
from tests.helpers.toy import (
    random_qkv,
    random_segments,
    random_tokens,
    small_bands,
    toy_config,
    toy_model,
)

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


def attended(backend, segments, window):
    """The attention probabilities (B, T, T) of one head, read through values that are unit vectors.

    Written for every backend, including those whose only output is the mixed values.
    """
    rows, length = segments.shape
    query, key, _ = random_qkv(rows, length, 1, 1, length, dtype=torch.float32)
    unit = torch.eye(length).expand(rows, length, length).unsqueeze(2).contiguous()
    documents = prepare_documents(Documents.from_segments(segments), window, backend)
    return attention(query, key, unit, documents, window=window, backend=backend).squeeze(2)


def definition(segments, window):
    """What query i sees of key j, one pair at a time."""
    rows, length = segments.shape
    seen = torch.zeros(rows, length, length, dtype=torch.bool)
    for row, numbers in enumerate(segments.tolist()):
        for i in range(length):
            for j in range(i + 1):
                same = all(numbers[k] == numbers[i] for k in range(j, i))
                seen[row, i, j] = same and (window is None or i - j < window)
    return seen


def check_visible_keys(backend):
    length = 20
    for window in (None, 1, 2, 7, length - 1, length, length + 1):
        for segments in (
            torch.ones(1, length, dtype=torch.int32),
            random_segments(4, length, seed=1, padding=True),
        ):
            probabilities = attended(backend, segments, window)
            assert torch.equal(probabilities > 0, definition(segments, window))
            torch.testing.assert_close(probabilities.sum(-1), torch.ones(len(segments), length))


def check_last_visible_key(backend):
    """The key at distance W - 1 matters, the one at distance W does not."""
    window, length = 6, 31
    documents = Documents.whole_rows(1, length, CPU)
    documents = prepare_documents(documents, window, backend)
    query, key, value = random_qkv(1, length, width=8, dtype=torch.float32)
    before = attention(query, key, value, documents, window=window, backend=backend)
    for tensor in (key, value):
        kept = tensor[:, 10].clone()
        tensor[:, 10] += 1
        after = attention(query, key, value, documents, window=window, backend=backend)
        tensor[:, 10] = kept
        changed = (after != before).flatten(2).any(-1).squeeze(0)
        assert changed.nonzero().flatten().tolist() == list(range(10, 10 + window))


def check_window_of_one(backend):
    documents = prepare_documents(Documents.whole_rows(2, 9, CPU), 1, backend)
    query, key, value = random_qkv(2, 9, width=8, dtype=torch.float32)
    mixed = attention(query, key, value, documents, window=1, backend=backend)
    torch.testing.assert_close(mixed, value.repeat_interleave(2, 2))


PROBES = [check_visible_keys, check_last_visible_key, check_window_of_one]


@pytest.mark.parametrize("backend", ["banded", "reference"])
@pytest.mark.parametrize("probe", PROBES)
def test_window(monkeypatch, backend, probe):
    small_bands(monkeypatch, 7)
    probe(backend)


@pytest.mark.parametrize("backend", ["banded", "reference"])
def test_padding_stays_finite(backend):
    segments = torch.zeros(2, 12, dtype=torch.int32)
    segments[0, :5] = 1
    network = toy_model(toy_config(), backend=backend)
    tokens = random_tokens(network.config, 2, 12)
    logits = network(tokens, documents=Documents.from_segments(segments))
    logits.sum().backward()
    assert logits.isfinite().all()
    assert all(parameter.grad.isfinite().all() for parameter in network.parameters())


class Kernel:
    """Stands in for a CUDA kernel: insists on its contract, answers one document at a time."""

    def __init__(self, queries, keys, documents, **options):
        self.queries, self.keys, self.documents, self.options = queries, keys, documents, options
        self.calls = 0

    def __call__(self, query, key, value, *lengths, **options):
        starts, starts_k, longest, longest_k = lengths
        assert query.shape == self.queries
        assert key.shape == value.shape == self.keys
        assert starts is starts_k
        assert starts.dtype == torch.int32
        assert starts.device == query.device
        assert torch.equal(starts, self.documents.cu_seqlens)
        assert type(longest) is type(longest_k) is int
        assert longest == longest_k == starts.diff().max()
        assert options == self.options
        self.calls += 1
        left, _ = options["window_size"]
        pieces = zip(starts[:-1].tolist(), starts[1:].tolist(), strict=True)
        return torch.cat(
            [self.mix(*(x[a:b] for x in (query, key, value)), left) for a, b in pieces]
        )

    @staticmethod
    def mix(query, key, value, left):
        distance = torch.arange(len(query))[:, None] - torch.arange(len(query))
        seen = (distance >= 0) & ((distance <= left) | (left < 0))
        q, k, v = (x.transpose(0, 1)[None] for x in (query, key, value))
        mixed = F.scaled_dot_product_attention(q, k, v, seen, enable_gqa=True)
        return mixed[0].transpose(0, 1)


# (window, left side of the kernel's window) for documents of at most 19 tokens.
LEFT_SIDES = [(8, 7), (1, 0), (18, 17), (19, -1), (20, -1), (None, -1)]
ROWS, LENGTH = 3, 19


def flash_batch(window):
    """(network, the same by the reference, tokens, documents with one of 19 tokens)."""
    shape = toy_config(sliding_window=window)
    segments = random_segments(ROWS, LENGTH, padding=True)
    segments[0] = 1
    networks = [toy_model(shape, backend=backend) for backend in ("flash", "reference")]
    return *networks, random_tokens(shape, ROWS, LENGTH), Documents.from_segments(segments)


def check_against(kernel, network, reference, tokens, documents):
    ours, expected = (x(tokens, documents=documents) for x in (network, reference))
    torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-4)
    assert kernel.calls == network.config.num_hidden_layers


@pytest.mark.parametrize(("window", "left"), LEFT_SIDES)
def test_flash_attn_contract(monkeypatch, window, left):
    network, reference, tokens, documents = flash_batch(window)
    shapes = (ROWS * LENGTH, 4, 8), (ROWS * LENGTH, 2, 8)
    options = {"causal": True, "window_size": (left, 0), "deterministic": False}
    kernel = Kernel(*shapes, documents, **options)
    monkeypatch.setattr("model.attention.flash_attn_varlen_func", kernel)
    check_against(kernel, network, reference, tokens, documents)
    assert describe_backend("flash") == "flash (flash-attn)"


@pytest.mark.parametrize(("window", "left"), LEFT_SIDES)
@pytest.mark.parametrize("grouped", [True, False])
def test_torch_varlen_contract(monkeypatch, window, left, grouped):
    """PyTorch's kernel takes causality from a window whose right side is 0."""
    network, reference, tokens, documents = flash_batch(window)
    shapes = (ROWS * LENGTH, 4, 8), (ROWS * LENGTH, 2 if grouped else 4, 8)
    kernel = Kernel(*shapes, documents, window_size=(left, 0))
    monkeypatch.setattr("model.attention.flash_attn_varlen_func", None)
    monkeypatch.setattr("model.backends.varlen.HAS_GQA", grouped)
    monkeypatch.setattr("model.backends.varlen._attend", kernel)
    check_against(kernel, network, reference, tokens, documents)
    assert describe_backend("flash") == "flash (torch.nn.attention.varlen)"


def test_torch_varlen_has_the_signature_we_call():
    bound = inspect.signature(varlen.varlen_attn).bind(
        *("query", "key", "value", "cu_q", "cu_k", "max_q", "max_k"), window_size=(7, 0)
    )
    assert list(bound.arguments.values())[-1] == (7, 0)
    assert ("enable_gqa" in bound.signature.parameters) == model.backends.varlen.HAS_GQA
    grouped = getattr(model.backends.varlen._attend, "keywords", {}).get("enable_gqa", False)
    assert grouped == model.backends.varlen.HAS_GQA


@pytest.mark.parametrize(
    ("name", "device", "dtype", "head_dim", "chosen"),
    [
        ("auto", CUDA, torch.bfloat16, 128, "flash"),
        ("auto", CUDA, torch.float16, 256, "flash"),
        ("auto", CUDA, torch.float32, 128, "flex"),
        ("auto", CUDA, torch.bfloat16, 264, "flex"),
        ("auto", CUDA, torch.bfloat16, 12, "flex"),
        ("auto", CPU, torch.bfloat16, 128, "banded"),
        ("auto", torch.device("mps"), torch.float32, 64, "banded"),
        ("flash", CUDA, torch.bfloat16, 64, "flash"),
        ("flex", CUDA, torch.float32, 64, "flex"),
        ("banded", CUDA, torch.float32, 64, "banded"),
        ("banded", CPU, torch.float32, 64, "banded"),
        ("reference", CPU, torch.float64, 64, "reference"),
    ],
)
def test_backend_choice(name, device, dtype, head_dim, chosen):
    assert resolve_backend(name, device, dtype, head_dim) == chosen


@pytest.mark.parametrize(
    ("name", "device", "dtype", "head_dim", "message"),
    [
        ("sdpa", CPU, torch.float32, 64, "'sdpa'.*auto, flash, flash4, flex, banded, reference"),
        ("flash4", CPU, torch.bfloat16, 64, "flash4.*device=cpu.*banded"),
        ("flash4", CUDA, torch.bfloat16, 64, "flash4.*Hopper.*flash-attn-4"),
        ("flash", CPU, torch.bfloat16, 64, "flash.*device=cpu.*banded"),
        ("flash", CUDA, torch.float32, 64, "flash.*dtype=torch.float32"),
        ("flash", CUDA, torch.bfloat16, 12, "flash.*head width 12"),
        ("flash", CUDA, torch.bfloat16, 264, "flash.*head width 264"),
        ("flex", CPU, torch.float32, 64, "flex.*cpu.*banded"),
    ],
)
def test_backend_refused(name, device, dtype, head_dim, message):
    with pytest.raises(ValueError, match=message):
        resolve_backend(name, device, dtype, head_dim)


def test_scale_is_the_head_width():
    """Two keys whose scores differ by sqrt(E) / sqrt(E) = 1."""
    query, value = torch.full((1, 2, 1, 4), 1.0), torch.eye(2, 4).view(1, 2, 1, 4)
    key = torch.stack([torch.zeros(4), torch.full((4,), 0.5)]).view(1, 2, 1, 4)
    documents = Documents.whole_rows(1, 2, CPU)
    for backend in ("banded", "reference"):
        mixed = attention(query, key, value, documents, window=None, backend=backend)
        torch.testing.assert_close(mixed[0, 1, 0, 1].item(), 1 / (1 + math.exp(-1)))
