"""The chunked loss is torch's cross-entropy of all logits, in value and gradient."""

import pytest
import torch
import torch.nn.functional as F
from torch._subclasses.fake_tensor import DynamicOutputShapeException, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from model.labels import IGNORE_INDEX
from model.loss import linear_cross_entropy
from tests.helpers.toy import documents_of, random_segments, random_tokens, toy_config, toy_model

ROWS, LENGTH, WIDTH, IDS = 3, 11, 16, 37


def batch(dtype=torch.float32, seed=0):
    """(hidden, weight, labels) with ignored labels, logits wide enough for a peaked softmax."""
    generator = torch.Generator().manual_seed(seed)
    hidden = torch.randn(ROWS, LENGTH, WIDTH, generator=generator).to(dtype).requires_grad_()
    weight = torch.randn(IDS, WIDTH, generator=generator).to(dtype).requires_grad_()
    labels = torch.randint(IDS, (ROWS, LENGTH), generator=generator)
    labels[0, ::2] = IGNORE_INDEX
    labels[1, :4] = IGNORE_INDEX
    return hidden, weight, labels


def dense(hidden, weight, labels, num_tokens=IDS):
    """(sum, sums of rows, gradients) by torch from all logits at once."""
    exact = torch.promote_types(hidden.dtype, torch.float32)
    logits = (hidden @ weight[:num_tokens].T).to(exact).flatten(0, 1)
    losses = F.cross_entropy(logits, labels.flatten(), reduction="none").view_as(labels)
    return losses.sum(), losses.sum(1), *torch.autograd.grad(losses.sum(), (hidden, weight))


def chunked(hidden, weight, labels, num_tokens=IDS):
    """The same by ours."""
    total, rows = linear_cross_entropy(hidden, weight, labels, num_tokens)
    return total, rows, *torch.autograd.grad(total, (hidden, weight))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("num_tokens", [IDS, IDS - 5])
@pytest.mark.parametrize("chunk_logits", [1, 4 * IDS, 1 << 25])
@pytest.mark.parametrize("head_rows", [7, 4096])
def test_value_and_gradients(monkeypatch, dtype, num_tokens, chunk_logits, head_rows):
    monkeypatch.setattr("model.loss.CHUNK_LOGITS", chunk_logits)
    monkeypatch.setattr("model.loss.HEAD_ROWS", head_rows)
    hidden, weight, labels = batch(dtype)
    labels = labels.clamp(max=num_tokens - 1)
    ours = chunked(hidden, weight, labels, num_tokens)
    expected = dense(hidden, weight, labels, num_tokens)
    for x, y in zip(ours, expected, strict=True):
        assert x.dtype == y.dtype
        tolerance = 1e-5 if dtype == torch.float32 else 1e-12
        torch.testing.assert_close(x, y, rtol=tolerance, atol=tolerance)


def test_bfloat16_rounds_no_worse_than_torch(monkeypatch):
    monkeypatch.setattr("model.loss.CHUNK_LOGITS", 1)  # many chunks must not add many roundings
    errors = torch.zeros(2, 4, dtype=torch.float64)
    for seed in range(20):  # the size of the rounding, not the luck of one batch
        hidden, weight, labels = batch(torch.bfloat16, seed)
        exact = dense(*(x.detach().double().requires_grad_() for x in (hidden, weight)), labels)
        for i, loss in enumerate((chunked, dense)):
            for j, (x, y) in enumerate(zip(loss(hidden, weight, labels), exact, strict=True)):
                errors[i, j] += (x.double() - y).square().mean()
    ours, theirs = errors.sqrt()
    assert (ours <= 1.1 * theirs).all()


def test_a_known_count_of_labels_changes_nothing():
    hidden, weight, labels = batch()
    count = int((labels != IGNORE_INDEX).sum())
    losses = linear_cross_entropy(hidden, weight, labels, IDS, supervised=count)
    known = *losses, *torch.autograd.grad(losses.total, (hidden, weight))
    for x, y in zip(known, chunked(hidden, weight, labels), strict=True):
        assert torch.equal(x, y)


@pytest.mark.parametrize("off", [-1, 1])
def test_a_wrong_count_of_labels_is_no_loss(off):
    hidden, weight, labels = batch()
    count = int((labels != IGNORE_INDEX).sum())
    with pytest.raises(RuntimeError):
        linear_cross_entropy(hidden, weight, labels, IDS, supervised=count + off)


def test_with_a_known_count_nobody_waits_for_the_device():
    """A fake tensor has no values: whoever asks for one, as the host does when it waits, fails."""
    with FakeTensorMode(allow_non_fake_inputs=True):
        hidden, weight = (x.detach().clone().requires_grad_() for x in batch()[:2])
        labels = torch.zeros(ROWS, LENGTH, dtype=torch.int64)
        linear_cross_entropy(hidden, weight, labels, IDS, supervised=20).total.backward()
        assert hidden.grad.shape == hidden.shape
        with pytest.raises(DynamicOutputShapeException):
            linear_cross_entropy(hidden, weight, labels, IDS)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_certain_and_hopeless_labels(dtype):
    """Logits beyond what can be exponentiated: differences count, as in torch's."""
    hidden = torch.tensor([[[200.0, 0.0], [200.0, 0.0]]], dtype=dtype, requires_grad=True)
    weight = torch.tensor([[5.0, 1.0], [-5.0, 1.0], [0.0, 1.0]], dtype=dtype, requires_grad=True)
    labels = torch.tensor([[0, 1]])  # of 1,000, -1,000 and 0
    ours = chunked(hidden, weight, labels, 3)
    for x, y in zip(ours, dense(hidden, weight, labels, 3), strict=True):
        assert torch.equal(x, y)
    assert ours[0] == 2000


def test_rows_sum_to_total():
    total, rows = linear_cross_entropy(*batch(), IDS)
    assert rows.shape == (ROWS,)
    assert not rows.requires_grad
    torch.testing.assert_close(rows.sum(), total.detach())


def test_unsupervised_positions_count_for_nothing():
    hidden, weight, labels = batch()
    labels[1] = IGNORE_INDEX
    _, rows, grad, _ = chunked(hidden, weight, labels)
    assert rows[1] == 0
    assert (grad[labels == IGNORE_INDEX] == 0).all()
    assert (grad[labels != IGNORE_INDEX] != 0).any(-1).all()


def test_nothing_supervised():
    hidden, weight, labels = batch()
    for result in chunked(hidden, weight, torch.full_like(labels, IGNORE_INDEX)):
        assert (result == 0).all()


def test_infinite_hidden_state_without_label_is_harmless():
    hidden, weight, labels = batch()
    hidden = hidden.detach().clone()
    hidden[labels == IGNORE_INDEX] = float("inf")
    for result in chunked(hidden.requires_grad_(), weight, labels):
        assert result.isfinite().all()


def test_padded_ids_get_no_probability():
    hidden, weight, labels = batch()
    num_tokens = IDS - 6
    with torch.no_grad():
        weight[num_tokens:] = 1e4  # would outweigh everything
    every_label = torch.arange(num_tokens).expand(ROWS, num_tokens)
    same = hidden[:, :1].expand(-1, num_tokens, -1)
    losses = [
        linear_cross_entropy(same[:, i : i + 1], weight, every_label[:, i : i + 1], num_tokens).rows
        for i in range(num_tokens)
    ]
    torch.testing.assert_close(torch.stack(losses).neg().exp().sum(0), torch.ones(ROWS))
    *_, grad = chunked(hidden, weight, labels.clamp(max=num_tokens - 1), num_tokens)
    assert (grad[num_tokens:] == 0).all()
    assert (grad[:num_tokens] != 0).any()


def test_scaled_total_scales_gradients():
    hidden, weight, labels = batch()
    *_, expected_hidden, expected_weight = chunked(hidden, weight, labels)
    (linear_cross_entropy(hidden, weight, labels, IDS).total * 0.25).backward()
    torch.testing.assert_close(hidden.grad, expected_hidden * 0.25)
    torch.testing.assert_close(weight.grad, expected_weight * 0.25)


def test_factor_is_not_rounded_to_bfloat16():
    factor = 181.5 / 128  # midway between two neighbours in bfloat16
    hidden, weight, labels = batch(torch.bfloat16)
    expected = chunked(hidden, weight, labels)[2:]
    total, _ = linear_cross_entropy(hidden, weight, labels, IDS)
    for x, y in zip(torch.autograd.grad(total * factor, (hidden, weight)), expected, strict=True):
        x, y = x.double(), y.double()
        assert ((x * y).sum() / (y * y).sum()).item() == pytest.approx(factor, abs=1e-3)


@pytest.mark.parametrize("frozen", ["hidden", "weight", "both"])
def test_frozen_side_gets_no_gradient(frozen):
    hidden, weight, labels = batch()
    expected, _, expected_hidden, expected_weight = chunked(hidden, weight, labels)
    hidden.requires_grad_(frozen == "weight")
    weight.requires_grad_(frozen == "hidden")
    total, _ = linear_cross_entropy(hidden, weight, labels, IDS)
    assert total.item() == expected.item()
    assert total.requires_grad == (frozen != "both")
    if frozen == "weight":
        torch.testing.assert_close(*torch.autograd.grad(total, hidden), expected_hidden)
    if frozen == "hidden":
        torch.testing.assert_close(*torch.autograd.grad(total, weight), expected_weight)


def test_model_loss_is_the_loss_of_its_logits():
    config = toy_config(num_padded_ids=4)
    network = toy_model(config)
    tokens, labels = (random_tokens(config, 3, 19, seed) for seed in range(2))
    documents = documents_of(random_segments(3, 19))
    losses = network(tokens, documents=documents, labels=labels)
    logits = network(tokens, documents=documents)
    assert logits.shape == (3, 19, config.vocab_size)
    expected = F.cross_entropy(
        logits[..., : config.num_tokens].flatten(0, 1), labels.flatten(), reduction="none"
    ).view_as(labels)
    torch.testing.assert_close(losses.total, expected.sum())
    torch.testing.assert_close(losses.rows, expected.sum(1))


class Sizes(TorchDispatchMode):
    """Records the number of elements of every tensor that is made."""

    def __init__(self):
        super().__init__()
        self.made = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        self.made += [x.numel() for x in tree_leaves(result) if isinstance(x, torch.Tensor)]
        return result


def test_all_logits_never_exist_at_once(monkeypatch):
    monkeypatch.setattr("model.loss.CHUNK_LOGITS", 4 * IDS)
    hidden, weight, labels = batch()
    with Sizes() as sizes:
        linear_cross_entropy(hidden, weight, labels, IDS).total.backward()
    assert max(sizes.made) == max(hidden.numel(), weight.numel(), 4 * IDS)
    assert max(sizes.made) < labels.numel() * IDS


def test_without_gradients_none_are_computed(monkeypatch):
    """A parameter asks for its gradient even under no_grad: evaluation must not pay for it."""
    hidden, weight, labels = batch()
    asked = []
    original = torch.Tensor.new_zeros
    monkeypatch.setattr(
        torch.Tensor, "new_zeros", lambda x, *a, **k: asked.append(a) or original(x, *a, **k)
    )
    with torch.no_grad():
        linear_cross_entropy(hidden, torch.nn.Parameter(weight.detach()), labels, IDS)
    assert asked == [(ROWS * LENGTH,)]  # the losses, not a gradient as large as the head
