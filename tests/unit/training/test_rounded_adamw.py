"""Moments in 16 bits: right on average, the same on any number of ranks, exact after a resume."""

import pytest
import torch

from kernels.adamw import Update, reference_
from model.transformer import Mistral
from model.weights import InitialWeights
from tests.helpers.toy import toy_config
from training import adamw
from training.adamw import AdamWBF16
from training.checkpoint.state import state_tensors
from training.optim import OptimConfig, build_optimizer

UPDATE = Update(1e-2, (0.9, 0.999), eps=1e-8, decay=0.1, step=2, seed=1 << 30)


def drawn(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def test_moments_are_right_on_average_where_rounding_to_the_nearest_stands_still():
    count, steps = 4096, 600
    weight, grad = torch.zeros(count), torch.full((count,), 0.37)
    average, square = (torch.zeros(count, dtype=torch.bfloat16) for _ in range(2))
    nearest = torch.zeros((), dtype=torch.bfloat16)
    for step in range(1, steps + 1):
        update = UPDATE._replace(lr=1e-9, step=step, seed=(1 << 30) + step)
        reference_(weight, grad, average, square, update)
        nearest = (nearest.float() * 0.999 + 0.001 * 0.37**2).bfloat16()
    expected = 0.37**2 * (1 - 0.999**steps)
    assert float(square.float().mean()) == pytest.approx(expected, rel=5e-3)
    assert float(average.float().mean()) == pytest.approx(0.37, rel=5e-3)
    assert float(nearest) < 0.8 * expected


def test_chance_is_that_of_the_element_wherever_it_lies():
    """Moments that fp32 holds exactly, since other bits would be rounded by the same chance."""
    update = UPDATE._replace(betas=(0.75, 0.75))
    whole = [drawn(7, 33), *((drawn(7, 33, seed=i) * 16).round() / 16 for i in (1, 2, 3))]
    whole[2:] = whole[2].bfloat16(), whole[3].abs().bfloat16()
    parts = [x.clone() for x in whole]
    reference_(*whole, update)
    for rows in (slice(0, 3), slice(3, 7)):
        reference_(*(x[rows] for x in parts), update, first=rows.start * 33)
    torch.testing.assert_close(whole[0], parts[0])
    assert all(torch.equal(x, y) for x, y in zip(whole[2:], parts[2:], strict=True))
    again = [x.clone() for x in parts]
    reference_(*parts, UPDATE._replace(step=3))
    reference_(*again, UPDATE._replace(step=3, seed=(1 << 30) + 1))
    assert not torch.equal(parts[2], again[2])


def network(dtype):
    model = Mistral(toy_config())
    source = InitialWeights(model, 0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(source.read(name, slice(0, len(parameter))))
    return model, build_optimizer(model, OptimConfig(lr=1e-2, moment_dtype=dtype))


def train(model, optimizer, steps):
    tokens = torch.arange(64).view(2, 32) * 7 % 61
    for _ in range(steps):
        loss = model(tokens, labels=tokens.roll(-1, 1)).total / 64
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    return float(loss.detach())


def test_a_network_learns_as_with_exact_moments(monkeypatch):
    found = {dtype: train(*network(dtype), 40) for dtype in ("float32", "bfloat16")}
    assert found["float32"] < 1.0  # of 4.1
    assert found["bfloat16"] == pytest.approx(found["float32"], abs=0.05)
    # In pieces or whole: the same bits.
    model, optimizer = network("bfloat16")
    monkeypatch.setattr(adamw, "PIECE", 100)
    assert train(model, optimizer, 40) == found["bfloat16"]
    state = state_tensors(model, optimizer, 40)
    dtypes = {state[f"optimizer.lm_head.weight.{key}"].dtype for key in adamw.MOMENTS}
    assert dtypes == {torch.bfloat16}
    assert isinstance(optimizer, AdamWBF16)


def test_its_updates_are_adamws():
    """One step from nothing, where both know the moments exactly enough."""
    models = [network(dtype) for dtype in ("float32", "bfloat16")]
    for model, optimizer in models:
        train(model, optimizer, 1)
    for one, other in zip(*(model.parameters() for model, _ in models), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-6)


def test_another_dtype_is_refused():
    with pytest.raises(ValueError, match=r"optim.moment_dtype='float16': one of float32, bfloat16"):
        OptimConfig(moment_dtype="float16")
