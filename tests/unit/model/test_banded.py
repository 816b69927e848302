"""The banded operator is the reference, its gradients are derivatives, compilers may trust it."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from model.attention import attention
from model.backends.banded import banded_attention, banded_attention_backward
from model.documents import Documents
from tests.helpers.draws import examples
from tests.helpers.toy import random_qkv, random_segments, small_bands


@examples(60)
@given(
    length=st.integers(1, 40),
    window=st.none() | st.integers(1, 45),
    block=st.integers(1, 45),
    alignment=st.integers(1, 9),
    heads=st.sampled_from([(1, 1), (2, 1), (4, 2), (3, 3), (6, 2)]),
    rows=st.integers(1, 4),
    padding=st.booleans(),
    masked=st.sampled_from([1, 500, 1 << 21]),
    seed=st.integers(0, 2**20),
)
def test_banded_is_the_reference(
    length, window, block, alignment, heads, rows, padding, masked, seed
):
    segments = random_segments(rows, length, seed, padding=padding)
    documents = Documents.from_segments(segments)
    inputs = [x.requires_grad_() for x in random_qkv(rows, length, *heads, seed=seed)]
    weights = random_qkv(rows, length, *heads, seed=seed + 1)[0]
    found = {}
    for backend in ("banded", "reference"):
        with pytest.MonkeyPatch.context() as patch:
            small_bands(patch, block, alignment)
            patch.setattr(
                "model.backends.banded.MASKED", masked
            )  # one, a few or all blocks at a time
            out = attention(*inputs, documents, window=window, backend=backend)
            found[backend] = out, *torch.autograd.grad(out, inputs, weights)
    for ours, expected in zip(*found.values(), strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_banded_rounds_like_the_reference(monkeypatch, dtype):
    small_bands(monkeypatch, 16)
    documents = Documents.from_segments(random_segments(4, 100))
    weights = random_qkv(4, 100, seed=1)[0].to(dtype)
    errors = {"banded": [], "reference": []}
    for backend, record in errors.items():
        inputs = [x.requires_grad_() for x in random_qkv(4, 100, dtype=dtype)]
        exact_inputs = [x.detach().double().requires_grad_() for x in inputs]
        out = attention(*inputs, documents, window=30, backend=backend)
        exact = attention(*exact_inputs, documents, window=30, backend="reference")
        grads = torch.autograd.grad(out, inputs, weights)
        exact_grads = torch.autograd.grad(exact, exact_inputs, weights.double())
        for x, y in zip((out, *grads), (exact, *exact_grads), strict=True):
            assert x.dtype == dtype
            record.append((x.double() - y).square().mean().sqrt().item())
    for banded, reference in zip(*errors.values(), strict=True):
        assert banded <= 1.2 * reference


def test_banded_gradients_are_its_derivatives(monkeypatch):
    small_bands(monkeypatch, 3)
    segments = torch.tensor([[1, 1, 1, 1, 2, 2, 2], [1, 1, 2, 3, 3, 0, 0]], dtype=torch.int32)
    inputs = [x.requires_grad_() for x in random_qkv(2, 7, 2, 1, 2)]
    assert torch.autograd.gradcheck(lambda *qkv: banded_attention(*qkv, segments, 3), inputs)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_banded_operators_keep_the_compiler_contract(dtype):
    query, key, value = (x.requires_grad_() for x in random_qkv(2, 9, dtype=dtype))
    segments = random_segments(2, 9)
    torch.library.opcheck(banded_attention, (query, key, value, segments, 4))
    given = [x.detach() for x in (torch.ones_like(query), query, key, value)]
    torch.library.opcheck(banded_attention_backward, (*given, segments, 4))
