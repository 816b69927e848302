"""What the study measures agrees with in-loop evaluation and with a computation by hand."""

import json
import math

import pytest
import torch

from data.sample.probes import questions
from evaluation.study.measure import (
    first_texts,
    half_of,
    measure_documents,
    measure_probes,
)
from model.transformer import Mistral
from scripts.measure import MeasureConfig, measure, place_of, settings_of
from tests.helpers.toy import toy_config, toy_model
from tokenizer.tokenizer import Tokenizer
from training.distributed import start_world
from training.evaluate import EvaluationConfig, build_set, cut_text, evaluate

TEXTS = ["Granite is hard. " * 9, "花岗岩很硬。", "A", "Loess is silt, and wind laid it down. " * 5]


@pytest.fixture(scope="module")
def tokenizer(sample) -> Tokenizer:
    return Tokenizer.open(sample / "tokenizer")


@pytest.fixture(scope="module")
def model(tokenizer) -> Mistral:
    return toy_model(toy_config(vocab_size=tokenizer.vocab_size)).eval()


def test_documents_sum_to_what_in_loop_evaluation_says(model, tokenizer):
    config = EvaluationConfig(chunk_bytes=40)
    held_out = build_set("x", TEXTS, tokenizer, config, row_length=64)
    with start_world("cpu") as world:
        documents = measure_documents(model, tokenizer, TEXTS, config.chunk_bytes, world)
        assert [document.utf8_bytes for document in documents] == [len(t.encode()) for t in TEXTS]
        expected = evaluate(model, [held_out], row_length=64, micro_batch_rows=2, world=world)["x"]
    nats = sum(document.nats for document in documents)
    assert nats == pytest.approx(expected["loss_nats"] * expected["tokens"], rel=1e-6)
    bits = nats / math.log(2) / sum(document.utf8_bytes for document in documents)
    assert bits == pytest.approx(expected["bits_per_byte"], rel=1e-6)


def test_the_loss_of_a_document_by_hand(model, tokenizer):
    with start_world("cpu") as world:
        documents = measure_documents(model, tokenizer, TEXTS, 40, world)
    for text, document in zip(TEXTS, documents, strict=True):
        nats = 0.0
        for piece in cut_text(text, 40):
            ids = [tokenizer.bos_id, *tokenizer.encode(piece), tokenizer.eos_id]
            with torch.no_grad():
                logs = model(torch.tensor([ids]))[0].log_softmax(-1)
            nats -= sum(float(logs[n, token]) for n, token in enumerate(ids[1:]))
        assert document.nats == pytest.approx(nats, rel=1e-5)


def test_margins_by_hand(model, tokenizer):
    with start_world("cpu") as world:
        probes = measure_probes(model, tokenizer, world)
    asked = {(question.fact_id, question.language): question for question in questions()}
    assert {(probe["id"], probe["language"]) for probe in probes} == asked.keys()
    for probe in [probe for n, probe in enumerate(probes) if n % (len(probes) // 8) == 0]:
        question = asked[probe["id"], probe["language"]]
        blank = " " if question.language == "en" else ""
        texts = [question.options[question.answer], *question.distractors]
        assert len(texts) == 10
        encoded = [tokenizer.encode(question.cloze + blank + text) for text in texts]
        context = [tokenizer.encode(question.cloze), *encoded]
        common = next(
            (n for n, ids in enumerate(zip(*context, strict=False)) if len(set(ids)) > 1),
            min(map(len, context)),
        )
        per_byte = []
        for text, ids in zip(texts, encoded, strict=True):
            ids = [tokenizer.bos_id, *ids]
            with torch.no_grad():
                logs = model(torch.tensor([ids]))[0].log_softmax(-1)
            likelihood = sum(float(logs[n - 1, ids[n]]) for n in range(common + 1, len(ids)))
            per_byte.append(likelihood / len(text.encode()))
        right, *wrong = per_byte
        assert probe["margin_nats_per_byte"] == pytest.approx(
            right - max(wrong), rel=1e-4, abs=1e-5
        )
        assert probe["correct"] == (right > max(wrong))
        assert probe["domain"] == question.domain
        assert probe["exposures"] == question.exposures
        assert probe["invented"] == question.invented


def started(folder, **start):
    line = json.dumps({"step": 0, "logging_every": 1} | start)
    (folder / "starts.jsonl").write_text(line + "\n")
    return folder


@pytest.mark.parametrize(
    ("start", "asked", "place"),
    [
        ({"device": "cpu", "dtype": "float32"}, {}, ("cpu", "float32")),
        ({"device": "cpu", "dtype": "bfloat16"}, {}, ("cpu", "bfloat16")),
        ({"device": "NVIDIA H200", "dtype": "bfloat16"}, {}, ("cuda", "bfloat16")),
        ({"device": "NVIDIA H200", "dtype": "bfloat16"}, {"device": "cpu"}, ("cpu", "bfloat16")),
        ({"device": "cpu", "dtype": "bfloat16"}, {"dtype": "float32"}, ("cpu", "float32")),
    ],
)
def test_a_run_is_measured_where_and_how_it_was_trained(tmp_path, start, asked, place):
    config = MeasureConfig(runs="x", **asked)
    assert place_of(started(tmp_path, **start), config) == place
    assert ("place" in settings_of(tmp_path, config)) == (place != ("cpu", "float32"))


def test_a_run_of_an_earlier_version_is_measured_in_float32(tmp_path):
    assert place_of(tmp_path, MeasureConfig(runs="x")) == ("cpu", "float32")


@pytest.mark.parametrize("wrong", [{"device": "tpu"}, {"dtype": "fp8"}])
def test_another_device_or_precision_is_refused(wrong):
    with pytest.raises(ValueError, match=f"{next(iter(wrong))}="):
        MeasureConfig(runs="x", **wrong)


def test_the_precision_of_training_is_used(tmp_path, monkeypatch):
    opened = []

    def stop(folder, dtype, device):
        opened.append((dtype, str(device)))
        raise InterruptedError

    monkeypatch.setattr("scripts.measure.open_model", stop)
    run = started(tmp_path, device="cpu", dtype="bfloat16")
    for asked in ({}, {"dtype": "float32"}):
        with pytest.raises(InterruptedError):
            measure(None, run, MeasureConfig(runs="x", **asked))
    assert opened == [(torch.bfloat16, "cpu"), (torch.float32, "cpu")]


def test_every_document_is_of_one_half():
    assert half_of(TEXTS, "development") == TEXTS[::2]
    assert half_of(TEXTS, "test") == TEXTS[1::2]


def test_the_first_texts_that_fit():
    sizes = [len(text.encode()) for text in TEXTS]
    assert first_texts(TEXTS, None) == TEXTS
    assert first_texts(TEXTS, sum(sizes[:3])) == TEXTS[:3]
    assert first_texts(TEXTS, sum(sizes[:3]) - 1) == TEXTS[:2]
    assert first_texts(TEXTS, 1) == TEXTS[:1]
