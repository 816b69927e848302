"""Numbers that cannot be meant are refused before any work, in every field of every command."""

import copy
import math
from dataclasses import replace

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import Container, DictConfig, OmegaConf

from conf.command import check_numbers
from conf.suggest import CONF
from model.adapters import check_rank
from model.lora.layer import LoraConfig
from tests.helpers.commands import NAMES, register_all
from tests.helpers.runs import configure
from tests.helpers.toy import toy_config, toy_model

GIVEN = {
    "benchmark": [[]],
    "chat": [["folder=x"]],
    "check_sources": [["sources=[a,b]", "tokenizer=t"]],
    "compare": [["a=x", "b=y"]],
    "evaluate": [["folder=x", "tasks=[sample_en]", "out=o", "shots_per_task={sample_en: 0}"]],
    "expand_tokenizer": [["base=b", "corpus=[c]", "target_vocab_size=5000", "out=o"]],
    "export": [
        ["folder=x", "out=o", "blend=b", "blend_weight=0.5"],
        ["folder=x", "out=o", "merge=adapters", "adapters=[a]", "weights=[1.0]"],
    ],
    "generate": [["folder=x", "prompt=p"]],
    "judge": [["questions=q", "endpoint=http://h/v1", "judge=j", "out=o", "answers={a: x}"]],
    "measure": [["runs=r"]],
    "plan": [["lora=r8"]],
    "prepare_data": [
        ["name=n", "inputs=[i]", "out=o", "tokenizer=t"],
        ["kind=conversations", "name=n", "inputs=[i]", "out=o", "tokenizer=t", "max_tokens=64"],
    ],
    "report": [["runs=r", "out=o", "seeds=[1]", "arm_seeds={a: [1]}"]],
    "serve": [["folder=x"]],
    "trace": [["run=r", "step=1"], ["run=r", "row=1"]],
    "train": [
        ["+experiment=tspt_stage1", "tasks.names=[sample]", "tasks.shots=0"],
        ["+experiment=sft_lora", "init_from=x"],
    ],
    "verify": [["run=r", "tolerance=0.1"]],
}
"""What each command must be given, so that one number at a time can be made wrong."""

MAY_BE_NEGATIVE = {("export", "scale"), ("export", "weights.0"), ("export", "weights")}
"""Task arithmetic subtracts; a budget may ask for less loss than before."""


@pytest.fixture(autouse=True, scope="module")
def _registered():
    register_all()


def composed(name, given):
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose(name, given)


def numbers(tree, prefix=""):
    """(dotted key, type) of every field that takes a number, set or not."""
    keys = list(tree.keys()) if isinstance(tree, DictConfig) else range(len(tree))
    for key in keys:
        node = tree._get_node(key)
        if isinstance(node, Container) and not (node._is_none() or node._is_interpolation()):
            yield from numbers(node, f"{prefix}{key}.")
        elif node._metadata.ref_type in (int, float):
            yield f"{prefix}{key}", node._metadata.ref_type


def test_every_command_is_tried():
    assert GIVEN.keys() == set(NAMES)


@pytest.mark.parametrize("name", sorted(GIVEN))
def test_no_field_takes_an_impossible_number(name):
    tried = 0
    for given in GIVEN[name]:
        sound = composed(name, given)
        OmegaConf.to_object(sound)
        for key, kind in numbers(sound):
            wrong = [-(10**9), 2**63] if kind is int else [math.nan, math.inf, -math.inf, -1e9]
            for value in wrong:
                if value in (-(10**9), -1e9) and (name, key) in MAY_BE_NEGATIVE:
                    continue
                tree = copy.deepcopy(sound)
                OmegaConf.update(tree, key, value)
                with pytest.raises(ValueError, match=r".") as error:
                    begin(tree)
                assert any(part in str(error.value) for part in key.split("."))
                tried += 1
    assert tried


def begin(tree):
    """What a command does before any work."""
    check_numbers(tree)
    OmegaConf.to_object(tree)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("model.num_hidden_layers=100000", "model.num_hidden_layers=100000: at most"),
        ("batch.row_length=100000000", "batch.row_length=100000000: at most"),
        ("data.sample_scale=1e6", "data.sample_scale=1000000.0: must be in"),
        ("seed=-1", "seed=-1: must be at least 0"),
        ("schedule.warmup_fraction=1.5", "schedule.warmup_fraction=1.5"),
        *(
            (f"name={name!r}", "is the name of the run's folder")
            for name in ("a/b", "..", "", " a")
        ),
        *(
            (f"name={name!r}", "is the name of the run's folder")
            for name in ("a\n", "x" * 201, ".")
        ),
    ],
)
def test_what_no_run_can_have_is_refused(override, message):
    with pytest.raises(ValueError, match=r".") as error:
        configure(override)
    assert message in str(error.value)


def test_an_experiment_begins_the_name_of_a_folder():
    with pytest.raises(ValueError, match=r"experiment='../x' is the name of the run's folder"):
        replace(configure(), experiment="../x")


def test_names_in_any_script_are_names():
    for name in ("试验", "a b", "run-1.2", "é"):
        assert configure(f"name='{name}'").folder.name == name


def test_no_rank_is_above_the_smaller_side_of_a_matrix():
    network = toy_model(toy_config())  # hidden 32, heads of 8: keys and values are 16 wide
    check_rank(network, LoraConfig(rank=16, alpha=1.0))
    check_rank(network, LoraConfig(rank=32, alpha=1.0, targets=["q_proj"]))
    for rank, targets in ((17, ["all"]), (33, ["q_proj"])):
        with pytest.raises(ValueError, match=rf"lora.rank={rank}: model.*give at most {rank - 1}"):
            check_rank(network, LoraConfig(rank=rank, alpha=1.0, targets=targets))
