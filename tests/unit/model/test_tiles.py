"""Norm and rotation, differentiated by hand in pieces of rows, against autograd through torch's."""

import pytest
import torch
import torch.nn.functional as F

import model.norm
from model.norm import RMSNorm, tiles
from model.rotary import apply_rotary, rotary_angles

EPS = 1e-5
TOLERANCE = {torch.float64: 1e-14, torch.float32: 1e-6, torch.bfloat16: 1e-2}


@pytest.fixture(params=["a tile", "several, the last one short"])
def pieces(request, monkeypatch):
    """Rows of 2 x 13 in one piece, or in pieces of a few."""
    if request.param != "a tile":
        monkeypatch.setattr(model.norm, "TILE", 200)


def gradients(function, *inputs, grad):
    leaves = [x.detach().clone().requires_grad_() for x in inputs]
    out = function(*leaves)
    out.backward(grad.to(out.dtype))
    return [out.detach(), *(x.grad for x in leaves)]


def compare(ours, theirs, dtype):
    for one, other in zip(ours, theirs, strict=True):
        assert one.dtype == dtype
        assert (one.double() - other).abs().max() <= TOLERANCE[dtype] * other.abs().max()


def normed(x, weight):
    norm = RMSNorm(x.shape[-1], EPS)
    del norm.weight  # a leaf of the test instead
    norm.weight = weight
    return norm(x)


@pytest.mark.usefixtures("pieces")
@pytest.mark.parametrize("dtype", TOLERANCE)
def test_norm(dtype):
    torch.manual_seed(0)
    x = (torch.randn(2, 13, 48) * torch.rand(2, 13, 1) * 9).to(dtype)
    weight, grad = torch.rand(48).to(dtype), torch.randn(2, 13, 48).to(dtype)
    ours = gradients(normed, x, weight, grad=grad)
    exact = [each.double() for each in (x, weight)]
    theirs = gradients(lambda x, w: F.rms_norm(x, w.shape, w, EPS), *exact, grad=grad.double())
    compare(ours, theirs, dtype)


def test_norm_of_small_rows_is_kept_finite_by_eps():
    x = torch.full((1, 4), 1e-20, requires_grad=True)
    RMSNorm(4, EPS)(x).sum().backward()
    assert x.grad is not None
    assert torch.allclose(x.grad, torch.full((1, 4), EPS**-0.5))


def test_second_derivatives_are_refused():
    x = torch.randn(3, 8, requires_grad=True)
    with pytest.raises(RuntimeError, match="don't support automatic differentiation"):
        torch.autograd.grad(RMSNorm(8, EPS)(x).sum(), x, create_graph=True)


def test_frozen_weight_of_a_norm_gets_no_gradient():
    norm, x = RMSNorm(8, EPS), torch.randn(3, 8, requires_grad=True)
    norm.weight.requires_grad_(False)
    norm(x).sum().backward()
    assert norm.weight.grad is None
    assert x.grad is not None


@pytest.mark.usefixtures("pieces")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_rotation(dtype):
    torch.manual_seed(0)
    positions = torch.stack([torch.arange(13), torch.arange(13) + 900])
    rotary = rotary_angles(positions, 16, 1e4)
    x, grad = (torch.randn(2, 13, 3, 16).to(dtype) for _ in range(2))
    ours = gradients(lambda x: apply_rotary(x, rotary), x, grad=grad)

    def turn(x):  # as complex numbers
        pairs = torch.complex(*x.chunk(2, -1))
        angles = torch.complex(rotary.cos.double(), rotary.sin.double())[..., 8:]
        turned = pairs * angles
        return torch.cat([turned.real, turned.imag], -1)

    compare(ours, gradients(turn, x.double(), grad=grad.double()), dtype)
    with torch.no_grad():  # generation's way, without tiles
        assert torch.equal(apply_rotary(x, rotary), ours[0])


@pytest.mark.usefixtures("pieces")
def test_inputs_that_are_not_contiguous():
    torch.manual_seed(0)
    x = torch.randn(13, 48, 2).permute(2, 0, 1)
    weight, grad = torch.rand(48), torch.randn(13, 2, 48).transpose(0, 1)
    exact = gradients(normed, x.contiguous(), weight, grad=grad.contiguous())
    for one, other in zip(gradients(normed, x, weight, grad=grad), exact, strict=True):
        torch.testing.assert_close(one, other)
    rotary = rotary_angles(torch.arange(13).expand(2, 13), 16, 1e4)
    heads, slopes = x.unflatten(-1, (3, 16)), grad.unflatten(-1, (3, 16))
    turned = gradients(lambda x: apply_rotary(x, rotary), heads, grad=slopes)
    dense = [each.contiguous() for each in (heads, slopes)]
    exact = gradients(lambda x: apply_rotary(x, rotary), dense[0], grad=dense[1])
    for one, other in zip(turned, exact, strict=True):
        assert torch.equal(one, other)


def test_pieces_are_the_tensor(monkeypatch):
    monkeypatch.setattr(model.norm, "TILE", 10)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    x, y = torch.zeros(2, 3, 4), torch.arange(6.0).view(2, 3, 1)
    sizes = []
    for part, value in tiles(x, y):
        part.copy_(value.expand_as(part))
        sizes.append(len(part))
    assert sizes == [2, 2, 2]
    assert torch.equal(x, y.expand_as(x))
