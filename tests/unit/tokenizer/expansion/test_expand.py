import random
from collections import Counter
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sentencepiece import SentencePieceProcessor
from sentencepiece.sentencepiece_model_pb2 import ModelProto
from transformers import AutoTokenizer

from tests.helpers.draws import examples
from tests.unit.tokenizer.test_tokenizer import (
    CORPUS,
    LITERALS,
    ODD,
    add,
    adversarial,
    assert_agree,
    backend,
    corpus_lines,
    messy,
    parse,
)
from tokenizer.expansion.candidates import (
    Source,
    learn_pieces,
    model_pieces,
    read_model,
    sample_texts,
    word_pieces,
)
from tokenizer.expansion.expand import Expansion, expand, padded_rows
from tokenizer.expansion.rules import Rules
from tokenizer.hf_export import CONTROL, NORMAL, UNKNOWN, USER_DEFINED
from tokenizer.tokenizer import Tokenizer
from tokenizer.train import train_bpe

WORDS = [
    *("中华人民共和国", "越来越", "意大利", "博物馆", "地壳", "地幔", "岩石", "板块", "地质学"),
    *("沉积岩", "花岗岩", "火山", "地震", "海洋", "由", "组成", "的", "在", "之下", "了", "和"),
    *("是", "山水", "玄武岩", "研究", "研究生", "生命", "国务院", "人民", "共和国"),
]
HAN_RANGES = ("\u2e80", "\u2fdf"), ("\u3005", "\u3007"), ("\u3400", "\u9fff"), ("\uf900", "\ufaff")


def chinese(seed: int, count: int) -> list[str]:
    """Sentences of the words, now and then with a space, digits or English between them."""
    rng = random.Random(seed)
    between = ["", "", "", "", "，", "。", " GPS ", " ", "12", " the plates"]
    return [
        "".join(rng.choice(WORDS) + rng.choice(between) for _ in range(rng.randrange(3, 20)))
        for _ in range(count)
    ]


TEXTS = chinese(0, 300)


@pytest.fixture(scope="session")
def base() -> ModelProto:
    """A small English base, with control symbols such as instruct models have."""
    model = parse(train_bpe(CORPUS, vocab_size=480))
    for literal in ("[INST]", "[/INST]"):
        add(model, literal, CONTROL)
    model.trainer_spec.vocab_size = len(model.pieces)
    return model


def grow(base: ModelProto, rows: int, reserved: int = 4, **rules) -> Expansion:
    return expand(
        base,
        {"learnt": learn_pieces(TEXTS, base, vocab_size=460), "words": word_pieces(WORDS)},
        TEXTS,
        target_vocab_size=len(base.pieces) + rows + reserved,
        rules=Rules(**rules),
        reserved=reserved,
    )


def grow_fully(
    base: ModelProto, candidates: list[str], texts: list[str], protected=(), **rules
) -> Expansion:
    """Take every candidate that the texts can use; how many that are, the refusal of more says."""

    def grown_to(target: int) -> Expansion:
        lists = {"words": candidates}
        return expand(
            base,
            lists,
            texts,
            target_vocab_size=target,
            rules=Rules(**rules),
            protected=protected,
        )

    with pytest.raises(ValueError, match="the candidates allow") as refusal:
        grown_to(100_000)
    return grown_to(int(str(refusal.value).split("allow ")[1].split(" ")[0]))


@pytest.fixture(scope="session")
def grown(base) -> Expansion:
    return grow(base, 60)


@pytest.fixture(scope="session")
def before(base) -> SentencePieceProcessor:
    return SentencePieceProcessor(model_proto=base.SerializeToString())


@pytest.fixture(scope="session")
def after(grown) -> SentencePieceProcessor:
    return SentencePieceProcessor(model_proto=grown.model)


@pytest.fixture(scope="session")
def fast(grown):
    return backend(parse(grown.model))


def alone(serialized: bytes, piece: str) -> list[int]:
    """What a piece's own characters give, without a dummy prefix."""
    model = parse(serialized)
    model.normalizer_spec.add_dummy_prefix = False
    model.normalizer_spec.remove_extra_whitespaces = False
    return SentencePieceProcessor(model_proto=model.SerializeToString()).encode(piece)


def tokens(processor: SentencePieceProcessor, texts: list[str]) -> int:
    return sum(len(processor.encode(text)) for text in texts)


# ---- what growing must not change


def test_the_base_is_untouched(base, grown):
    model = parse(grown.model)
    size = len(base.pieces)
    assert len(model.pieces) == size + 64 == model.trainer_spec.vocab_size
    assert list(model.pieces)[:size] == list(base.pieces)
    assert model.normalizer_spec == base.normalizer_spec
    model.trainer_spec.vocab_size = base.trainer_spec.vocab_size
    assert model.trainer_spec == base.trainer_spec


def test_scores_fall_from_below_the_base(base, grown):
    scores = [p.score for p in parse(grown.model).pieces]
    new = scores[len(base.pieces) :]
    assert new == sorted(set(new), reverse=True)
    assert new[0] < min(p.score for p in base.pieces if p.type == NORMAL)


def test_scores_differ_where_float32_is_coarse(base):
    far = ModelProto()
    far.CopyFrom(base)
    add(far, "crust of", NORMAL, -3e8)
    scores = [p.score for p in parse(grow(far, 60).model).pieces][-64:]
    assert scores == sorted(set(scores), reverse=True)
    assert scores[0] < -3e8


without_han = st.text(st.characters(exclude_categories=["Cs"])).map(
    lambda text: "".join(c for c in text if not any(a <= c <= b for a, b in HAN_RANGES))
)
latin_mess = st.lists(
    st.one_of(st.sampled_from([o for o in ODD if o != "你好"] + LITERALS), without_han)
).map("".join)


@examples(500)
@given(text=latin_mess)
def test_text_without_han_is_unchanged(before, after, text):
    assert after.encode(text) == before.encode(text)


def test_english_is_unchanged(before, after):
    for text in CORPUS[:-1]:
        assert after.encode(text) == before.encode(text)


def test_text_without_a_new_piece_is_unchanged(before, after, grown):
    rng = random.Random(0)
    new = {p.piece for p in grown.pieces}
    characters = [c for c in set("".join(TEXTS)) if c not in new] + list("山水地的, a")
    unchanged = 0
    for _ in range(3000):
        text = "".join(rng.choices(characters, k=rng.randrange(6)))
        if not any(piece in ("\u2581" + text).replace(" ", "\u2581") for piece in new):
            unchanged += 1
            assert after.encode(text) == before.encode(text)
    assert unchanged > 300


def test_special_symbols_behave_as_before(base, grown, tmp_path):
    tokenizers = []
    for name, model in [("old", base.SerializeToString()), ("new", grown.model)]:
        (tmp_path / name).write_bytes(model)
        tokenizers.append(Tokenizer.open(tmp_path / name))
    old, new = tokenizers
    for name in ("bos_id", "eos_id", "unk_id", "pad_id"):
        assert getattr(new, name) == getattr(old, name)
    chat = "<s>[INST] 地壳 [/INST] 岩石</s>"
    ids = new.encode(chat, control_symbols=True)
    controls = {new.bos_id, new.eos_id, 480, 481}
    assert [id for id in ids if id in controls] == [1, 480, 481, 2]
    assert ids[2:4] == new.encode(" 地壳 ")[:2]
    assert new.decode(new.encode(chat)) == chat
    assert not set(new.encode(chat)) & controls
    assert old.encode("<s>[INST] hi [/INST]", control_symbols=True) == new.encode(
        "<s>[INST] hi [/INST]", control_symbols=True
    )


# ---- what growing gives


@given(text=messy | st.lists(st.sampled_from([*WORDS, " ", "a", "\u2581"])).map("".join))
def test_round_trip(after, text):
    assert after.decode(after.encode(text)) == text.replace("\u2581", " ")


def test_every_new_piece_is_reachable(grown):
    for new in grown.pieces:
        assert alone(grown.model, new.piece) == [new.id]


def test_saves_are_what_the_sample_saves(before, after, grown):
    assert tokens(before, TEXTS) - tokens(after, TEXTS) == sum(p.saves for p in grown.pieces)
    assert tokens(after, TEXTS) < 0.4 * tokens(before, TEXTS)  # Chinese in bytes, most of it


def test_rows_are_in_order_of_usefulness(base, grown):
    saves = [p.saves for p in grown.pieces]
    assert saves == sorted(saves, reverse=True)
    fewer = [p.piece for p in grow(base, 25).pieces]
    assert fewer == [p.piece for p in grown.pieces if p.piece in fewer]
    candidates = [p.piece for p in grown.pieces if p.origins]
    assert [piece for piece in fewer if piece in candidates] == candidates[: len(fewer)]


def test_words_that_no_halves_lead_to_get_their_parts(base):
    """data.md, section 4: 中华人民共和国 and 越来越 were dead rows."""
    words = ["中华人民共和国", "越来越", "意大利"]
    whole = grow_fully(base, words, TEXTS)
    chosen = {p.piece: p for p in whole.pieces}
    assert set(words) <= set(chosen)
    assert len(chosen) == 12 + 6 + 2 + 2  # characters, and what it takes to join them
    for new in whole.pieces:
        assert new.origins == (("words",) if new.piece in words else ())
        assert any(new.piece in word for word in words)
        assert alone(whole.model, new.piece) == [new.id]


def test_parts_that_lead_nowhere_are_struck_out(base):
    """的首 is met most often, but 的首要人 is lost to 人民; without 的首 there can be 首先."""
    texts = ["的首先"] * 10 + ["的首要人民"] * 3 + ["人民"] * 20
    whole = grow_fully(base, ["首先", "的首要人", "人民"], texts)
    assert {p.piece for p in whole.pieces} == {"首", "先", "首先", "人", "民", "人民"}
    assert whole.refused["outranked"] == ["的首要人"]


def test_the_last_rows_hold_parts_only_if_nothing_else_fits(base):
    for rows in range(1, 22):
        whole = expand(
            base,
            {"words": ["中华人民共和国", "越来越", "意大利"]},
            TEXTS,
            target_vocab_size=len(base.pieces) + rows,
            rules=Rules(),
        )
        assert len(whole.pieces) == rows
        families = {"中华人民共和国": 13, "越来越": 4, "意大利": 5}
        complete = sum(families[p.piece] for p in whole.pieces if p.origins)
        left = [size for word, size in families.items() if word in whole.refused["outranked"]]
        assert rows - complete < min(left, default=1)


def test_growing_twice_continues(base, grown):
    first = parse(grown.model)
    again = grow(first, 10)
    assert again.reserved == [f"<|sym{number}|>" for number in (5, 6, 7, 8)]
    assert not {p.piece for p in again.pieces} & {p.piece for p in first.pieces}
    for new in again.pieces:
        assert alone(again.model, new.piece) == [new.id]


# ---- sentencepiece, tokenizers and transformers agree


@examples(300)
@given(text=messy | st.lists(st.sampled_from([*WORDS, *ODD, "<|sym1|>", "越", "人"])).map("".join))
def test_fast_agrees(after, fast, text):
    assert_agree(after, fast, text)


def test_fast_agrees_on_adversarial_strings(after, fast):
    for text in [*TEXTS, *chinese(1, 500), *adversarial(after, WORDS * 3, 5000)]:
        assert_agree(after, fast, text)


def test_reserved_rows_are_never_produced(base, grown, before, after, fast, tmp_path):
    assert grown.reserved == ["<|sym1|>", "<|sym2|>", "<|sym3|>", "<|sym4|>"]
    ids = range(len(base.pieces) + 60, len(base.pieces) + 64)
    assert [after.id_to_piece(id) for id in ids] == grown.reserved
    (tmp_path / "tokenizer.model").write_bytes(grown.model)
    tokenizer = Tokenizer.open(tmp_path)
    tokenizer.save(tmp_path)
    auto = AutoTokenizer.from_pretrained(tmp_path)
    assert len(auto) == tokenizer.vocab_size == len(base.pieces) + 64
    for text in [*grown.reserved, "a<|sym1|>", "<|sym1|><|sym2|> 地壳"]:
        assert not set(tokenizer.encode(text, control_symbols=True)) & set(ids)
        assert auto(text).input_ids == [1, *tokenizer.encode(text)]
        assert fast.encode(text, add_special_tokens=False).ids == after.encode(text)
    assert before.encode("<|sym1|>") == after.encode("<|sym1|>")
    assert tokenizer.decode([ids[0]]) == auto.decode([ids[0]]) == "<|sym1|>"


# ---- any base, any candidates

LETTERS = "abcñé"
words = st.text(st.sampled_from(LETTERS), min_size=1, max_size=6)
base_pieces = st.text(st.sampled_from("abc\u2581"), min_size=2, max_size=4)


@examples(400)
@given(
    old=st.lists(base_pieces, unique=True, max_size=6),
    dummy_prefix=st.booleans(),
    symbol=st.none() | st.text(st.sampled_from("abñ"), min_size=1, max_size=2),
    candidates=st.lists(words | words.map("\u2581".__add__), min_size=1, max_size=8),
    texts=st.lists(st.text(st.sampled_from(LETTERS + " "), min_size=1, max_size=30), min_size=1),
    min_frequency=st.integers(1, 3),
)
def test_any_growth_keeps_its_promises(old, dummy_prefix, symbol, candidates, texts, min_frequency):
    base = small_base(old, dummy_prefix, symbol)
    size = len(base.pieces)
    rules = Rules(scripts=("Latin",), min_frequency=min_frequency)

    with pytest.raises(ValueError, match="the candidates allow") as refusal:
        expand(base, {"c": candidates}, texts, target_vocab_size=10_000, rules=rules)
    allowed = int(str(refusal.value).split("allow ")[1].split(" ")[0]) - size
    for rows in sorted({(allowed + 1) // 2, allowed} - {0}):
        whole = expand(base, {"c": candidates}, texts, target_vocab_size=size + rows, rules=rules)
        assert len(whole.pieces) == rows
        check_promises(base, whole, candidates, texts)
        if rows == allowed:
            used = {part for new in whole.pieces for part in new.parts}
            assert all(new.origins or new.piece in used for new in whole.pieces)


def small_base(old: list[str], dummy_prefix: bool, symbol: str | None) -> ModelProto:
    """Letters a, b, c (ñ and é are bytes), merges in the order given: some may be out of reach."""
    model = ModelProto()
    model.trainer_spec.model_type = 2
    model.trainer_spec.byte_fallback = True
    model.normalizer_spec.add_dummy_prefix = dummy_prefix
    model.normalizer_spec.remove_extra_whitespaces = False
    for piece, type in [("<unk>", UNKNOWN), ("<s>", CONTROL), ("</s>", CONTROL)]:
        add(model, piece, type, 0)
    for byte in range(256):
        add(model, f"<0x{byte:02X}>", 6, 0)
    for score, piece in enumerate([*old, *"abc\u2581"]):
        add(model, piece, USER_DEFINED if piece == symbol else NORMAL, -score)
    if symbol is not None and symbol not in [*old, *"abc"]:
        add(model, symbol, USER_DEFINED, 0)
    return model


def check_promises(base, whole: Expansion, candidates, texts) -> None:
    size = len(base.pieces)
    pieces = {new.piece: new for new in whole.pieces}
    for new in whole.pieces:
        assert alone(whole.model, new.piece) == [new.id]
        assert all(part not in pieces or pieces[part].id < new.id for part in new.parts)
        assert bool(new.origins) == (new.piece in candidates)
    refused = Counter(piece for pieces in whole.refused.values() for piece in pieces)
    assert refused + Counter(set(candidates) & set(pieces)) == Counter(set(candidates))

    before = SentencePieceProcessor(model_proto=base.SerializeToString())
    after = SentencePieceProcessor(model_proto=whole.model)
    saved = tokens(before, texts) - tokens(after, texts)
    assert saved == sum(new.saves for new in whole.pieces)
    fast = backend(parse(whole.model))
    for text in [*texts, *("".join(some) for some in product("abcñé ", repeat=3))]:
        ids = after.encode(text)
        assert fast.encode(text, add_special_tokens=False).ids == ids
        assert after.decode(ids) == before.decode(before.encode(text))
        if not any(piece in ("\u2581" + text).replace(" ", "\u2581") for piece in pieces):
            assert ids == before.encode(text)
    assert after.vocab_size() == size + len(whole.pieces)


def test_space_runs_that_score_below_all(base):
    """Mistral's runs at -1e9 merge after the new pieces, which take the last space of a run."""
    model = ModelProto()
    model.CopyFrom(base)
    for piece in model.pieces:
        if len(piece.piece) > 1 and not piece.piece.strip("\u2581"):
            piece.score = -1e9
    whole = grow_fully(model, ["\u2581岩石"], ["a  岩石"] * 5)
    assert [(p.piece, p.saves) for p in whole.pieces] == [("\u2581岩石", 5)]
    after = SentencePieceProcessor(model_proto=whole.model)
    assert after.encode("a   岩石", out_type=str)[-2:] == ["\u2581\u2581", "\u2581岩石"]
    assert parse(whole.model).pieces[-1].score > -1e6
    for new in whole.pieces:
        assert alone(whole.model, new.piece) == [new.id]


# ---- rules


@pytest.mark.parametrize(
    ("piece", "refusal"),
    [
        ("地壳", None),
        ("\u2581地壳", None),
        ("〇", None),
        ("々", None),
        ("\u2581", "space"),
        ("", "space"),
        ("\u2581\u2581地", "space"),
        ("地\u2581壳", "space"),
        ("地 壳", "space"),
        ("地" * 9, "length"),
        ("\u2581" + "地" * 8, None),
        ("第1章", "digits"),
        ("２０", "digits"),
        ("2", "script"),
        ("，但", "punctuation"),
        ("x射线", "script"),
        ("rock", "script"),
        ("ア", "script"),
        ("é", "script"),
    ],
)
def test_han_rules(piece, refusal):
    assert Rules(max_characters=8).refusal(piece) == refusal


def test_every_rule_can_be_switched():
    assert Rules(leading_space=False).refusal("\u2581地") == "space"
    assert Rules(scripts=("Han", "Latin")).refusal("x射线") is None
    assert Rules(scripts=("Latin",)).refusal("\u2581gneiß") is None
    assert Rules(scripts=()).refusal("地ア") is None
    assert Rules(punctuation=True).refusal("，但") is None
    assert Rules(punctuation=True).refusal("，") == "script"  # it would be met without Han
    assert Rules(punctuation=True, scripts=()).refusal("，") is None
    assert Rules(digits=True).refusal("第1章") is None
    assert Rules(digits=True).refusal("2018") == "script"


def test_refusals_are_reported_by_rule(base):
    candidates = {
        "mixed": ["crust", "火山", "rock", "2024年", "，由", "岩石" * 9, "a\u2581b", "从未"],
        "again": ["火山"],
    }
    target = len(base.pieces) + 3  # two characters and their join
    whole = expand(base, candidates, TEXTS, target_vocab_size=target, rules=Rules())
    assert [(p.piece, p.origins) for p in whole.pieces][2:] == [("火山", ("mixed", "again"))]
    assert {rule: pieces for rule, pieces in whole.refused.items() if pieces} == {
        "script": ["crust", "rock"],
        "digits": ["2024年"],
        "punctuation": ["，由"],
        "length": ["岩石" * 9],
        "space": ["a\u2581b"],
        "rare": ["从未"],
    }


def test_present_pieces_are_refused(base):
    present = base.pieces[300].piece
    whole = grow_fully(base, [present, "火山"], [*TEXTS, *CORPUS], scripts=())
    assert whole.refused["present"] == [present]


def test_what_no_text_reached_stays_out_of_reach(base):
    """ßæþ is in the base, but neither ßæ nor æþ: with one of them, text with ßæþ would change."""
    model = ModelProto()
    model.CopyFrom(base)
    for score, letter in enumerate("ßæþðø"):
        add(model, letter, NORMAL, -300 - score)
    add(model, "ßæþ", NORMAL, -5)
    texts = ["ßæþ ßæ ßæ æþ æþ ðø ðø ðø ßæð"] * 5
    whole = grow_fully(model, ["ßæ", "æþ", "ðø", "ßæð"], texts, scripts=("Latin",))
    assert [p.piece for p in whole.pieces] == ["ðø", "æð", "ßæð"]
    assert whole.refused["revives"] == ["ßæ", "æþ"]
    before = SentencePieceProcessor(model_proto=model.SerializeToString())
    after = SentencePieceProcessor(model_proto=whole.model)
    assert after.encode("ßæþ ßßæþæþþ") == before.encode("ßæþ ßßæþæþþ")


def test_what_a_symbol_cuts_up_is_refused(base):
    model = ModelProto()
    model.CopyFrom(base)
    add(model, "博物", USER_DEFINED)
    whole = grow(model, 40)
    assert {"博物馆", "\u2581博物馆"} <= set(whole.refused["unencodable"])
    for new in whole.pieces:
        assert alone(whole.model, new.piece) == [new.id]


def test_nothing_is_built_on_a_character_that_a_rule_refuses(base):
    """tokenizer.json has no merge without both parts, and 〖 alone is punctuation."""
    whole = grow_fully(base, ["〖火", "山〗", "火山"], ["〖火山〗"] * 5, punctuation=True)
    assert {"火", "山", "火山"} == {p.piece for p in whole.pieces}
    assert whole.refused["outranked"] == ["〖火", "山〗"]


def test_parts_keep_the_rules_too(base):
    """，，火 may be a piece, but ，， would be met in text without Han."""
    whole = grow_fully(base, ["，，火"], ["，，火", "，，"] * 5, punctuation=True)
    assert {p.piece for p in whole.pieces} == {"火", "，火", "，，火"}


def test_what_others_take_is_not_counted(base):
    """山水 stands there twice, but once its 山 belongs to 火山."""
    whole = grow_fully(base, ["火山", "山水"], ["火山"] * 5 + ["火山水", "山水"])
    assert "山水" in whole.refused["outranked"]
    assert "山水" in {p.piece for p in grow_fully(base, ["山水"], ["火山水", "山水"]).pieces}


def test_saves_are_those_of_the_chosen_pieces(base):
    """的首 takes 首先 apart ten times; but it has no room, since 的首要 has none."""
    texts = ["的首先"] * 10 + ["首先"] * 5 + ["的首要"] * 6
    candidates = {"words": ["首先", "的首要"]}
    target = len(base.pieces) + 3
    whole = expand(base, candidates, texts, target_vocab_size=target, rules=Rules())
    assert {p.piece: p.saves for p in whole.pieces} == {"首": 42, "先": 30, "首先": 15}


# ---- candidates


def sampled(seed: int = 0, budget: int = 4000, weight: float = 3.0) -> list[str]:
    sources = {"zh": Source(iter(chinese(1, 400)), weight), "en": Source(CORPUS * 40)}
    parts = sample_texts(sources, byte_budget=budget, seed=seed)
    return [text for part in parts.values() for text in part]


def test_the_sample_follows_weights_and_budget():
    sample = sampled()
    size = {text: len(text.encode()) for text in sample}
    english = sum(len(text.encode()) for text in sample if any(text in line for line in CORPUS))
    assert 3990 <= sum(len(text.encode()) for text in sample) <= 4000
    assert 990 <= english <= 1000
    assert max(size.values()) < 1000


def test_the_sample_depends_on_seed_and_texts_not_on_order():
    sources = {"zh": Source(reversed(chinese(1, 400)), 3.0), "en": Source((CORPUS * 40)[::-1])}
    parts = sample_texts(sources, byte_budget=4000, seed=0)
    assert parts["zh"] + parts["en"] == sampled() != sampled(seed=1)


def test_a_small_source_gives_all_it_has():
    assert sorted(sampled(budget=10**9)) == sorted(chinese(1, 400) + CORPUS * 40)


def test_learning_follows_the_base(base):
    texts = [*TEXTS, "a  b\t12 1912 19 12 2024 2024"]
    pieces = learn_pieces(texts, base, vocab_size=700)
    assert pieces == learn_pieces(iter(texts), base, vocab_size=700)
    assert {"岩石", "地质学", "\u2581GPS"} <= set(pieces)
    assert set("".join(texts)) - {" ", "\t"} <= set(pieces)  # every character
    assert not [p for p in pieces if len(p) > 1 and any(c.isdigit() for c in p)]
    other = ModelProto()
    other.CopyFrom(base)
    other.trainer_spec.split_digits = False
    other.trainer_spec.split_by_number = False
    other.normalizer_spec.add_dummy_prefix = False
    assert "12" in learn_pieces(texts, other, vocab_size=2000)


def test_pieces_of_a_model_are_its_normal_ones(base, tmp_path):
    (tmp_path / "m.model").write_bytes(base.SerializeToString())
    pieces = model_pieces(tmp_path / "m.model")
    assert pieces == [p.piece for p in base.pieces if p.type == NORMAL]
    assert not {"<s>", "<0x0A>", "[INST]"} & set(pieces)


def test_words_may_follow_a_space():
    assert word_pieces(["gneiss\n", "", "plate tectonics"]) == [
        *("gneiss", "\u2581gneiss", "plate\u2581tectonics", "\u2581plate\u2581tectonics")
    ]


# ---- bad input


def refuse_arguments(base: ModelProto, **changes):
    arguments = {
        "base": base,
        "candidates": {"words": WORDS},
        "texts": TEXTS,
        "target_vocab_size": len(base.pieces) + 10,
        "rules": Rules(),
    }
    return expand(**(arguments | changes))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"target_vocab_size": 400}, "target_vocab_size=400: the base has 482.*set it above 482"),
        ({"target_vocab_size": 490, "reserved": 8}, "8 are reserved; set it above 490"),
        ({"target_vocab_size": 9999}, r"target_vocab_size=9999: the candidates allow \d+ at min"),
        ({"reserved": -1}, "reserved=-1: give"),
        ({"texts": []}, "texts is empty: give"),
        ({"texts": ["", ""]}, "texts is empty: give"),
        ({"texts": [b"bytes"]}, "must be a str, this is bytes"),
        ({"texts": ["\ud800"]}, "lone surrogate"),
        ({"candidates": {"words": ["\ud800"]}}, "lone surrogate"),
        ({"candidates": {}}, "the candidates allow 482 "),
    ],
)
def test_growing_refuses(base, changes, message):
    with pytest.raises(ValueError, match=message):
        refuse_arguments(base, **changes)


def test_protected_texts_keep_their_ids(base, before):
    """Nothing that could be merged there is taken, and what merely is spelt there may be."""
    words = ["▁sandstone", "▁stone", "▁granite", "▁basalt"]
    texts = ["sandstone stone granite basalt"] * 3
    protected = "a stone of gran ite, basa lt; 花"

    def grown(*protected: str) -> Expansion:
        return grow_fully(base, words, texts, protected=protected, scripts=("Latin",))

    assert {p.piece for p in grown().pieces} > {*words}
    whole = grown(protected)
    after = SentencePieceProcessor(model_proto=whole.model)
    assert after.encode(protected) == before.encode(protected)
    assert whole.refused["protected"] == ["▁stone"]
    assert {p.piece for p in whole.pieces} >= {"▁granite", "▁basalt"}
    open_text = SentencePieceProcessor(model_proto=grown().model).encode(protected)
    assert open_text != before.encode(protected)


def test_a_base_must_be_bpe_without_a_character_map(base):
    other = ModelProto()
    other.CopyFrom(base)
    other.trainer_spec.model_type = 1
    for call in (refuse_arguments, lambda base: learn_pieces(TEXTS, base, vocab_size=460)):
        with pytest.raises(ValueError, match="base: its model_type is UNIGRAM, and only BPE"):
            call(other)
    other.CopyFrom(base)
    other.normalizer_spec.precompiled_charsmap = b"map"
    with pytest.raises(ValueError, match="base: its normaliser 'identity' has a character map"):
        refuse_arguments(other)
    other.CopyFrom(base)
    add(other, base.pieces[300].piece, NORMAL)
    with pytest.raises(ValueError, match="is in the model twice"):
        refuse_arguments(other)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Rules(scripts=("han",)), r"scripts=\('han',\): 'han' is none of"),
        (lambda: Rules(min_frequency=0), "min_frequency=0: give a positive number"),
        (lambda: Rules(max_characters=0), "max_characters=0: give"),
        (lambda: padded_rows(10, 0), "pad_to_multiple_of=0: give"),
        (lambda: sampled(budget=0), "byte_budget=0: give"),
        (lambda: sampled(weight=0), "weight=0 of source 'zh'"),
        (lambda: sample_texts({}, byte_budget=9, seed=0), "sources is empty"),
        (
            lambda: sample_texts({"a": Source(["", ""])}, byte_budget=9, seed=0),
            "source 'a' gives no text",
        ),
        (
            lambda: sample_texts({"a": Source([b"x"])}, byte_budget=9, seed=0),
            "must be a str",
        ),
    ],
)
def test_other_bad_values(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize(
    ("texts", "vocab_size", "message"),
    [(TEXTS, 200, "vocab_size=200 does not suit"), ([], 460, "vocab_size=460 does not suit")],
)
def test_learning_refuses(base, texts, vocab_size, message):
    with pytest.raises(ValueError, match=message):
        learn_pieces(texts, base, vocab_size=vocab_size)


@pytest.mark.parametrize("content", [None, b"", b"hello"])
def test_a_model_must_be_one(tmp_path, content):
    if content is not None:
        (tmp_path / "m.model").write_bytes(content)
    with pytest.raises(ValueError, match=r"m\.model is not a sentencepiece model"):
        read_model(tmp_path / "m.model")


@pytest.mark.parametrize(
    ("size", "multiple", "rows"), [(63872, 128, 63872), (63873, 128, 64000), (5, 1, 5)]
)
def test_padded_rows(size, multiple, rows):
    assert padded_rows(size, multiple) == rows


# ---- the real ones


@pytest.mark.shared
def test_mistral_grown_for_chinese(shared, tmp_path):
    base = read_model(shared / "tokenizers/mistral-7b-v0.1.tokenizer.model")
    texts = corpus_lines("geo_zh", 6000)
    whole = expand(
        base,
        {
            "learnt": learn_pieces(texts, base, vocab_size=9000),
            "20k": model_pieces(shared / "tokenizers/ymcui_chinese_sp_20k.model"),
        },
        texts,
        target_vocab_size=35_072,
        rules=Rules(),
        reserved=96,
    )
    assert len(whole.pieces) == 2976
    for new in whole.pieces[::97]:
        assert alone(whole.model, new.piece) == [new.id]
    before = SentencePieceProcessor(model_proto=base.SerializeToString())
    after = SentencePieceProcessor(model_proto=whole.model)
    for name in ("general_en", "geo_en"):
        lines = corpus_lines(name, 10_000)
        assert after.encode(lines) == before.encode(lines)
    unseen = corpus_lines("general_zh", 2000)
    assert tokens(after, unseen) < 0.85 * tokens(before, unseen)
    fast = backend(parse(whole.model))
    extra = [new.piece for new in whole.pieces]
    for text in [*unseen, *corpus_lines("geo_zh", 3000), *adversarial(after, extra, 10_000)]:
        assert_agree(after, fast, text)


@pytest.mark.shared
def test_mistral_v3_grown(shared):
    """A base with 750 control symbols at its start and twenty user-defined ones."""
    base = read_model(shared / "tokenizers/mistral_instruct_v3.tokenizer.model")
    texts = corpus_lines("geo_zh", 1000)
    whole = expand(
        base,
        {"learnt": learn_pieces(texts, base, vocab_size=4000)},
        texts,
        target_vocab_size=33_024,
        rules=Rules(),
        reserved=8,
    )
    processor = SentencePieceProcessor(model_proto=whole.model)
    fast = backend(parse(whole.model))
    extra = ["[REFERENCE_DOC_1]", "[INST]", *whole.reserved, *(new.piece for new in whole.pieces)]
    for text in [*texts, *adversarial(processor, extra, 5000)]:
        assert_agree(processor, fast, text)
