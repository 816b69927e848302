"""The real Mistral-7B-v0.1 tokenizer grown to 63,872: `pytest -m slow -s` prints the figures."""

import json
import random
from pathlib import Path

import pytest
from sentencepiece import SentencePieceProcessor

from model.config import ModelConfig
from model.transformer import Mistral
from model.weights import InitialWeights
from pretrained.safetensors_folder import write_folder
from tests.unit.tokenizer.test_tokenizer import adversarial, assert_agree, backend, parse
from tokenizer.tokenizer import Tokenizer
from tools.vocabulary.corpora import open_corpus
from tools.vocabulary.grow import grow
from tools.vocabulary.inputs import GrowConfig
from tools.vocabulary.report import GrowthSummary

pytestmark = [pytest.mark.slow, pytest.mark.shared]
STRINGS = 100_000


@pytest.fixture(scope="module")
def base(shared, tmp_path_factory) -> Path:
    """A narrow model with the real tokenizer: nothing here depends on its weights."""
    tokenizer = Tokenizer.open(shared / "tokenizers/mistral-7b-v0.1.tokenizer.model")
    config = ModelConfig(
        vocab_size=tokenizer.vocab_size,
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=1,
        num_key_value_heads=1,
    )
    model = Mistral(config)
    weights, folder = InitialWeights(model, 0), tmp_path_factory.mktemp("base") / "model"
    tensors = ((name, weights.read(name, slice(None))) for name, _ in model.named_parameters())
    write_folder(folder, config, tensors, tokenizer=tokenizer)
    return folder


def grown(
    shared: Path, base: Path, out: Path, corpus: list[str], measure: list[str]
) -> GrowthSummary:
    config = GrowConfig(
        base=str(base),
        root=str(shared / "corpus"),
        corpus=corpus,
        measure=measure,
        candidates=[str(shared / "tokenizers/ymcui_chinese_sp_20k.model")],
        target_vocab_size=63_872,
        loss_bytes=0,
        out=str(out),
    )
    return grow(config)


def ratio(summary: GrowthSummary, *names: str) -> float:
    """Tokens after over before, on the texts of these corpora together."""
    parts = [c for c in summary.compressions if c.name in names]
    return sum(c.after for c in parts) / sum(c.before for c in parts)


def assert_reachable(summary: GrowthSummary) -> None:
    """BPE on a piece's own characters, without a dummy prefix, gives exactly that piece."""
    model = parse(summary.expansion.model)
    model.normalizer_spec.add_dummy_prefix = False
    processor = SentencePieceProcessor(model_proto=model.SerializeToString())
    pieces = summary.expansion.pieces
    assert len(pieces) == 31_776
    assert processor.encode([piece.piece for piece in pieces]) == [[piece.id] for piece in pieces]


def whole_corpus(shared: Path, name: str, tokenizer: Tokenizer) -> list[str]:
    corpus = open_corpus(
        name, str(shared / "corpus"), tokenizer, text_field="text", held_out_fraction=0.01
    )
    return [*corpus.training_texts(), *corpus.held_out]


def test_for_chinese(shared, base, tmp_path):
    chinese = ["general_zh", "geo_zh"]
    summary = grown(shared, base, tmp_path / "out", chinese, ["general_en", "geo_en"])
    print(json.dumps({"chinese": ratio(summary, *chinese)}))
    assert ratio(summary, *chinese) <= 0.60
    assert_reachable(summary)
    old, new = Tokenizer.open(base), Tokenizer.open(tmp_path / "out")
    for name in ("general_en", "geo_en"):  # every document there is, held out or not
        texts = whole_corpus(shared, name, old)
        assert len(texts) > 2900
        assert old.encode_batch(texts) == new.encode_batch(texts)


def test_for_chinese_and_geoscience_english(shared, base, tmp_path):
    corpus = ["general_zh", "geo_zh", "geo_en"]
    summary = grown(shared, base, tmp_path / "out", corpus, ["general_en"])
    print(json.dumps({"geo_en": ratio(summary, "geo_en"), "zh": ratio(summary, *corpus[:2])}))
    assert ratio(summary, "geo_en") <= 0.96
    assert ratio(summary, *corpus[:2]) <= 0.60
    assert_reachable(summary)

    # The fast tokenizer agrees, on as many strings as can be waited for.
    model = summary.expansion.model
    processor, fast = SentencePieceProcessor(model_proto=model), backend(parse(model))
    lines = sorted(
        {
            line
            for name in ("general_en", "general_zh", "geo_en", "geo_zh")
            for text in whole_corpus(shared, name, Tokenizer.open(base))
            for line in text.split("\n")
        }
    )
    assert len(lines) >= STRINGS
    real = random.Random(0).sample(lines, STRINGS)
    print(json.dumps({"real strings": len(real)}))
    odd = [piece.piece for piece in summary.expansion.pieces] + summary.expansion.reserved
    for text in (*real, *adversarial(processor, odd, STRINGS)):
        assert_agree(processor, fast, text)
