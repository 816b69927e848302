"""Instruction tuning through the real loop: answers are learned, measured, exported and resumed."""

import json
import math
from itertools import islice

import pytest
import torch
from safetensors.torch import load_file

from data.rows.conversations import Conversations
from data.sample.build import build_sample
from pretrained.adapter import WEIGHTS
from pretrained.safetensors_folder import load_pretrained
from scripts.verify import verify
from tests.e2e.resume.test_resume import figures
from tests.helpers.kills import run_training
from tests.helpers.runs import TINY, configure, evaluations, losses, starts
from tests.helpers.sizes import SAMPLE_SCALE
from tokenizer.chat import encode_conversation
from tokenizer.tokenizer import Tokenizer
from tools.merging.export import ExportConfig, export_folder
from tools.verification.replay import VerifyConfig
from train import train

SOURCES = ("qa_general_en", "qa_general_zh", "qa_geo_en", "qa_geo_zh")


@pytest.fixture(scope="module")
def sample(sample):
    """The sample with its conversations."""
    build_sample(sample, scale=SAMPLE_SCALE, conversations=True)
    return sample


def options(sample, folder, name, *more):
    return [
        *(x for x in TINY if not x.startswith("model.")),
        *(f"data.root={sample}", f"data.tokenizer={sample / 'tokenizer'}"),
        *(f"data.sample_scale={SAMPLE_SCALE}", f"runs_folder={folder}", f"name={name}"),
        *("batch.row_length=256", "batch.tokens_per_step=2048", "batch.micro_batch_rows=4"),
        *more,
    ]


@pytest.fixture(scope="module")
def base(sample, tmp_path_factory):
    folder = tmp_path_factory.mktemp("base")
    shape = (x for x in TINY if x.startswith("model."))
    steps = ("curriculum.stages.adaptation.tokens=2048", "evaluation.every=100")
    config = configure("+experiment=tspt_stage1", *options(sample, folder, "base", *steps), *shape)
    train(config)
    return config.folder


@pytest.fixture(scope="module")
def straight(sample, base, tmp_path_factory):
    folder = tmp_path_factory.mktemp("straight")
    for ranks in (1, 2):
        assert run_training(arguments(sample, base, folder, f"{ranks}"), ranks) == 0
    return folder


def arguments(sample, base, folder, name, *more):
    """Ten steps of LoRA on conversations, with dropout; checkpoints after every fourth."""
    budget = ("curriculum.stages.instruct.tokens=20480", "lora.dropout=0.1", f"init_from={base}")
    return ["+experiment=sft_lora", *options(sample, folder, name, *budget, *more)]


@pytest.mark.parametrize("ranks", [1, 2])
def test_a_killed_run_continues_bit_for_bit(sample, base, straight, tmp_path, ranks):
    # Written at once, so that each start goes on from step 4; two micro-batches a step on one rank.
    again = [*arguments(sample, base, tmp_path, "run"), "checkpoint.asynchronous=false"]
    fifth = 9 if ranks == 1 else 5
    for kill in (("torch:Tensor.backward", fifth, ranks - 1), ("torch.optim:AdamW.step", 3, 0)):
        assert run_training(again, ranks, kill) == -9
    assert run_training(again, ranks) == 0
    run, expected = tmp_path / "run", straight / f"{ranks}"
    assert starts(run) == [0, 4, 4]
    assert figures(run) == figures(expected)
    assert (run / "adapter" / WEIGHTS).read_bytes() == (expected / "adapter" / WEIGHTS).read_bytes()


def test_what_a_run_of_conversations_leaves(sample, straight):
    run = straight / "1"
    assert max(losses(run)) == 10
    assert set(evaluations(run)[10]) == set(SOURCES)
    assert "[INST] " in (run / "adapter" / "chat_template.jinja").read_text()
    verdict = verify(VerifyConfig(run=str(run), steps=3))
    assert verdict.passed
    one, two = losses(run), losses(straight / "2")
    assert all(one[step] == pytest.approx(two[step], rel=1e-5) for step in one)


def test_transformers_applies_the_template_that_a_run_leaves(sample, straight, tmp_path):
    """Of the adapter folder, and of the folder that it is merged into."""
    from transformers import AutoTokenizer

    merged = tmp_path / "merged"
    export_folder(ExportConfig(folder=str(straight / "1"), out=str(merged)), progress=False)
    tokenizer = Tokenizer.open(sample / "tokenizer")
    generation = json.loads((merged / "generation_config.json").read_text())
    assert generation["eos_token_id"] == tokenizer.eos_id
    for folder in (straight / "1" / "adapter", merged):
        theirs = AutoTokenizer.from_pretrained(folder)
        for messages in islice(Conversations(sample / "qa_geo_en").held_out(), 20):
            records = [message.as_dict() for message in messages]
            found = theirs.apply_chat_template(records, return_dict=False)
            assert found == encode_conversation(tokenizer, messages).ids


def test_only_answers_are_measured(sample, base, straight):
    """The held-out loss before training is that of the base on the answers, one by one."""
    tokenizer = Tokenizer.open(sample / "tokenizer")
    model = load_pretrained(base / "model")
    for name in SOURCES:
        nats, tokens, size = 0.0, 0, 0
        for messages in Conversations(sample / name).held_out():
            answers = sum(len(m.content.encode()) for m in messages if m.role == "assistant")
            if size + answers > 2000:
                break
            size += answers
            ids, supervised = encode_conversation(tokenizer, messages)
            with torch.no_grad():
                logits = model(torch.tensor([ids])).log_softmax(-1)[0]
            for place in range(1, len(ids)):
                if supervised[place]:
                    nats -= float(logits[place - 1, ids[place]])
                    tokens += 1
        result = evaluations(straight / "1")[0][name]
        assert (result["tokens"], result["bytes"]) == (tokens, size)
        assert result["loss_nats"] == pytest.approx(nats / tokens, rel=1e-5)
        assert result["bits_per_byte"] == pytest.approx(nats / size / math.log(2), rel=1e-5)


def test_full_tuning_in_two_steps_moves_all_weights(sample, base, tmp_path):
    budget = [f"curriculum.stages.{stage}.tokens=4096" for stage in ("general", "expert")]
    more = ("curriculum=sft_two_step", f"init_from={base}", *budget)
    config = configure("+experiment=sft_full", *options(sample, tmp_path, "full", *more))
    train(config)
    lines = (config.folder / "metrics.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    sources = {row["step"]: set(row["sources"]) for row in rows if "sources" in row}
    assert sources[1] | sources[2] == {"qa_general_en", "qa_general_zh"}
    assert sources[3] | sources[4] == set(SOURCES)
    one, other = (load_file(x / "model/model.safetensors") for x in (base, config.folder))
    assert all((one[name] != other[name]).any() for name in one)
    assert (config.folder / "model" / "chat_template.jinja").exists()


def test_a_conversation_longer_than_a_row_is_refused_before_anything_is_written(
    sample, base, tmp_path
):
    more = ("batch.row_length=32", "batch.tokens_per_step=2048")
    config = configure(*arguments(sample, base, tmp_path, "run", *more))
    with pytest.raises(ValueError, match=r"source 'qa_.*' has a conversation of .* rows have 32"):
        train(config)
    assert not (tmp_path / "run").exists()
