"""The adapter for lm-evaluation-harness against computation by hand.

Where lm-eval is not installed, the few names that the adapter imports from it are stubs.
"""

import json
import sys
from importlib.util import find_spec
from types import ModuleType, SimpleNamespace

import pytest
import torch

from evaluation.multiple_choice.config import EvaluateConfig
from inference.generation.generate import generate
from inference.generation.sampling import SamplingConfig
from pretrained.safetensors_folder import save_pretrained
from tests.helpers.toy import toy_config, toy_model
from tests.unit.evaluation.multiple_choice.test_evaluate_tasks import run_script
from tests.unit.evaluation.multiple_choice.test_prompts import write_tokenizer
from training.distributed import start_world

IS_INSTALLED = find_spec("lm_eval") is not None


def windows(ids, prefix_token, max_seq_len, context_len):
    """Windows as lm-eval 0.4.13 cuts them for `context_len=1`."""
    assert context_len == 1
    for first in range(0, len(ids), max_seq_len):
        predicted = ids[first : first + max_seq_len]
        seen = [prefix_token, *ids][max(0, first + len(predicted) - max_seq_len) :]
        yield seen[: min(max_seq_len, first + len(predicted))], predicted


def evaluate_stub(model, *, tasks, num_fewshot, limit, log_samples):
    assert log_samples is False
    found = model.loglikelihood([asked("Answer:", " A"), asked("Answer:", " B")][:limit])
    results = {name: {"acc,none": float(found[0] > found[-1])} for name in tasks}
    shots = dict.fromkeys(tasks, num_fewshot)
    return {"results": results, "versions": {}, "n-shot": shots, "n-samples": {}, "configs": {}}


@pytest.fixture
def adapter(monkeypatch):
    if not IS_INSTALLED:
        for name, content in {
            "lm_eval": {"simple_evaluate": evaluate_stub},
            "lm_eval.api": {},
            "lm_eval.api.model": {"LM": type("LM", (), {})},
            "lm_eval.utils": {
                "get_rolling_token_windows": windows,
                "make_table": lambda results: "\n".join(results["results"]),
            },
        }.items():
            stub = ModuleType(name)
            vars(stub).update(content)
            monkeypatch.setitem(sys.modules, name, stub)
    path = "evaluation.multiple_choice.lm_eval_adapter"
    monkeypatch.delitem(sys.modules, path, raising=False)
    yield __import__(path, fromlist=["ModelAdapter"])
    sys.modules.pop(path, None)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    return write_tokenizer(tmp_path_factory.mktemp("tokenizer"))


@pytest.fixture
def world():
    with start_world("cpu") as world:
        yield world


def asked(*arguments):
    return SimpleNamespace(args=arguments, task_name="toy")


def log_likelihood(model, ids, first):
    """Sum over the ids from `first` on, by one full forward pass."""
    with torch.no_grad():
        logs = model(torch.tensor([ids]))[0, :, : model.config.num_tokens].log_softmax(-1)
    return sum(float(logs[n - 1, ids[n]]) for n in range(first, len(ids)))


def adapted(adapter, tokenizer, world, **shape):
    model = toy_model(toy_config(vocab_size=tokenizer.vocab_size, **shape)).eval()
    return model, adapter.ModelAdapter(model, tokenizer, world, 64)


PAIRS = [
    ("The answer is", " A"),
    ("Q\nAnswer:", " loess"),
    ("The answer is", " B B B"),
    ("", "A"),
    ("Q\nAnswer:", " loess"),
]


def test_log_likelihoods_by_hand(adapter, tokenizer, world):
    model, network = adapted(adapter, tokenizer, world)
    found = network.loglikelihood([asked(*pair) for pair in PAIRS])
    for (context, ending), (likelihood, _) in zip(PAIRS, found, strict=True):
        before = [tokenizer.bos_id, *tokenizer.encode(context)]
        whole = [tokenizer.bos_id, *tokenizer.encode(context + ending)]
        others = [end for start, end in PAIRS if start == context]
        spelled = [[tokenizer.bos_id, *tokenizer.encode(context + end)] for end in others]
        common = 0
        while all(ids[: common + 1] == before[: common + 1] for ids in spelled) and common < len(
            before
        ):
            common += 1
        assert likelihood == pytest.approx(log_likelihood(model, whole, common), abs=1e-4)
    assert found[1] == found[4]


def test_the_greedy_ending_is_found(adapter, tokenizer, world):
    model, network = adapted(adapter, tokenizer, world)
    context = "The answer is"
    with torch.no_grad():
        logits = model(torch.tensor([[tokenizer.bos_id, *tokenizer.encode(context)]]))[0, -1]
    best = logits[: model.config.num_tokens].argsort(descending=True).tolist()
    texts = [
        tokenizer.decode([*tokenizer.encode(context), id]).removeprefix(context) for id in best
    ]
    spelled = [
        n
        for n, text in enumerate(texts)
        if text and tokenizer.encode(context + text) == [*tokenizer.encode(context), best[n]]
    ]
    asked_for = [asked(context, texts[n]) for n in spelled[:3]]
    flags = [greedy for _, greedy in network.loglikelihood(asked_for)]
    assert flags == [n == 0 for n in spelled[:3]]


@pytest.mark.parametrize("shape", [{}, {"sliding_window": None, "max_position_embeddings": 8}])
def test_a_text_is_scored_whole(adapter, tokenizer, world, shape):
    model, network = adapted(adapter, tokenizer, world, **shape)
    text = "Loess is silt that wind has laid down, and dust."
    ids = tokenizer.encode(text)
    (found,) = network.loglikelihood_rolling([asked(text)])
    if not shape:
        expected = log_likelihood(model, [tokenizer.bos_id, *ids], 1)
    else:
        assert len(ids) > 7
        expected = 0.0
        for seen, predicted in windows(ids, tokenizer.bos_id, 7, 1):
            context = [*seen, predicted[-1]]
            expected += log_likelihood(model, context, len(context) - len(predicted))
    assert found == pytest.approx(expected, abs=1e-3)
    assert network.loglikelihood_rolling([asked("")]) == [0.0]


def test_answers_are_greedy_and_end_at_a_stop_text(adapter, tokenizer, world):
    model, network = adapted(adapter, tokenizer, world)
    prompt = [tokenizer.bos_id, *tokenizer.encode("Loess")]
    sampling = SamplingConfig(max_new_tokens=8, temperature=0.0)
    whole = generate(
        model, [prompt], sampling, eos_ids=[tokenizer.eos_id], decode=tokenizer.decode
    )[0].text
    assert len(whole) > 2
    stop = whole[2]
    requests = [
        asked("Loess", {"max_gen_toks": 8, "until": []}),
        asked("Loess", {"max_gen_toks": 8, "until": stop}),
    ]
    assert network.generate_until(requests) == [whole, whole[: whole.index(stop)]]
    with pytest.raises(ValueError, match="do_sample=true is not supported"):
        network.generate_until([asked("Loess", {"do_sample": True})])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"scoring": "cloze"}, "scoring=cloze: tasks named lm_eval"),
        ({"prompt_language": "zh"}, "prompt_language=zh: tasks named lm_eval"),
        ({"demonstration_seed": 1}, "demonstration_seed=1: tasks named lm_eval"),
        ({"tasks": []}, "tasks: name at least one"),
        ({"tasks": ["lm_eval:arc_easy", "mmlo"]}, "did you mean mmlu"),
    ],
)
def test_what_the_harness_decides_is_refused(tmp_path, options, message):
    given = {"folder": "x", "tasks": ["lm_eval:arc_easy"], "out": str(tmp_path)} | options
    with pytest.raises(ValueError, match=message):
        EvaluateConfig(**given)


def test_results_are_not_overwritten(tmp_path):
    (tmp_path / "lm_eval.json").write_text("{}")
    given = {"folder": "x", "tasks": ["lm_eval:arc_easy"], "out": str(tmp_path)}
    with pytest.raises(ValueError, match=r"lm_eval\.json exists; choose another out"):
        EvaluateConfig(**given)


@pytest.mark.skipif(IS_INSTALLED, reason="lm-eval is installed")
def test_the_command(adapter, tokenizer, tmp_path, monkeypatch, capsys):
    from scripts.evaluate import main

    save_pretrained(
        toy_model(toy_config(vocab_size=tokenizer.vocab_size)), tmp_path / "toy", tokenizer
    )
    given = (f"folder={tmp_path / 'toy'}", "tasks=[lm_eval:arc_easy]", f"out={tmp_path / 'out'}")
    printed = run_script(monkeypatch, capsys, main, *given, "shots=2", "device=cpu")
    assert printed.splitlines()[0] == "arc_easy"
    results = json.loads((tmp_path / "out" / "lm_eval.json").read_text())
    assert results["n-shot"] == {"arc_easy": 2}
    assert results["tokenizer"] == tokenizer.fingerprint
    monkeypatch.setitem(sys.modules, "lm_eval", None)
    monkeypatch.delitem(sys.modules, "evaluation.multiple_choice.lm_eval_adapter")
    again = (*given[:2], f"out={tmp_path / 'other'}")
    assert "install it: pip install -e '.[harness]'" in run_script(
        monkeypatch, capsys, main, *again
    )
