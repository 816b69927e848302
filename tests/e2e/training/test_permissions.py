"""Whatever is written has the permissions that the umask gives, so that a group can read it."""

import json
import os

import pytest

from data.prepare.conversations import PrepareConversationsConfig, prepare_conversations
from data.prepare.documents import PrepareConfig, prepare
from tests.helpers.folders import MISTRAL, hf_folder
from tests.helpers.runs import configure, tiny
from tokenizer.expansion.rules import Rules
from tokenizer.tokenizer import Tokenizer
from tools.merging.export import ExportConfig, export_folder
from tools.vocabulary.grow import grow
from tools.vocabulary.inputs import GrowConfig
from train import train


@pytest.fixture
def umask():
    """A mask that is neither the usual one nor that of private files."""
    before = os.umask(0o027)
    yield
    os.umask(before)


def start(sample, folder):
    hf_folder(folder, MISTRAL | {"vocab_size": 2048})
    Tokenizer.open(sample / "tokenizer").save(folder)


def train_and_export(sample, place):
    shape = [x for x in tiny(sample, place) if not x.startswith("model.")]
    run = ["+experiment=tspt_stage1", "model=pretrained", f"init_from={place / 'start'}"]
    for name, more in (("full", ["checkpoint.export_every=1"]), ("lora", ["lora=r8"])):
        tokens = "curriculum.stages.adaptation.tokens=512"
        train(configure(*run, tokens, f"name={name}", *shape, *more))
    export_folder(
        ExportConfig(folder=str(place / "lora"), out=str(place / "merged")), progress=False
    )


def prepare_data(sample, place):
    (place / "texts.txt").write_text("metamorphism of plagioclase and peridotite. " * 30)
    asked = {"instruction": "What is loess?", "output": "Silt that the wind has carried."}
    (place / "asked.json").write_text(json.dumps([asked]))
    common = {"tokenizer": str(sample / "tokenizer"), "held_out_fraction": 0.0}
    texts = {"inputs": [str(place / "texts.txt")], "out": str(place / "documents")}
    prepare(PrepareConfig(name="documents", workers=1, **texts, **common), progress=False)
    asked = {"inputs": [str(place / "asked.json")], "out": str(place / "conversations")}
    config = PrepareConversationsConfig(name="asked", max_tokens=64, **asked, **common)
    prepare_conversations(config, progress=False)


def grow_vocabulary(place):
    (place / "words.txt").write_text("metamorphism\nplagioclase\n")
    grow(
        GrowConfig(
            base=str(place / "start"),
            corpus=[str(place / "texts.txt")],
            candidates=[str(place / "words.txt")],
            learn=False,
            target_vocab_size=2050,
            reserved=0,
            pad_to_multiple_of=1,
            rules=Rules(scripts=None),
            held_out_fraction=0.0,
            loss_bytes=0,
            out=str(place / "grown"),
            device="cpu",
        ),
        say=lambda _: None,
    )


@pytest.mark.usefixtures("umask")
def test_everything_that_is_written_has_the_permissions_of_the_umask(sample, tmp_path):
    start(sample, tmp_path / "start")
    train_and_export(sample, tmp_path)
    prepare_data(sample, tmp_path)
    grow_vocabulary(tmp_path)
    written = ["full", "lora", "merged", "documents", "conversations", "grown"]
    paths = [path for name in written for path in (tmp_path / name).rglob("*")]
    assert {path.name for path in paths} >= {
        *("model", "adapter", "checkpoints", "config.yaml", "metrics.jsonl", "loss.png"),
        *("model.safetensors", "adapter_model.safetensors", "tokenizer.json", "manifest.json"),
    }
    modes = {path: path.stat().st_mode & 0o777 for path in paths}
    wrong = {
        str(path): oct(mode)
        for path, mode in modes.items()
        if mode != (0o750 if path.is_dir() else 0o640)
    }
    assert not wrong
