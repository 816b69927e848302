"""What a stage does not train does not move by a bit, and what it trains is one gradient's."""

from dataclasses import replace
from types import SimpleNamespace

import pytest

from data.rows.curriculum_config import LrMultipliers
from model.documents import Documents
from tests.distributed.test_parallelize import full_weights
from tests.helpers.toy import toy_config
from tests.unit.training.test_parallelize import FP32, one_split
from train import train_step
from training.distributed import start_world
from training.freeze import check_stages, freeze
from training.optim import set_learning_rates
from training.sources import network_shape

EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"
# 37 rows, 20 of the base and 3 of no token: no border falls on one between ranks.
GROWN = {"vocab_size": 37, "num_padded_ids": 3, "num_base_ids": 20}
OLD, NEW, PADDED = slice(20), slice(20, 34), slice(34, 37)
SHAPES = [toy_config(**GROWN, tie_word_embeddings=tied) for tied in (False, True)]


@pytest.fixture
def world():
    with start_world("cpu") as world:
        yield world


@pytest.mark.parametrize("shape", SHAPES, ids=["untied", "tied"])
@pytest.mark.parametrize("trains", ["new_rows", "embeddings", "all"])
def test_the_norm_is_that_of_what_is_trained(world, shape, trains):
    model, optimizer, batches, run = one_split(world, shape, FP32, 6)
    (batch,) = batches
    documents = Documents.from_segments(batch.segments)
    loss = model(batch.tokens, documents=documents, labels=batch.labels).total
    (loss / batch.supervised_tokens).backward()
    total = 0.0
    for name, parameter in model.named_parameters():
        if name in (EMBEDDING, HEAD):
            assert not parameter.grad[PADDED].any()
            first = 20 if trains == "new_rows" else 0
            total += float(parameter.grad[first:].double().square().sum())
        elif trains == "all":
            total += float(parameter.grad.double().square().sum())
    optimizer.zero_grad(set_to_none=True)
    freeze(model, optimizer, trains)
    found = train_step(model, optimizer, batches, run, world).grad_norm
    assert found == pytest.approx(total**0.5, rel=1e-6)


def updates_of(world, multipliers, trains="all"):
    """How far one step moves each tensor, at most."""
    model, optimizer, batches, run = one_split(world, SHAPES[0], FP32, 6)
    for group in optimizer.param_groups:
        group["weight_decay"] = 0.0
    before = full_weights(model)
    freeze(model, optimizer, trains)
    set_learning_rates(optimizer, 1e-3, multipliers)
    train_step(model, optimizer, batches, run, world)
    after = full_weights(model)
    return {name: float((after[name] - before[name]).abs().max()) for name in before}


def test_multipliers_scale_the_update_of_their_part(world):
    """Adam's first step has the size of the learning rate, whatever the gradient's."""
    plain = updates_of(world, LrMultipliers())
    scaled = updates_of(world, LrMultipliers(embeddings=3.0, head=0.5, layers=2.0))
    factors = {EMBEDDING: 3.0, HEAD: 0.5}
    for name in plain:
        assert plain[name] == pytest.approx(1e-3, rel=0.01)
        assert scaled[name] / plain[name] == pytest.approx(factors.get(name, 2.0), rel=1e-3), name


def stage(**options):
    defaults = {"trains": "all", "lr_multipliers": LrMultipliers()}
    return SimpleNamespace(name="s", config=SimpleNamespace(**defaults | options))


def test_stages_that_do_not_fit_the_model_are_refused():
    twice = LrMultipliers(embeddings=2.0)
    untied, tied = SHAPES
    for shape in SHAPES:
        check_stages([stage(), stage(trains="new_rows"), stage(trains="embeddings")], shape)
    check_stages([stage(lr_multipliers=twice)], untied)
    check_stages([stage(lr_multipliers=LrMultipliers(embeddings=2.0, head=2.0))], tied)
    with pytest.raises(ValueError, match=r"stages\.s\.lr_multipliers: .*'embeddings': 2.*the same"):
        check_stages([stage(lr_multipliers=twice)], tied)
    for num_base_ids in (None, 34):
        shape = replace(untied, num_base_ids=num_base_ids)
        with pytest.raises(ValueError, match=rf"s\.trains=new_rows, .*num_base_ids={num_base_ids}"):
            check_stages([stage(), stage(trains="new_rows")], shape)


def test_a_grown_folder_says_which_rows_are_new(tmp_path):
    tokenizer, grown = SimpleNamespace(vocab_size=34), SHAPES[0]
    plain = replace(grown, num_base_ids=None)
    for asked, found in ((None, grown), (plain, grown), (grown, plain), (grown, grown)):
        folder = SimpleNamespace(config=found, folder=tmp_path)
        assert network_shape(asked, folder, tokenizer) == grown
    folder = SimpleNamespace(config=grown, folder="f")
    with pytest.raises(ValueError, match=r"num_base_ids 20 \(configured 21\)"):
        network_shape(replace(grown, num_base_ids=21), folder, tokenizer)
