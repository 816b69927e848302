"""Vocabulary growth from the command to training."""

import subprocess
import sys
from dataclasses import replace

import torch

from data.prepare.documents import PrepareConfig, prepare
from pretrained.safetensors_folder import load_pretrained
from tests.helpers.runs import ROOT, configure, metrics, tiny
from tests.unit.tools.vocabulary.test_grow import base_folder  # noqa: F401 fixture
from train import train

RECIPE = ("new_rows", "embeddings", "adaptation")


def test_from_the_command_to_training(base_folder, sample, tmp_path):
    """The folder that the command leaves trains, in all three stages of its recipe."""
    out, corpus = tmp_path / "out", sample / "corpus" / "geo_zh.jsonl"
    arguments = [f"base={base_folder}", f"root={sample}", "corpus=[geo_zh]", f"out={out}"]
    subprocess.run(
        [sys.executable, "-m", "scripts.expand_tokenizer", *arguments, "target_vocab_size=2200",
         "reserved=4", "loss_bytes=0"],
        cwd=ROOT, check=True,
    )  # fmt: skip
    prepare(
        PrepareConfig(
            name="geo_zh",
            inputs=[str(corpus)],
            out=str(tmp_path / "prepared" / "geo_zh"),
            tokenizer=str(out),
            held_out_fraction=0.05,
            workers=1,
        ),
        progress=False,
    )
    steps = [f"curriculum.stages.{name}.tokens=1024" for name in RECIPE]
    overrides = ["+experiment=tspt_stage1_grown", *tiny(sample, tmp_path), *steps]
    overrides = [o for o in overrides if not o.startswith("model.")]
    config = configure(*overrides, f"init_from={out}", "name=run")
    only = {"geo_zh": 1.0}
    data = replace(
        config.data,
        root=str(tmp_path / "prepared"),
        tokenizer=str(out),
        sources={"geo_zh": "geo_zh"},
        general=only,
        domain=only,
        sample_scale=None,
    )
    for stage in config.curriculum.stages.values():
        stage.weights = only
    train(replace(config, data=data))
    log = metrics(tmp_path / "run")
    assert [row["stage"] for row in log if "loss_nats" in row] == [n for n in RECIPE for _ in "12"]
    before, after = load_pretrained(out), load_pretrained(tmp_path / "run" / "model")
    assert after.config.num_base_ids == 2048
    assert not torch.equal(before.lm_head.weight[2048:], after.lm_head.weight[2048:])
