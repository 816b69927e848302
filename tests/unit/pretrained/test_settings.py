"""What a folder says besides its network: nothing of it is lost on any way to another folder."""

import pytest
import transformers

from inference.generation.load import LoadConfig, load_for_generation
from model.lora.layer import LoraConfig
from pretrained.safetensors_folder import load_pretrained, write_folder
from pretrained.settings import NO_SETTINGS, FolderSettings, read_settings
from tests.helpers.folders import LLAMA, MISTRAL, get_json, hf_folder, hf_model, is_equal, put_json
from tests.unit.model.test_lora import adapted, save
from tokenizer.expansion.candidates import read_model
from tokenizer.expansion.rules import Rules
from tokenizer.tokenizer import Tokenizer
from tools.merging.export import ExportConfig, export_folder
from tools.vocabulary.grow import grow
from tools.vocabulary.inputs import GrowConfig
from training.sources import check_same_ids

GENERATION = {
    "_from_model_config": True,
    "bos_token_id": 1,
    "eos_token_id": [2, 77],
    "pad_token_id": 0,
    "do_sample": True,
    "temperature": 0.6,
    "top_p": 0.9,
    "suppress_tokens": [5],
    "transformers_version": "4.41.2",
    "a_key_of_next_year": {"x": [1, None]},
}
NAMED = {
    "eos_token_id": [2, 78],
    "pad_token_id": 0,
    "max_position_embeddings": 777,
    "unsloth_version": "2024.9",
    "transformers.js_config": {"dtype": "q4"},
}


def speaking(sample, folder, raw=MISTRAL, generation=GENERATION, seed=0, **changes):
    """A folder with a tokenizer and everything that a folder can say."""
    hf_folder(
        folder, raw | {"vocab_size": 2048} | NAMED | changes, generation=generation, seed=seed
    )
    Tokenizer.open(sample / "tokenizer").save(folder)
    return folder


def export(*, progress=False, **options):
    export_folder(ExportConfig(**options), progress=progress)


def assert_kept(folder, eos=(2, 77, 78), generation=GENERATION):
    """As transformers reads it."""
    found = get_json(folder / "generation_config.json")
    assert found["eos_token_id"] == list(eos)
    assert found | {"eos_token_id": None} == generation | {"eos_token_id": None}
    config = get_json(folder / "config.json")
    for name, value in NAMED.items():
        assert config[name] == value
    assert config["transformers_version"] == "4.41.2"
    assert config["bos_token_id"] == 1
    theirs = transformers.GenerationConfig.from_pretrained(folder)
    assert (theirs.temperature, theirs.top_p, theirs.do_sample) == (0.6, 0.9, True)
    assert (theirs.eos_token_id, theirs.pad_token_id) == (list(eos), 0)
    assert set(eos) <= set(read_settings(folder).eos_ids)


@pytest.mark.parametrize("raw", [MISTRAL, LLAMA], ids=["mistral", "llama"])
def test_a_plain_export(sample, tmp_path, raw):
    folder = speaking(sample, tmp_path / "folder", raw)
    export(folder=str(folder), out=str(tmp_path / "out"))
    assert_kept(tmp_path / "out")
    assert is_equal(folder, tmp_path / "out")
    export(folder=str(tmp_path / "out"), out=str(tmp_path / "again"))
    for name in ("config.json", "generation_config.json"):
        assert (tmp_path / "again" / name).read_text() == (tmp_path / "out" / name).read_text()


def test_a_merged_adapter(sample, tmp_path):
    base = speaking(sample, tmp_path / "base")
    adapter = save(adapted(base, LoraConfig(rank=2, alpha=4.0)), tmp_path / "adapter", base)
    export(folder=str(adapter), out=str(tmp_path / "merged"))
    assert_kept(tmp_path / "merged")
    options = {"merge": "adapters", "adapters": [str(adapter)], "weights": [0.5]}
    export(folder=str(base), out=str(tmp_path / "sum"), **options)
    assert_kept(tmp_path / "sum")


def test_a_blend_and_task_arithmetic(sample, tmp_path):
    base = speaking(sample, tmp_path / "base", generation={"eos_token_id": 3, "top_k": 7})
    tuned = speaking(sample, tmp_path / "tuned", seed=1)
    other = speaking(sample, tmp_path / "other", seed=2)
    export(folder=str(tuned), blend=str(base), blend_weight=0.5, out=str(tmp_path / "blend"))
    assert_kept(tmp_path / "blend")
    export(
        folder=str(base),
        merge="task_arithmetic",
        tuned=[str(tuned), str(other)],
        weights=[0.5, 0.5],
        out=str(tmp_path / "sum"),
    )
    found = get_json(tmp_path / "sum" / "generation_config.json")
    assert found == GENERATION | {"eos_token_id": [3, 2, 78, 77], "top_k": 7}


def test_a_chat_vector_ends_where_the_chat_model_does(sample, tmp_path, capsys):
    ours = speaking(sample, tmp_path / "ours", generation={"eos_token_id": 2, "temperature": 0.2})
    chat = speaking(sample, tmp_path / "chat", seed=1)
    base = speaking(sample, tmp_path / "base", seed=2)
    options = {"folder": str(ours), "chat": str(chat), "base": str(base), "merge": "chat_vector"}
    export(**options, out=str(tmp_path / "out"), progress=True)
    found = get_json(tmp_path / "out" / "generation_config.json")
    assert found == GENERATION | {"eos_token_id": [2, 78, 77], "temperature": 0.2}
    line = f"generation_config.json: temperature are taken from {ours}, not from {chat}"
    assert line in capsys.readouterr().out


def test_a_grown_vocabulary(sample, tmp_path):
    padded = {"vocab_size": 2052}
    suppressed = GENERATION | {"suppress_tokens": [5, 2048, 2049, 2050, 2051]}
    base = speaking(sample, tmp_path / "base", generation=suppressed, **padded)
    (tmp_path / "words.txt").write_text("metamorphism\nplagioclase\nperidotite\n")
    texts = tmp_path / "texts.txt"
    texts.write_text("metamorphism of plagioclase and peridotite. " * 30)
    grow(
        GrowConfig(
            base=str(base),
            corpus=[str(texts)],
            candidates=[str(tmp_path / "words.txt")],
            learn=False,
            target_vocab_size=2050,
            reserved=0,
            pad_to_multiple_of=4,
            rules=Rules(scripts=None),
            held_out_fraction=0.0,
            loss_bytes=0,
            out=str(tmp_path / "grown"),
            device="cpu",
        ),
        say=lambda _: None,
    )
    found = get_json(tmp_path / "grown" / "generation_config.json")
    rows = get_json(tmp_path / "grown" / "config.json")["vocab_size"]
    assert found["suppress_tokens"] == [5, *range(2050, rows)]  # new pieces can be generated
    assert_kept(
        tmp_path / "grown", generation=suppressed | {"suppress_tokens": found["suppress_tokens"]}
    )


def test_settings_that_stand_in_config_json_only(sample, tmp_path):
    """Where there is no generation_config.json, transformers takes config.json's."""
    raw = {"temperature": 0.7, "do_sample": True, "repetition_penalty": 1.1}
    folder = speaking(sample, tmp_path / "folder", generation=None, **raw)
    export(folder=str(folder), out=str(tmp_path / "out"))
    before, after = (
        hf_model(path).generation_config.to_diff_dict() for path in (folder, tmp_path / "out")
    )
    before.pop("_from_model_config", None)
    assert after == before
    assert after["eos_token_id"] == [2, 78]


@pytest.mark.parametrize(
    ("generation", "config", "eos"),
    [
        ({"eos_token_id": [7, 9]}, {"eos_token_id": 8}, [7, 9, 8]),
        ({"eos_token_id": 7}, {"eos_token_id": None}, [7]),
        ({}, {"eos_token_id": [7, 8]}, [7, 8]),
        ({"eos_token_id": None}, {"eos_token_id": 7}, [7]),
        (None, {"eos_token_id": [7, 8]}, [7, 8]),
        (None, {"eos_token_id": None}, []),
    ],
    ids=str,
)
def test_what_ends_an_answer_is_all_that_the_folder_names(
    sample, tmp_path, generation, config, eos
):
    folder = speaking(sample, tmp_path / "folder", generation=generation, **config)
    assert read_settings(folder).eos_ids == eos
    assert load_for_generation(LoadConfig(folder=str(folder))).eos_ids == sorted({2, *eos})
    export(folder=str(folder), out=str(tmp_path / "out"))
    named = get_json(tmp_path / "out" / "generation_config.json")["eos_token_id"]
    assert set(named if isinstance(named, list) else [named]) == {2, *eos}


def test_a_folder_that_says_nothing_gets_what_the_tokenizer_says(tmp_path):
    raw = {k: v for k, v in MISTRAL.items() if not k.endswith("token_id")}
    model = load_pretrained(hf_folder(tmp_path / "folder", raw))
    write_folder(tmp_path / "bare", model.config, model.named_parameters())
    assert get_json(tmp_path / "bare" / "generation_config.json") == {}
    assert NO_SETTINGS.eos_ids == []


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("generation_config.json", {"eos_token_id": "</s>"}, "eos_token_id='</s>': not the id"),
        ("generation_config.json", {"eos_token_id": ["</s>"]}, "eos_token_id="),
        ("generation_config.json", {"eos_token_id": 10**9}, "eos_token_id=1000000000: not the id"),
        (
            "generation_config.json",
            {"eos_token_id": [2, 97]},
            r"eos_token_id=\[2, 97\]: .* 0 to 96",
        ),
        ("generation_config.json", {"eos_token_id": -5}, "eos_token_id=-5"),
        ("generation_config.json", {"eos_token_id": True}, "eos_token_id=True"),
        ("generation_config.json", {"eos_token_id": {"id": 2}}, "eos_token_id="),
        ("generation_config.json", {"bos_token_id": [1]}, r"bos_token_id=\[1\]"),
        ("generation_config.json", {"suppress_tokens": [97]}, r"suppress_tokens=\[97\]"),
        ("generation_config.json", [1], "not a JSON object"),
        ("config.json", MISTRAL | {"eos_token_id": 2.0}, "eos_token_id=2.0"),
        ("config.json", MISTRAL | {"pad_token_id": 97}, "pad_token_id=97"),
    ],
    ids=str,
)
def test_what_names_no_token_is_refused(tmp_path, file, content, message):
    folder = hf_folder(tmp_path / "folder", generation={"eos_token_id": 2})
    put_json(folder / file, content)
    with pytest.raises(ValueError, match=message) as error:
        load_pretrained(folder)
    assert str(error.value).startswith(str(folder / file))


def test_no_padding_token_may_be_written_as_minus_one(tmp_path):
    folder = hf_folder(tmp_path / "folder", LLAMA | {"pad_token_id": -1})
    assert is_equal(folder)


def test_suppressed_ids_follow_the_vocabulary():
    settings = FolderSettings({}, {"suppress_tokens": [5, 90], "top_k": 3})
    assert settings.without_ids_from(90).generation == {"suppress_tokens": [5], "top_k": 3}
    assert settings.without_ids_from(5).generation == {"top_k": 3}


# ---- tokenizer and rows


def swapped(sample, folder):
    """A tokenizer of which two pieces have each other's ids."""
    model = read_model(sample / "tokenizer" / "tokenizer.model")
    one, other = model.pieces[1000].piece, model.pieces[1001].piece
    model.pieces[1000].piece, model.pieces[1001].piece = other, one
    (folder / "tokenizer.model").write_bytes(model.SerializeToString())
    return folder


def test_data_of_another_vocabulary_than_the_start_is_refused(sample, tmp_path):
    ours = Tokenizer.open(sample / "tokenizer")
    check_same_ids(tmp_path, ours)  # a folder without a tokenizer says nothing
    folder = swapped(sample, tmp_path)
    piece = ours.piece(1000)
    with pytest.raises(ValueError, match=f"id 1000 is .* there and {piece!r} in data.tokenizer"):
        check_same_ids(folder, ours)


def test_a_vocabulary_without_the_last_ids_of_the_start_is_refused(sample, tmp_path):
    model = read_model(sample / "tokenizer" / "tokenizer.model")
    piece = model.pieces.add(piece="loess", score=-1e4)
    (tmp_path / "tokenizer.model").write_bytes(model.SerializeToString())
    with pytest.raises(
        ValueError, match=rf"{piece.piece!r} \(id 2048\) would be taken for padding"
    ):
        check_same_ids(tmp_path, Tokenizer.open(sample / "tokenizer"))


def test_tekken_alone_is_refused_by_the_name_of_the_file_that_is_needed(tmp_path):
    folder = hf_folder(tmp_path / "folder")
    put_json(folder / "tekken.json", {"vocab": []})
    with pytest.raises(ValueError, match=r"the tokenizer\.json of .*tekken\.json is not read"):
        export(folder=str(folder), out=str(tmp_path / "out"))
    assert not (tmp_path / "out").exists()
