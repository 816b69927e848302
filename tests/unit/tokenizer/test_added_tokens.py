"""Tokens behind the pieces of tokenizer.model, special-token maps and settings are not lost."""

import json
from pathlib import Path

import pytest
from sentencepiece import SentencePieceProcessor
from sentencepiece.sentencepiece_model_pb2 import ModelProto
from tokenizers import AddedToken
from transformers import AutoTokenizer

from tests.helpers.chat_folders import (
    CHATML,
    TEXTS,
    byte_level_folder,
    pieces,
    put,
    sentencepiece_folder,
)
from tokenizer.hf_export import CONTROL
from tokenizer.tokenizer import Tokenizer

TERMS = ("metamorphism", "loess", "岩石圈", "plagioclase")
ODD = (
    *(
        "metamorphism of plagioclase",
        "loessloess loess's",
        "a loess",
        " loess ",
        "岩石圈的",
        "",
        " ",
    ),
    *("The loess\n  metamorphism", "Loess", "aloessb", "  two", "</s> loess <s>", "\tx", "e\u0301"),
)
SIZE = 420


def read(folder: Path, name: str) -> dict:
    return json.loads((folder / name).read_text(encoding="utf-8"))


def test_domain_terms_are_ids_as_in_transformers(tmp_path):
    folder = sentencepiece_folder(tmp_path, add=TERMS)
    ours, theirs = Tokenizer.open(folder), AutoTokenizer.from_pretrained(folder)
    assert ours.vocab_size == len(theirs) == SIZE + 4
    split = AutoTokenizer.from_pretrained(folder, split_special_tokens=True)
    for text in ODD:
        assert ours.encode(text) == split(text, add_special_tokens=False)["input_ids"], text
    assert {SIZE, SIZE + 3} <= set(ours.encode("metamorphism of plagioclase"))
    assert ours.encode_batch(list(ODD)) == [ours.encode(text) for text in ODD]
    for id, term in enumerate(TERMS, SIZE):
        assert ours.piece(id) == term
        assert ours.decode([id]) == term
    ours.save(tmp_path / "saved")
    again, after = (
        Tokenizer.open(tmp_path / "saved"),
        AutoTokenizer.from_pretrained(tmp_path / "saved"),
    )
    assert again.fingerprint == ours.fingerprint
    for text in ODD:
        assert after(text)["input_ids"] == theirs(text)["input_ids"]
    assert (tmp_path / "saved/tokenizer.model").read_bytes() == pieces()


def test_special_added_tokens_never_come_from_text(tmp_path):
    folder = sentencepiece_folder(
        tmp_path, CHATML, special=("<|im_end|>",), add=("<|im_start|>",), eos_token="<|im_end|>"
    )
    ours, theirs = Tokenizer.open(folder), AutoTokenizer.from_pretrained(folder)
    assert ours.eos_id == theirs.eos_token_id == SIZE
    assert SIZE not in ours.encode("a<|im_end|>b <|im_end|>")
    assert ours.encode("a<|im_end|>", control_symbols=True)[-1] == SIZE
    assert ours.decode([*ours.encode("a"), SIZE]) == "a"


def test_the_fingerprint_covers_added_tokens_and_else_stays(tmp_path):
    plain = sentencepiece_folder(tmp_path / "plain")
    alone = Tokenizer.open(plain / "tokenizer.model").fingerprint
    assert Tokenizer.open(plain).fingerprint == alone
    (plain / "tokenizer.json").unlink()
    assert Tokenizer.open(plain).fingerprint == alone
    one = Tokenizer.open(sentencepiece_folder(tmp_path / "one", add=("loess",))).fingerprint
    two = Tokenizer.open(sentencepiece_folder(tmp_path / "two", add=("granite",))).fingerprint
    assert len({alone, one, two}) == 3


def old_folder(tmp_path: Path, added: dict[str, int], **config: object) -> Path:
    """A folder before tokenizer.json: tokenizer.model, added_tokens.json, two small files."""
    tmp_path.mkdir(exist_ok=True)
    (tmp_path / "tokenizer.model").write_bytes(pieces())
    put(tmp_path, "added_tokens.json", added)
    put(tmp_path, "tokenizer_config.json", config)
    put(tmp_path, "special_tokens_map.json", {"bos_token": "<s>", "eos_token": "</s>"})
    return tmp_path


def test_tokens_of_added_tokens_json_alone(tmp_path):
    """OpenOrca: 32,002 rows, and added_tokens.json lists the pieces 0 to 2 too."""
    listed = {"<unk>": 0, "<s>": 1, "</s>": 2, "<pad>": SIZE + 1, "<|end_of_turn|>": SIZE}
    ours = Tokenizer.open(old_folder(tmp_path / "old", listed, pad_token="<pad>"))
    assert (ours.vocab_size, ours.pad_id) == (SIZE + 2, SIZE + 1)
    assert ours.encode("hi <|end_of_turn|>")[-1] == SIZE
    assert SIZE + 1 not in ours.encode("hi <pad>")
    plain = Tokenizer.open(tmp_path / "old/tokenizer.model")
    for text in TEXTS:
        assert ours.encode(text) == plain.encode(text)
    ours.save(tmp_path / "saved")
    theirs = AutoTokenizer.from_pretrained(tmp_path / "saved")
    assert (len(theirs), theirs.pad_token_id) == (SIZE + 2, SIZE + 1)
    for text in (*TEXTS, "hi <|end_of_turn|>", "a<|end_of_turn|>b"):
        assert theirs(text, add_special_tokens=False)["input_ids"] == ours.encode(text)
    assert Tokenizer.open(tmp_path / "saved").encode("a<|end_of_turn|>b") == ours.encode(
        "a<|end_of_turn|>b"
    )


def test_tokens_of_the_config_alone(tmp_path):
    """A special token and a term that only `added_tokens_decoder` names."""
    flags = dict.fromkeys(("lstrip", "rstrip", "single_word", "normalized"), False)
    decoder = {
        str(SIZE): {"content": "<|sep|>", **flags, "special": True},
        str(SIZE + 1): {"content": "gneiss", **flags, "special": False},
    }
    ours = Tokenizer.open(old_folder(tmp_path, {}, added_tokens_decoder=decoder))
    assert ours.vocab_size == SIZE + 2
    assert SIZE not in ours.encode("a <|sep|>")
    assert SIZE + 1 in ours.encode("a gneiss")


@pytest.mark.parametrize("flag", ["lstrip", "rstrip", "single_word", "normalized"])
@pytest.mark.parametrize("value", [False, True])
def test_flags_are_those_of_transformers(tmp_path, flag, value):
    options = {"lstrip": False, "rstrip": False, "single_word": False, "normalized": False}
    token = AddedToken("loess", **(options | {flag: value}))
    folder = sentencepiece_folder(tmp_path, add=(token,))
    ours = Tokenizer.open(folder)
    split = AutoTokenizer.from_pretrained(folder, split_special_tokens=True)
    for text in ODD:
        assert ours.encode(text) == split(text, add_special_tokens=False)["input_ids"], text


def test_a_token_that_strips_in_a_template(tmp_path):
    """Phi-3: what ends a turn takes the white space behind it."""
    template = (
        "{% for m in messages %}{{ '<|' + m['role'] + '|>\n' + m['content'] + '<|end|>\n' }}"
        "{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}"
    )
    from tokenizer.chat import Message, encode_conversation, encode_prompt

    names = ("<|user|>", "<|assistant|>", "<|end|>")
    special = tuple(AddedToken(name, rstrip=True, normalized=False) for name in names)
    folder = sentencepiece_folder(tmp_path, template, special=special)
    ours, theirs = Tokenizer.open(folder), AutoTokenizer.from_pretrained(folder)
    said = [Message("user", "Why?"), Message("assistant", "Loess.")] * 2
    dicts = [m.as_dict() for m in said]
    encoded = encode_conversation(ours, said)
    assert encoded.ids == theirs.apply_chat_template(dicts, return_dict=False)
    asked = theirs.apply_chat_template(dicts[:3], add_generation_prompt=True, return_dict=False)
    assert encode_prompt(ours, said[:3]) == asked == encoded.ids[: len(asked)]
    ends = [i for i, id in enumerate(encoded.ids) if ours.piece(id) == "<|end|>"]
    assert [encoded.supervised[i] for i in ends] == [False, True, False, True]


# ---- files that disagree


def test_two_names_for_one_id_are_refused(tmp_path):
    folder = sentencepiece_folder(tmp_path, add=("loess",))
    put(folder, "added_tokens.json", {"granite": SIZE})
    with pytest.raises(ValueError, match=rf"id {SIZE} 'granite', another file 'loess'"):
        Tokenizer.open(folder)


def test_two_ids_for_one_name_are_refused(tmp_path):
    folder = sentencepiece_folder(tmp_path, add=("loess",))
    put(folder, "added_tokens.json", {"loess": SIZE + 1})
    with pytest.raises(ValueError, match=rf"'loess' the id {SIZE + 1}, another file {SIZE}"):
        Tokenizer.open(folder)


def test_an_added_token_on_a_piece_is_refused(tmp_path):
    folder = old_folder(tmp_path, {"loess": 300})
    with pytest.raises(ValueError, match=r"id 300 is .* in tokenizer\.model.*'loess'"):
        Tokenizer.open(folder)


def test_a_tokenizer_json_of_other_pieces_is_refused(tmp_path):
    folder = sentencepiece_folder(tmp_path)
    model = ModelProto()
    model.ParseFromString((folder / "tokenizer.model").read_bytes())
    model.pieces[300].piece, model.pieces[301].piece = (
        model.pieces[301].piece,
        model.pieces[300].piece,
    )
    (folder / "tokenizer.model").write_bytes(model.SerializeToString())
    with pytest.raises(ValueError, match=r"has the id 300 in tokenizer\.model and 301"):
        Tokenizer.open(folder)
    model.pieces.add(piece="newpiece", score=-1e5)
    (folder / "tokenizer.model").write_bytes(model.SerializeToString())
    with pytest.raises(ValueError, match="keep the files that belong to the weights"):
        Tokenizer.open(folder)


def test_a_hole_in_the_ids_is_kept(tmp_path):
    """`tokenizers` would number the token by the size of the vocabulary."""
    ours = Tokenizer.open(old_folder(tmp_path, {"loess": SIZE + 5}))
    assert ours.encode("loess") == [SIZE + 5]
    assert ours.vocab_size == SIZE + 6


def test_a_special_token_without_an_id_is_refused(tmp_path):
    """transformers would invent an id, beyond the rows of the model."""
    for number, names in enumerate(({"pad_token": "[PAD]"}, {"extra_special_tokens": ["[PAD]"]})):
        folder = old_folder(tmp_path / str(number), {}, **names)
        with pytest.raises(ValueError, match=r"'\[PAD\]', which no file gives an id"):
            Tokenizer.open(folder)


@pytest.mark.parametrize("with_decoder", [False, True])
def test_the_map_counts_as_in_transformers(tmp_path, with_decoder):
    folder = sentencepiece_folder(
        tmp_path, special=("<|im_end|>",), keep_model=False, eos_token="<|im_end|>"
    )
    config = read(folder, "tokenizer_config.json")
    decoder = {str(SIZE): {"content": "<|im_end|>", "special": True, "normalized": False}}
    config.pop("added_tokens_decoder", None)
    named = {"added_tokens_decoder": decoder} if with_decoder else {}
    put(folder, "tokenizer_config.json", config | named)
    put(folder, "special_tokens_map.json", {"bos_token": "<s>", "eos_token": {"content": "</s>"}})
    ours, theirs = Tokenizer.open(folder), AutoTokenizer.from_pretrained(folder)
    assert ours.eos_id == theirs.eos_token_id == (SIZE if with_decoder else 2)


# ---- what is kept


def test_settings_of_the_config_are_kept(tmp_path):
    kept = {"model_max_length": 4096, "padding_side": "left", "pad_token": "</s>", "my_key": [1]}
    folder = sentencepiece_folder(
        tmp_path, "{{ messages }}", **kept, tokenizer_class="LlamaTokenizer"
    )
    ours = Tokenizer.open(folder)
    ours.save(tmp_path / "saved")
    config = read(tmp_path / "saved", "tokenizer_config.json")
    assert {k: config[k] for k in kept} == kept
    assert config["chat_template"] == "{{ messages }}"
    assert config["tokenizer_class"] == "PreTrainedTokenizerFast"
    theirs = AutoTokenizer.from_pretrained(tmp_path / "saved")
    assert (theirs.pad_token_id, theirs.padding_side, theirs.model_max_length) == (2, "left", 4096)
    assert theirs.chat_template == "{{ messages }}"
    assert ours.pad_id == 2


def test_a_class_that_rebuilds_the_tokenizer_is_not_written(tmp_path):
    """transformers gives other ids for this file under the class GPT2Tokenizer."""
    names = {"bos_token": "<s>", "eos_token": "</s>", "tokenizer_class": "GPT2Tokenizer"}
    folder = byte_level_folder(tmp_path, None, ("<s>", "</s>"), first=False, **names)
    ours = Tokenizer.open(folder)
    ours.save(tmp_path / "saved")
    theirs = AutoTokenizer.from_pretrained(tmp_path / "saved")
    for text in (*TEXTS, *ODD):
        if "<" not in text:
            assert theirs(text, add_special_tokens=False)["input_ids"] == ours.encode(text)


# ---- pieces of one score


def tied_model() -> bytes:
    """Pieces appended at score 0, as published merge scripts leave them."""
    model = ModelProto()
    model.ParseFromString(pieces())
    have = {piece.piece for piece in model.pieces}
    for new in ("土是", "黄土", "是风", "岩石", "石组", "组成", "地壳", "壳由", "由岩"):
        for piece in (*new, new):
            if piece not in have:
                model.pieces.add(piece=piece, score=0.0)
                have.add(piece)
    return model.SerializeToString()


def folder_of_its_own_json(folder: Path) -> Path:
    """The tied model with a tokenizer.json whose merges are in the order of the ids."""
    from tokenizers import Tokenizer as Backend
    from tokenizers.models import BPE

    folder.mkdir(parents=True, exist_ok=True)
    model = ModelProto()
    model.ParseFromString(tied_model())
    (folder / "tokenizer.model").write_bytes(tied_model())
    vocab = {piece.piece: id for id, piece in enumerate(model.pieces)}
    ranked = sorted(model.pieces, key=lambda p: (-p.score, vocab[p.piece]))
    merges = [
        (p.piece[:at], p.piece[at:])
        for p in ranked
        for at in range(1, len(p.piece))
        if p.piece[:at] in vocab and p.piece[at:] in vocab and p.type == 1
    ]
    backend = Backend(BPE(vocab, merges, byte_fallback=True, fuse_unk=True, unk_token="<unk>"))
    description = json.loads(backend.to_str())
    steps = [
        {"type": "Prepend", "prepend": "▁"},
        {"type": "Replace", "pattern": {"String": " "}, "content": "▁"},
    ]
    description["normalizer"] = {"type": "Sequence", "normalizers": steps}
    control = [(i, p.piece) for i, p in enumerate(model.pieces) if p.type in (2, CONTROL)]
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    description["added_tokens"] = [
        {"id": id, "content": content, **flags, "special": True} for id, content in control
    ]
    put(folder, "tokenizer.json", description)
    names = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    put(folder, "tokenizer_config.json", names | {"tokenizer_class": "PreTrainedTokenizerFast"})
    return folder


def test_tied_pieces_take_the_ids_of_the_folders_own_file(tmp_path):
    folder = folder_of_its_own_json(tmp_path / "tied")
    ours, theirs = Tokenizer.open(folder), AutoTokenizer.from_pretrained(folder)
    model = SentencePieceProcessor(model_proto=tied_model())
    texts = ["地壳由岩石组成", "黄土是风积的", "What is loess?", "岩石组成", "土是风"]
    for text in texts:
        assert ours.encode(text) == theirs(text, add_special_tokens=False)["input_ids"]
    differing = sum(ours.encode(text) != model.encode(text) for text in texts)
    assert ours.second_opinion(texts) == differing > 0
    ours.check_exportable()
    ours.save(tmp_path / "saved")
    for name in ("tokenizer.model", "tokenizer.json"):
        assert (tmp_path / "saved" / name).read_bytes() == (folder / name).read_bytes()
    assert Tokenizer.open(tmp_path / "saved").fingerprint == ours.fingerprint


def test_tied_pieces_alone_are_refused_before_work(tmp_path):
    from data.prepare.documents import PrepareConfig, prepare

    (tmp_path / "tied.model").write_bytes(tied_model())
    (tmp_path / "text.jsonl").write_text('{"text": "loess"}\n')
    config = PrepareConfig(
        name="x",
        inputs=[str(tmp_path / "text.jsonl")],
        tokenizer=str(tmp_path / "tied.model"),
        out=str(tmp_path / "out"),
    )
    with pytest.raises(ValueError, match=r"tied\.model: piece .* ties in score.*tokenizer\.json"):
        prepare(config, progress=False)
    assert not list(tmp_path.glob("out*"))


def test_the_user_is_told_how_far_the_files_differ(tmp_path):
    from data.prepare.conversations import PrepareConversationsConfig, compare_on_messages
    from data.prepare.documents import PrepareConfig, compare_on_documents

    folder = folder_of_its_own_json(tmp_path / "tied")
    texts = ["地壳由岩石组成", "silt", "黄土是风积的", "loess"]
    ours = Tokenizer.open(folder)
    differing = ours.second_opinion(texts)
    (tmp_path / "text.jsonl").write_text("\n".join(json.dumps({"text": t}) for t in texts))
    shared = {"name": "x", "tokenizer": str(folder), "out": str(tmp_path / "out")}
    config = PrepareConfig(inputs=[str(tmp_path / "text.jsonl")], **shared)
    line = compare_on_documents(config)
    assert f"gives other ids for {differing} of the first 4 texts" in line
    messages = [
        {"role": r, "content": t} for r, t in zip(("user", "assistant") * 2, texts, strict=True)
    ]
    (tmp_path / "said.jsonl").write_text(json.dumps({"messages": messages}) + "\n")
    asked = PrepareConversationsConfig(
        inputs=[str(tmp_path / "said.jsonl")], max_tokens=50, **shared
    )
    assert f"gives other ids for {differing} of the first 4 texts" in compare_on_messages(asked)
    plain = PrepareConfig(**(shared | {"tokenizer": str(sentencepiece_folder(tmp_path / "p"))}),
                          inputs=[str(tmp_path / "text.jsonl")])  # fmt: skip
    assert compare_on_documents(plain) is None


# ---- other refusals


def test_tekken_json_is_named(tmp_path):
    put(tmp_path, "tekken.json", {"config": {}, "vocab": []})
    with pytest.raises(ValueError, match=r"tekken\.json is not read: add the tokenizer\.json"):
        Tokenizer.open(tmp_path)


@pytest.mark.parametrize("bos_in_config", [False, True])
def test_a_tokenizer_without_bos_is_refused_with_the_reason(tmp_path, bos_in_config):
    names = {"bos_token": None, "eos_token": "<|im_end|>", "add_bos_token": False}
    folder = byte_level_folder(
        tmp_path, CHATML, ("<|endoftext|>", "<|im_start|>", "<|im_end|>"), **names
    )
    if bos_in_config:
        put(folder, "config.json", {"bos_token_id": 0})
    with pytest.raises(ValueError, match=r"no BOS id.*EOS alone \(Qwen, OLMo\) is not supported"):
        Tokenizer.open(folder)


@pytest.mark.parametrize("content", ["{", "[]", '{"model": {}}', '{"model": {"vocab": {}}}'])
def test_a_damaged_tokenizer_json_is_refused(tmp_path, content):
    (tmp_path / "tokenizer.json").write_text(content)
    with pytest.raises(ValueError, match=r"tokenizer\.json"):
        Tokenizer.open(tmp_path)
