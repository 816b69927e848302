"""Settings of a folder survive a training run."""

import pytest

from data.prepare.documents import PrepareConfig, prepare
from inference.generation.load import LoadConfig, load_for_generation
from tests.helpers.folders import get_json
from tests.helpers.runs import configure, tiny
from tests.unit.pretrained.test_settings import assert_kept, export, speaking
from tools.vocabulary.grow import grow
from tools.vocabulary.inputs import GrowConfig
from train import train


@pytest.mark.parametrize("lora", [False, True])
def test_a_trained_model(sample, tmp_path, capsys, lora):
    start = speaking(sample, tmp_path / "start", attention_dropout=0.1)
    run = ["+experiment=tspt_stage1", "curriculum.stages.adaptation.tokens=1024", "name=run"]
    shape = [x for x in tiny(sample, tmp_path) if not x.startswith("model.")]
    more = ["lora=r8"] if lora else []
    train(configure(*run, "model=pretrained", f"init_from={start}", *shape, *more))
    assert "attention_dropout=0.1 is kept, but not applied" in capsys.readouterr().out
    written = tmp_path / "run" / "model"
    if lora:
        written = tmp_path / "merged"
        export(folder=str(tmp_path / "run"), out=str(written))
    assert_kept(written)
    assert get_json(written / "config.json")["attention_dropout"] == 0.1
    assert load_for_generation(LoadConfig(folder=str(tmp_path / "run"))).eos_ids == [2, 77, 78]


def test_a_tokenizer_with_more_ids_than_rows_is_refused_everywhere(sample, tmp_path):
    folder = speaking(sample, tmp_path / "folder", vocab_size=2047)
    message = "tokenizer has 2048 pieces, the model 2047 rows; they do not belong together"
    with pytest.raises(ValueError, match=message):
        export(folder=str(folder), out=str(tmp_path / "out"))
    with pytest.raises(ValueError, match=message):
        load_for_generation(LoadConfig(folder=str(folder)))
    shape = [x for x in tiny(sample, tmp_path) if not x.startswith("model.")]
    run = ["+experiment=tspt_stage1", "model=pretrained", f"init_from={folder}", "name=run"]
    with pytest.raises(ValueError, match=message):
        train(configure(*run, *shape))
    with pytest.raises(ValueError, match=message):
        grow(GrowConfig(base=str(folder), corpus=["x"], target_vocab_size=3000, out="grown"))
    (tmp_path / "text.txt").write_text("loess")
    data = {"inputs": [str(tmp_path / "text.txt")], "out": str(tmp_path / "data")}
    with pytest.raises(ValueError, match=message):
        prepare(PrepareConfig(name="x", tokenizer=str(folder), **data), progress=False)
    assert {path.name for path in tmp_path.iterdir()} == {"folder", "text.txt"}
