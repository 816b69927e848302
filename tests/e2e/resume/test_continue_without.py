"""A run of all weights continues without the folder that it started from."""

import json
import shutil

import pytest
from safetensors.torch import load_file

from conf.schema import load_run
from model.config import ModelConfig
from pretrained.safetensors_folder import load_pretrained, save_pretrained
from scripts.verify import verify
from tests.helpers.runs import configure, losses, starts, tiny
from tests.helpers.toy import toy_model
from tokenizer.tokenizer import Tokenizer
from tools.verification.replay import VerifyConfig
from train import train

GENERATION = {"temperature": 0.6, "top_p": 0.9, "eos_token_id": [2, 5], "do_sample": True}


@pytest.fixture(scope="module")
def base(sample, tmp_path_factory):
    """A model with sampling settings of its own."""
    folder = tmp_path_factory.mktemp("base") / "model"
    tokenizer = Tokenizer.open(sample / "tokenizer")
    shape = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2}
    shape |= {"num_attention_heads": 4, "num_key_value_heads": 2, "sliding_window": 24}
    model = toy_model(ModelConfig(vocab_size=tokenizer.vocab_size, **shape))
    save_pretrained(model, folder, tokenizer=tokenizer)
    (folder / "generation_config.json").write_text(json.dumps(GENERATION))
    return folder


def arguments(sample, folder, base, *more):
    sizes = [x for x in tiny(sample, folder) if not x.startswith("model.")]
    stage = ["+experiment=tspt_stage2", "model=pretrained", f"init_from={base}", "name=run"]
    steps = ["curriculum.stages.specialization.tokens=2048", "checkpoint.every=2"]
    return [*sizes, *stage, *steps, *more]


@pytest.fixture(scope="module")
def straight(sample, base, tmp_path_factory):
    folder = tmp_path_factory.mktemp("straight")
    train(configure(*arguments(sample, folder, base)))
    return folder / "run"


@pytest.fixture
def stopped(straight, base, tmp_path):
    """A copy of the run as it was after step 2, and of its base."""
    run = shutil.copytree(straight, tmp_path / "run")
    shutil.rmtree(run / "model")
    shutil.rmtree(run / "checkpoints" / "step-00000004")
    text = (run / "config.yaml").read_text()
    own = shutil.copytree(base, tmp_path / "base")
    (run / "config.yaml").write_text(text.replace(str(base), str(own)))
    return run, own


def as_if_nothing_had_happened(run, straight):
    assert losses(run) == losses(straight)
    for name in ("config.json", "generation_config.json"):
        assert (run / "model" / name).read_text() == (straight / "model" / name).read_text()
    one, other = (load_file(x / "model" / "model.safetensors") for x in (run, straight))
    assert one.keys() == other.keys()
    assert all(tensor.equal(other[name]) for name, tensor in one.items())


def remove(own):
    shutil.rmtree(own)


def remove_weights(own):
    (own / "model.safetensors").unlink()


def remove_config(own):
    (own / "config.json").unlink()


@pytest.mark.parametrize("damage", [remove, remove_weights, remove_config])
def test_the_folder_may_be_gone(sample, straight, stopped, tmp_path, damage):
    run, own = stopped
    damage(own)
    train(configure(*arguments(sample, tmp_path, own)))
    assert starts(run) == [0, 2]
    as_if_nothing_had_happened(run, straight)
    written = json.loads((run / "model" / "generation_config.json").read_text())
    assert written["temperature"] == 0.6
    assert set(written["eos_token_id"]) == {2, 5}
    environment = [json.loads((x / "environment.json").read_text()) for x in (run, straight)]
    digests = [x["data_fingerprints"]["init_from"] for x in environment]
    assert digests[0] == digests[1]
    train(configure(*arguments(sample, tmp_path, own)))  # finished, and it says so


def test_the_folder_may_have_moved(sample, straight, stopped, tmp_path):
    run, own = stopped
    moved = own.rename(tmp_path / "elsewhere")
    train(configure(*arguments(sample, tmp_path, moved)))
    as_if_nothing_had_happened(run, straight)
    assert load_run(run).init_from == str(moved)


def test_sampling_settings_are_those_of_the_start(sample, straight, stopped, tmp_path):
    run, own = stopped
    (own / "generation_config.json").write_text('{"temperature": 0.1}')
    train(configure(*arguments(sample, tmp_path, own)))
    as_if_nothing_had_happened(run, straight)


def test_other_weights_are_refused(sample, stopped, tmp_path):
    run, own = stopped
    model = load_pretrained(own)
    model.lm_head.weight.data *= 1.5
    shutil.rmtree(own)
    save_pretrained(model, own)
    other = shutil.copytree(own, tmp_path / "other")
    before = (run / "config.yaml").read_bytes()
    for named in (own, other):
        with pytest.raises(ValueError, match=r"init_from changed since .*run was started"):
            train(configure(*arguments(sample, tmp_path, named)))
    assert (run / "config.yaml").read_bytes() == before
    assert not (run / "model").exists()


def test_another_name_that_is_no_folder_is_refused(sample, stopped, tmp_path):
    run, own = stopped
    remove(own)
    with pytest.raises(ValueError, match=r"init_from=.*/typo: "):
        train(configure(*arguments(sample, tmp_path, tmp_path / "typo")))
    assert starts(run) == [0]


def test_without_a_checkpoint_the_folder_is_needed(sample, stopped, tmp_path):
    run, own = stopped
    shutil.rmtree(run)
    remove(own)
    with pytest.raises(ValueError, match="init_from="):
        train(configure(*arguments(sample, tmp_path, own)))
    assert not run.exists()


def test_a_shape_that_was_asked_for_need_not_name_the_folder(sample, base, tmp_path):
    """The experiment of both stages runs without a folder, so it may be left out later."""
    own = shutil.copytree(base, tmp_path / "base")
    sizes = ["+experiment=tspt", "curriculum.stages.adaptation.tokens=1024", "name=run"]
    sizes += ["curriculum.stages.specialization.tokens=512", "checkpoint.every=1"]
    train(configure(*tiny(sample, tmp_path, *sizes, f"init_from={own}")))
    run = tmp_path / "run"
    expected = load_file(run / "model" / "model.safetensors")
    shutil.rmtree(run / "model")
    shutil.rmtree(run / "checkpoints" / "step-00000003")
    remove(own)
    train(configure(*tiny(sample, tmp_path, *sizes)))
    assert starts(run) == [0, 2]
    again = load_file(run / "model" / "model.safetensors")
    assert all(tensor.equal(again[name]) for name, tensor in expected.items())
    written = json.loads((run / "model" / "generation_config.json").read_text())
    assert written["temperature"] == 0.6


def test_a_run_of_an_earlier_version_is_compared_by_the_path(sample, stopped, tmp_path, straight):
    """It has noted neither a digest nor settings."""
    run, own = stopped
    environment = json.loads((run / "environment.json").read_text())
    del environment["data_fingerprints"]["init_from"]
    (run / "environment.json").write_text(json.dumps(environment))
    shutil.rmtree(run / "initial")
    moved = shutil.copytree(own, tmp_path / "elsewhere")
    with pytest.raises(ValueError, match=r"init_from: .* -> "):
        train(configure(*arguments(sample, tmp_path, moved)))
    remove(own)
    train(configure(*arguments(sample, tmp_path, own)))
    assert losses(run) == losses(straight)


def test_verifying_from_the_start_needs_the_folder(stopped):
    run, own = stopped
    remove(own)
    with pytest.raises(ValueError, match="init_from="):
        verify(VerifyConfig(run=str(run), steps=1))
