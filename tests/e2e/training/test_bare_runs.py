"""Runs in bare surroundings: nothing held out, a sample on a read-only disk or moved elsewhere."""

import json
import shutil
import warnings

import pytest

from data.prepare.documents import PrepareConfig, prepare
from tests.helpers.runs import configure, metrics, tiny
from train import train

NAMES = ("general_en", "general_zh", "geo_en", "geo_zh")


@pytest.fixture
def nothing_held_out(sample, tmp_path):
    """Four sources of a few documents, none of which holds anything out."""
    for number, name in enumerate(NAMES):
        texts = tmp_path / f"{name}.jsonl"
        lines = [json.dumps({"text": f"Sample {number} of loess, bed {n}. " * 9}) for n in range(9)]
        texts.write_text("\n".join(lines))
        settings = {"name": name, "inputs": [str(texts)], "out": str(tmp_path / "data" / name)}
        tokenizer = str(sample / "tokenizer")
        prepare(
            PrepareConfig(**settings, tokenizer=tokenizer, held_out_fraction=0.0, workers=1),
            progress=False,
        )
    return tmp_path / "data"


@pytest.mark.parametrize("steps", [1, 3])
def test_without_held_out_text_there_is_no_empty_line_and_no_empty_plot(
    sample, nothing_held_out, tmp_path, capsys, steps
):
    arguments = ["data=bilingual", f"curriculum.stages.adaptation.tokens={512 * steps}"]
    arguments += ["data.vocab_size=2048", "+experiment=tspt_stage1", "name=run"]
    places = ["data.sample_scale=null", f"data.root={nothing_held_out}"]
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        train(configure(*tiny(sample, tmp_path), *arguments, *places))
    assert [str(one.message) for one in said if "legend" in str(one.message)] == []
    printed = capsys.readouterr().out
    assert "bits per byte" not in printed
    for name in NAMES:
        assert printed.count(f"source {name} has no held-out text and is not evaluated") == 1
    run = tmp_path / "run"
    assert (run / "loss.png").is_file()
    assert not (run / "forgetting.png").exists()
    assert all("eval" not in row for row in metrics(run))
    assert max(row["step"] for row in metrics(run)) == steps


def test_one_override_moves_the_sample(sample, tmp_path):
    root = shutil.copytree(sample, tmp_path / "moved")
    steps = ["+experiment=tspt_stage1", "curriculum.stages.adaptation.tokens=512", "name=run"]
    places = ("data.root=", "data.tokenizer=")
    others = [x for x in tiny(sample, tmp_path, *steps) if not x.startswith(places)]
    config = configure(*others, f"data.root={root}")
    assert config.data.tokenizer == str(root / "tokenizer")
    train(config)
    assert (tmp_path / "run" / "model" / "tokenizer.model").is_file()
