import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from data.sample.corpus import documents
from model.transformer import Mistral
from model.weights import fill
from pretrained.safetensors_folder import PretrainedFolder, load_pretrained, write_folder
from tests.helpers.toy import random_tokens, toy_config, toy_model
from tokenizer.expansion.candidates import read_model
from tokenizer.expansion.rules import Rules, main_script
from tokenizer.tokenizer import Tokenizer
from tools.vocabulary.grow import grow
from tools.vocabulary.init_rows import (
    EMBEDDING,
    HEAD,
    METHODS,
    GrownWeights,
    Init,
    NewPieces,
    new_rows,
)
from tools.vocabulary.inputs import GrowConfig
from tools.vocabulary.measure import NO_GROWTH, init_methods

# ---- rows

GONE = ("mean", "noisy_mean", "random", "similar")  # the controls of a study
SUBTOKENS = [[5], [7, 9, 7], [60, 0]]
NEW = NewPieces(num_base_ids=61, subtokens=SUBTOKENS)


def test_methods_do_what_they_say():
    old = torch.randn(61, 32, generator=torch.Generator().manual_seed(1))
    by_hand = {
        "mean_subtoken": [old[5], (2 * old[7] + old[9]) / 3, (old[60] + old[0]) / 2],
        "first_subtoken": [old[5], old[7], old[60]],
    }
    for method, expected in by_hand.items():
        torch.testing.assert_close(new_rows(old, method, NEW), torch.stack(expected))
    assert tuple(by_hand) == METHODS


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_old_ids_are_predicted_as_before(tmp_path, tied, dtype):
    """At every way to begin, from a sharded folder: old rows equal, logits within 1e-6."""
    config = toy_config(tie_word_embeddings=tied)
    model = toy_model(config).to(dtype)
    write_folder(tmp_path / "base", config, model.named_parameters(), max_shard_bytes=9000)
    assert len(list((tmp_path / "base").glob("*.safetensors"))) > 3
    base = PretrainedFolder(tmp_path / "base")
    model = load_pretrained(tmp_path / "base")  # in fp32, what the folder holds
    tokens = random_tokens(config, 2, 24)
    before = model(tokens).detach()
    shape = replace(config, vocab_size=72, num_padded_ids=4)
    for init in init_methods(Init(*METHODS[:1] * 2), tied=tied).values():
        grown = GrownWeights(base, shape, init, NEW)
        with torch.device("meta"):
            larger = Mistral(shape)
        larger.to_empty(device="cpu").tie_weights()
        fill(larger, grown)
        for name, parameter in model.named_parameters():
            assert torch.equal(dict(larger.named_parameters())[name][: len(parameter)], parameter)
        after = larger(tokens)[..., :61].detach()
        assert float((after - before).abs().max()) <= 1e-6


def test_rows_are_read_in_any_slices(tmp_path):
    config = toy_config()
    model = toy_model(config)
    write_folder(tmp_path / "base", config, model.named_parameters())
    base = PretrainedFolder(tmp_path / "base")
    grown = GrownWeights(base, replace(config, vocab_size=70), Init(*METHODS), NEW)
    for name in (EMBEDDING, HEAD):
        whole = grown.read(name, slice(None))
        assert whole.shape == (70, 32)
        for start in range(0, 71, 7):
            for stop in range(start, 71, 7):
                assert torch.equal(grown.read(name, slice(start, stop)), whole[start:stop])
        torch.testing.assert_close(whole[64:], whole[:61].mean(0).expand(6, -1))


@pytest.mark.parametrize(
    ("name", "head", "tied", "message"),
    [
        ("average", None, False, "init='average': one of mean_subtoken"),
        ("mean_subtoken", "last", False, "head_init='last'"),
        ("mean_subtoken", "first_subtoken", True, "this model's head is its embedding"),
        ("eeve", None, True, "this model's head is its embedding"),
        ("eeve", "mean_subtoken", False, "head_init=mean_subtoken with init=eeve"),
        *((gone, None, False, f"init='{gone}': one of mean_subtoken") for gone in GONE),
    ],
)
def test_ways_that_do_not_exist(name, head, tied, message):
    with pytest.raises(ValueError, match=message):
        Init.parse(name, head, tied=tied)


def test_eeve_is_a_mean_and_a_first():
    assert Init.parse("eeve", None, tied=False) == Init("mean_subtoken", "first_subtoken")
    assert Init.parse("first_subtoken", None, tied=True) == Init(*METHODS[1:] * 2)


# ---- the whole

TEMPLATE = "{% for m in messages %}{{ m.content + eos_token }}{% endfor %}"


@pytest.fixture(scope="session")
def base_folder(sample, tmp_path_factory) -> Path:
    """An untrained model with the sample's English tokenizer."""
    tokenizer = Tokenizer.open(sample / "tokenizer")
    config = toy_config(vocab_size=tokenizer.vocab_size)
    folder = tmp_path_factory.mktemp("base") / "model"
    model = toy_model(config)
    write_folder(folder, config, model.named_parameters(), tokenizer=tokenizer)
    names = json.loads((folder / "tokenizer_config.json").read_text())
    names |= {"pad_token": "</s>", "model_max_length": 4096, "chat_template": TEMPLATE}
    (folder / "tokenizer_config.json").write_text(json.dumps(names))
    return folder


def settings_of(base_folder: Path, sample: Path, target: Path, **changes) -> GrowConfig:
    values = {
        "base": str(base_folder),
        "root": str(sample),
        "corpus": ["general_zh", "geo_zh"],
        "measure": ["general_en"],
        "target_vocab_size": 2300,
        "reserved": 10,
        "loss_bytes": 1500,
        "device": "cpu",
        "out": str(target),
    }
    return GrowConfig(**(values | changes))


@pytest.fixture(scope="session")
def grown(base_folder, sample, tmp_path_factory):
    out = tmp_path_factory.mktemp("grown") / "folder"
    return out, grow(settings_of(base_folder, sample, out), say=lambda _: None)


def test_the_folder_is_a_model(grown, base_folder):
    out, _ = grown
    tokenizer, fast = Tokenizer.open(out), AutoTokenizer.from_pretrained(out)
    assert tokenizer.vocab_size == 2300
    assert (fast.pad_token, fast.model_max_length) == ("</s>", 4096)
    assert fast.chat_template == TEMPLATE
    text = "花岗岩 is a rock, 由石英组成。"
    assert fast(text, add_special_tokens=False)["input_ids"] == tokenizer.encode(text)
    model, theirs = load_pretrained(out), AutoModelForCausalLM.from_pretrained(out)
    assert model.config.vocab_size == 2304
    assert model.config.num_padded_ids == 4
    assert model.config.num_base_ids == 2048
    ids = torch.tensor([[tokenizer.bos_id, *tokenizer.encode(text)]])
    torch.testing.assert_close(model(ids).detach(), theirs(ids).logits, rtol=1e-4, atol=1e-4)
    assert theirs.generation_config.suppress_tokens == [2300, 2301, 2302, 2303]
    before = load_pretrained(base_folder)
    for name in (EMBEDDING, HEAD):
        one, other = (dict(m.named_parameters())[name] for m in (before, model))
        assert torch.equal(one, other[: len(one)])


def same_bytes(one: list[int], other: list[int], widths: list[int]) -> int:
    """Bytes in tokens that stand at the same place in both."""

    def placed(ids: list[int]) -> set[tuple[int, int]]:
        start, found = 0, set()
        for id in ids:
            found.add((start, id))
            start += widths[id]
        return found

    return sum(widths[id] for _, id in placed(one) & placed(other))


def test_what_is_measured_is_so(grown, base_folder, sample):
    """Against the plain definitions, on the same texts."""
    out, summary = grown
    old, new = Tokenizer.open(base_folder), Tokenizer.open(out)
    widths = [
        1 if p.piece.startswith("<0x") else len(p.piece.replace("▁", " ").encode())
        for p in read_model(out / "tokenizer.model").pieces
    ]
    measured = {c.name: c for c in summary.compressions}
    assert list(measured) == ["general_zh", "geo_zh", "general_en"]
    for name, c in measured.items():
        held_out = [
            json.loads(line)["text"]
            for line in (sample / name / "held_out.jsonl").read_text().splitlines()
        ]
        if c.kind == "held out":
            assert c.documents == len(held_out)
            assert c.utf8_bytes == sum(len(text.encode()) for text in held_out)
            assert c.before == sum(len(old.encode(text)) for text in held_out)
            assert c.after == sum(len(new.encode(text)) for text in held_out)
            assert c.documents_unchanged == sum(old.encode(t) == new.encode(t) for t in held_out)
            assert c.after < 0.7 * c.before
            unchanged = sum(same_bytes(old.encode(t), new.encode(t), widths) for t in held_out)
            total = sum(widths[id] for text in held_out for id in old.encode(text))
            assert c.share_unchanged == unchanged / total > 0
            assert sum(n for *_, n in c.met) > 0
    english = measured["general_en"]
    assert english.kind == "only measured"
    assert english.documents_unchanged == english.documents > 50
    assert english.share_unchanged == 1
    assert [c.script for c in summary.compressions] == ["Han", "Han", "Latin"]
    assert english.before == english.after
    assert not english.met


def test_losses_are_compared_for_every_way(grown, base_folder):
    _, summary = grown
    assert set(summary.losses) == {NO_GROWTH, *METHODS, "eeve"}
    for bits in summary.losses.values():
        assert set(bits) == {"general_zh", "geo_zh", "general_en"}
        assert all(0 < value < 100 for value in bits.values())
    # New ids take probability from the old ones, so nothing can be gained where none is met.
    english = {way: bits["general_en"] for way, bits in summary.losses.items()}
    assert all(english[way] > english[NO_GROWTH] for way in (*METHODS, "eeve"))


def test_the_report_says_it(grown):
    out, summary = grown
    text = re.sub(" +", " ", (out / "report.md").read_text(encoding="utf-8"))
    for heading in ("Tokens per text", "Text that changed", "Candidates", "Longest new pieces"):
        assert f"## {heading}" in text
    c = summary.compressions[0]
    assert f"| {c.name} | held out | {c.utf8_bytes:,} | {c.before:,} | {c.after:,} |" in text
    both = summary.compressions[:2]
    ratio = sum(c.after for c in both) / sum(c.before for c in both)
    assert "| all Han | together |" in text
    assert f"| {ratio:.3f} |" in text
    for rule, pieces in summary.expansion.refused.items():
        assert f"| refused: {rule} | {len(pieces):,} |" in text
    assert f"| no growth | {summary.losses[NO_GROWTH]['general_zh']:.4f} |" in text
    assert (out / "report.png").read_bytes().startswith(b"\x89PNG")


def test_files_give_what_a_prepared_source_gives(base_folder, sample, tmp_path, grown):
    """The same held-out documents, hence the same pieces, from the text that was prepared."""
    changes = {
        "root": str(sample / "corpus"),
        "held_out_fraction": 0.02,
        "loss_bytes": 0,
        "measure": [],
    }
    summary = grow(settings_of(base_folder, sample, tmp_path / "out", **changes), lambda _: None)
    prepared = grown[1]
    assert summary.expansion.model == prepared.expansion.model
    assert summary.compressions == prepared.compressions[:2]
    assert "Not measured" in (tmp_path / "out/report.md").read_text(encoding="utf-8")


def test_scripts_are_those_of_the_corpora(base_folder, sample, tmp_path):
    said = []
    changes = {"corpus": ["geo_zh", "geo_en"], "loss_bytes": 0, "measure": []}
    summary = grow(settings_of(base_folder, sample, tmp_path / "out", **changes), said.append)
    assert any("Han, Latin" in line for line in said)
    assert {main_script([p.piece]) for p in summary.expansion.pieces} == {"Han", "Latin"}


def test_protected_text_keeps_its_tokens(base_folder, sample, tmp_path):
    """Grown for English, too, which changes general English unless that is protected."""
    changes = {"corpus": ["geo_zh", "geo_en"], "loss_bytes": 0, "measure": []}
    changed = []
    for out, protect in (("a", []), ("b", ["general_en"])):
        config = settings_of(base_folder, sample, tmp_path / out, protect=protect, **changes)
        summary = grow(config, lambda _: None)
        assert any(main_script([p.piece]) == "Latin" for p in summary.expansion.pieces)
        texts = [
            json.loads(line)["text"]
            for line in (sample / "corpus/general_en.jsonl").read_text().splitlines()
        ]
        old, new = Tokenizer.open(base_folder), Tokenizer.open(tmp_path / out)
        changed.append(sum(old.encode(text) != new.encode(text) for text in texts))
    assert summary.expansion.refused["protected"]
    held_out = len((sample / "general_en/held_out.jsonl").read_text().splitlines())
    assert changed[0] > 50
    assert changed[1] <= held_out < 20  # what was not read may still change


def test_a_word_list_is_a_candidate(base_folder, sample, tmp_path):
    words = tmp_path / "words.txt"
    words.write_text("沉积岩\n花岗岩\n板块\n大陆\n地壳\n火山\n", encoding="utf-8")
    changes = {
        "candidates": [str(words)],
        "learn": False,
        "target_vocab_size": 2048 + 10 + 5,
        "loss_bytes": 0,
    }
    summary = grow(settings_of(base_folder, sample, tmp_path / "out", **changes), lambda _: None)
    origins = {origin for piece in summary.expansion.pieces for origin in piece.origins}
    assert origins == {"words"}


# ---- what is refused, with nothing half-written


def write(folder: Path, name: str, content: bytes) -> str:
    (folder / name).write_bytes(content)
    return str(folder / name)


def test_refusals(base_folder, sample, tmp_path):
    unigram = tmp_path / "no_model"
    unigram.mkdir()
    (unigram / "config.json").write_text("{}")
    gbk = write(tmp_path, "gbk.txt", "花岗岩是一种岩石。".encode("gbk"))
    empty = write(tmp_path, "empty.jsonl", b"")
    broken = write(tmp_path, "broken.jsonl", b'{"text": "a"}\n{"text": \n')
    words = write(tmp_path, "words.csv", b"a,b")
    cases = [
        ({"base": str(tmp_path / "nothing")}, "base=.*nothing: no config.json"),
        ({"base": str(unigram)}, "base=.*model_type=None"),
        ({"target_vocab_size": 2000}, "target_vocab_size=2000: the base has 2048 pieces"),
        ({"target_vocab_size": 2058}, "set it above 2058"),
        ({"target_vocab_size": 900_000}, "the candidates allow"),
        ({"corpus": [empty]}, "source 'empty' gives no text"),
        ({"corpus": [gbk]}, r"gbk.txt, record 1: invalid UTF-8; correct the record"),
        ({"corpus": [broken]}, r"broken.jsonl, record 2: invalid JSON"),
        ({"corpus": ["general_zh", "nowhere"]}, "corpus nowhere: .*matches no file"),
        (
            {"corpus": ["general_en"], "measure": ["general_en"]},
            "measure: general_en is named twice",
        ),
        ({"out": str(base_folder)}, "out=.* exists; choose another folder"),
        ({"corpus": [write(tmp_path, "digits.txt", b"12 34")]}, "'none' is none of Arabic"),
        ({"measure": [gbk]}, "gbk.txt, record 1: invalid UTF-8"),
        ({"measure": [write(tmp_path, "blank.jsonl", b'{"text": ""}\n')]}, "blank has no text"),
        (
            {"candidates": [write(tmp_path, "learned.txt", b"a")]},
            "'learned' is the name of another",
        ),
        ({"candidates": [str(tmp_path / "no.txt")]}, "no.txt: no such file; give a .model"),
        ({"device": "gpu"}, "device='gpu': one of auto, cpu, cuda"),
        ({"out": words + "/out"}, "words.csv is not a writable folder"),
        ({"init": "best"}, "init='best': one of"),
        ({"candidates": [words]}, "words.csv; give sentencepiece .model files or .txt"),
        ({"candidates": [write(tmp_path, "gbk2.txt", "岩".encode("gbk"))]}, "in UTF-8"),
    ]
    before = sorted(tmp_path.iterdir())
    with pytest.raises(ValueError, match="pad_to_multiple_of=0: must be at least 1"):
        settings_of(base_folder, sample, tmp_path / "out", pad_to_multiple_of=0)
    for changes, message in cases:
        config = settings_of(base_folder, sample, tmp_path / "out", **changes)
        with pytest.raises(ValueError, match=message):
            grow(config, lambda _: None)
        assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"base": ""}, "base is empty"),
        ({"corpus": []}, "corpus is empty"),
        ({"weights": [1.0]}, "one weight for each of 2 corpora"),
        ({"weights": [1.0, 0.0]}, "must be positive"),
        ({"learn": False}, "nothing to choose from"),
        ({"held_out_fraction": 1.0}, "held_out_fraction=1.0"),
        ({"loss_bytes": -1}, "loss_bytes=-1"),
    ],
)
def test_bad_values(base_folder, sample, tmp_path, changes, message):
    with pytest.raises(ValueError, match=message):
        settings_of(base_folder, sample, tmp_path / "out", **changes)


def test_a_base_without_its_tokenizer(base_folder, sample, tmp_path):
    tokenizer = Tokenizer.open(base_folder)
    small = toy_config(vocab_size=tokenizer.vocab_size - 1)
    write_folder(tmp_path / "a", small, toy_model(small).named_parameters(), tokenizer=tokenizer)
    write_folder(tmp_path / "b", small, toy_model(small).named_parameters())
    for folder, message in (("a", "do not belong together"), ("b", "no tokenizer.model")):
        with pytest.raises(ValueError, match=message):
            grow(settings_of(tmp_path / folder, sample, tmp_path / "out"), lambda _: None)
    other = settings_of(base_folder, sample, tmp_path / "out", rules=Rules(scripts=("Thai",)))
    with pytest.raises(ValueError, match="the candidates allow"):
        grow(other, lambda _: None)
    assert not (tmp_path / "out").exists()
    assert not (tmp_path / "out.tmp").exists()


def test_tokens_behind_the_pieces_are_not_overwritten(base_folder, sample, tmp_path):
    tokenizer = Tokenizer.open(base_folder)
    larger = toy_config(vocab_size=tokenizer.vocab_size + 2)
    write_folder(tmp_path / "a", larger, toy_model(larger).named_parameters(), tokenizer=tokenizer)
    added = {"<|im_start|>": tokenizer.vocab_size, "<s>": 1}
    (tmp_path / "a" / "added_tokens.json").write_text(json.dumps(added))
    with pytest.raises(ValueError, match=r"<\|im_start\|> were added after the 2048 pieces"):
        grow(settings_of(tmp_path / "a", sample, tmp_path / "out"), lambda _: None)


def test_main_script():
    assert main_script(documents("geo_zh", scale=0.01)) == "Han"
    assert main_script(["Sandstone 12", "岩"]) == "Latin"
    assert main_script(["12 %"]) == "none"
