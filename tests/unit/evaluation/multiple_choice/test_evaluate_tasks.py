"""Benchmarks put to a model: who is right, what is written, and that nothing changes it."""

import json
import math
import re
from dataclasses import replace
from itertools import pairwise

import pytest
import torch

import evaluation.multiple_choice.answer as ask
from evaluation.multiple_choice.accuracy import OVERALL, accuracy, summarize, table
from evaluation.multiple_choice.answer import accuracies, prepare
from evaluation.multiple_choice.compare import CompareConfig, compare_folders, comparison_table
from evaluation.multiple_choice.config import AskConfig, EvaluateConfig
from evaluation.multiple_choice.predictions import Prediction, predict, read_predictions
from evaluation.multiple_choice.run import evaluate_tasks
from pretrained.load import open_model
from pretrained.safetensors_folder import save_pretrained
from storage.lock import only_writer
from tests.helpers.toy import hf_twin, toy_config, toy_model
from tests.unit.evaluation.multiple_choice.test_prompts import item, make_task, write_tokenizer
from training.distributed import start_world

TASKS = [make_task(language="en"), make_task(language="zh")]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """An HF folder of a toy whose window is shorter than a prompt with five shots."""
    path = tmp_path_factory.mktemp("hf")
    tokenizer = write_tokenizer(path)
    shape = {"vocab_size": tokenizer.vocab_size + 5, "num_padded_ids": 5, "sliding_window": 96}
    save_pretrained(toy_model(toy_config(**shape)), path / "toy", tokenizer)
    return path / "toy"


@pytest.fixture(scope="module")
def world():
    with start_world("cpu") as world:
        torch.set_num_threads(1)
        yield world


@pytest.fixture
def opened(folder):
    return open_model(folder, torch.float32, "cpu")


def configure(out, **options):
    return EvaluateConfig(**({"folder": "m", "tasks": ["mmlu"], "out": str(out)} | options))


def evaluate(out, opened, world, tasks=TASKS, **options):
    return evaluate_tasks(configure(out, **options), tasks, *opened, world)


def contents(out):
    return {path.name: path.read_bytes() for path in out.iterdir()}


@torch.no_grad()
def plain_nats(twin, ids):
    """Of each id but the first, by transformers' network on one text."""
    logits = twin(torch.tensor([ids]), use_cache=False).logits[0, :-1].double()
    return -logits.log_softmax(1)[range(len(ids) - 1), ids[1:]]


@pytest.mark.parametrize("scoring", ["letters", "perplexity", "cloze"])
@pytest.mark.parametrize("shots", [0, 5])
def test_every_answer_is_that_of_transformers(opened, world, tmp_path, scoring, shots):
    model, tokenizer = opened
    evaluate(tmp_path, opened, world, scoring=scoring, shots=shots)
    # Without the padded rows, which our network gives no probability.
    config = replace(model.config, vocab_size=model.config.num_tokens, num_padded_ids=0)
    small = toy_model(config)
    for name, parameter in small.named_parameters():
        parameter.data.copy_(model.get_parameter(name)[: len(parameter)])
    twin, compared = hf_twin(small), 0
    for task in TASKS:
        questions = prepare(task, AskConfig(scoring=scoring, shots=shots), tokenizer, config)
        found = read_predictions(tmp_path / f"{task.name}.jsonl")
        for question, prediction in zip(questions, found, strict=True):
            prompt, expected = question.prompt, []
            for choice, text in zip(prompt.choices, prompt.endings, strict=True):
                context = tokenizer.encode(prompt.context)
                ids = [tokenizer.bos_id, *tokenizer.encode(prompt.context + text)]
                assert ids[1 : len(context) + 1] == context, "this tokenizer keeps the border"
                nats = plain_nats(twin, ids)
                expected.append(
                    {
                        "letters": lambda: nats[len(context) :].sum(),  # noqa: B023
                        "perplexity": lambda: nats.mean(),  # noqa: B023
                        "cloze": lambda: nats[len(context) :].sum() / len(choice.encode()),  # noqa: B023
                    }[scoring]()
                )
            best = min(range(4), key=expected.__getitem__)
            assert prediction.prediction == "ABCD"[best]
            assert prediction.correct == (best == prompt.answer)
            assert prediction.nats == pytest.approx([float(x) for x in expected], abs=1e-4)
            wrong = min(x for n, x in enumerate(expected) if n != prompt.answer)
            assert prediction.margin == pytest.approx(
                float(wrong - expected[prompt.answer]), abs=2e-4
            )
            compared += 1
    assert compared == 24


def test_a_uniform_model_scores_chance(opened, world):
    model, tokenizer = opened
    torch.nn.init.zeros_(model.lm_head.weight)
    five = replace(item(1), id="five", options=("a", "b", "c", "d", "e"))
    task = make_task(items=(item(0), five))
    for scoring in ("letters", "perplexity"):
        config = AskConfig(shots=2, scoring=scoring)
        questions = prepare(task, config, tokenizer, model.config)
        found = ask.answer(questions, model, scoring, world, 100)
        # All are likeliest; each is as good as drawing one, wherever the right one stands.
        assert [p.prediction for p in found] == ["ABCD", "ABCDE"]
        assert [p.correct for p in found] == [1 / 4, 1 / 5]
        whole = accuracy(found)
        assert whole.micro == whole.chance == pytest.approx(0.225)
        assert [p.margin for p in found] == [0, 0]
        for nats in found[0].nats:
            assert math.exp(nats) == pytest.approx(model.config.num_tokens, rel=1e-6)


def test_a_model_that_knows_the_answers_has_them_all_right(opened, world):
    model, tokenizer = opened
    config = AskConfig(shots=0)
    tasks = {t.name: prepare(t, config, tokenizer, model.config) for t in TASKS}
    asked = [question for questions in tasks.values() for question in questions]
    assert accuracies(tasks, model, config, world)["toy_en"]["micro"] < 0.9
    texts = []
    for question in asked:
        request = question.request
        texts.append([*request.prefix, *request.body, *request.endings[question.prompt.answer]])
    length = max(map(len, texts))
    ids = torch.tensor([text + [0] * (length - len(text)) for text in texts])
    last = torch.tensor([len(text) - 1 for text in texts])
    labels = torch.full_like(ids, -100)
    rows = torch.arange(len(texts))
    labels[rows, last - 1] = ids[rows, last]
    torch.nn.init.normal_(
        model.lm_head.weight, std=0.02, generator=torch.Generator().manual_seed(0)
    )
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    model.train()
    for _ in range(80):
        loss = model(ids, labels=labels).total / len(texts)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if loss < 0.02:
            break
    found = accuracies(tasks, model, config, world)
    assert model.training
    for name in ("toy_en", "toy_zh"):
        assert found[name]["micro"] == found[name]["macro"] == 1
        assert found[name]["margin"] > 1


def test_accuracies_are_those_of_the_files(opened, world, tmp_path):
    summary = evaluate(tmp_path, opened, world, shots=1)
    config, (model, tokenizer) = AskConfig(shots=1), opened
    tasks = {t.name: prepare(t, config, tokenizer, model.config) for t in TASKS}
    found = accuracies(tasks, model, config, world)
    for task in TASKS:
        whole = summary[task.name]["categories"][OVERALL]
        for kind in ("micro", "macro", "margin"):
            assert found[task.name][kind] == pytest.approx(whole[kind], abs=1e-6)
    assert json.loads((tmp_path / "summary.json").read_text()).keys() == summary.keys()


def test_a_file_is_the_same_wherever_it_was_cut(opened, world, tmp_path):
    evaluate(tmp_path / "whole", opened, world, shots=1, save_every=5)
    whole = contents(tmp_path / "whole")
    out = tmp_path / "cut"
    evaluate(out, opened, world, shots=1, save_every=5)
    assert contents(out) == whole
    size = len(whole["toy_zh.jsonl"])
    for cut in (0, 1, size // 3, size // 2, size - 1):
        (out / "toy_zh.jsonl").write_bytes(whole["toy_zh.jsonl"][:cut])
        (out / "summary.json").unlink()
        evaluate(out, opened, world, shots=1, save_every=5)
        assert contents(out) == whole


def test_nothing_is_asked_twice(opened, world, tmp_path, monkeypatch):
    asked, score = [], ask.score

    def counted(model, requests, **options):
        asked.extend(requests)
        return score(model, requests, **options)

    monkeypatch.setattr(ask, "score", counted)
    released = make_task(10)
    # In `cleaned` one question is gone and another has fewer options.
    shorter = replace(released.items[3], options=released.items[3].options[1:], answer=2)
    items = (*released.items[1:3], shorter, *released.items[4:])
    both = [released, replace(released, variant="cleaned", items=items)]
    summary = evaluate(tmp_path, opened, world, both, shots=1)
    assert len(asked) == 10 + 1
    first, second = (read_predictions(tmp_path / f"toy_en{x}.jsonl") for x in ("", ".cleaned"))
    assert second[:2] == first[1:3]
    assert len(second[2].nats) == 3
    asked.clear()
    evaluate(tmp_path, opened, world, both, shots=1)
    assert not asked
    lines = table(summary).splitlines()
    assert len(lines) == 1 + 3
    assert lines[0].count("questions (") == 2


def test_another_command_is_refused(opened, world, tmp_path):
    evaluate(tmp_path, opened, world, shots=1)
    before = contents(tmp_path)
    model, tokenizer = opened
    fewer = [TASKS[0], replace(TASKS[1], items=TASKS[1].items[1:])]
    other = [TASKS[0], replace(TASKS[1], files={"questions.csv": "1" * 64})]
    for tasks, options, named in (
        (TASKS, {"shots": 0}, "(prompts, shots)"),
        (TASKS, {"shots": 1, "scoring": "perplexity"}, "(scoring)"),
        (TASKS, {"shots": 1, "prompt_language": "en"}, "(prompt_language, prompts)"),
        (TASKS, {"shots": 1, "demonstration_seed": 1}, "(demonstration_seed, prompts)"),
        (
            fewer,
            {"shots": 1},
            "toy_zh.jsonl was created with different settings (prompts, q",
        ),
        (other, {"shots": 1}, "(files)"),
    ):
        with pytest.raises(ValueError, match=re.escape(named)):
            evaluate(tmp_path, opened, world, tasks, **options)
    with torch.no_grad():
        model.lm_head.weight += 1
    with pytest.raises(ValueError, match=r"\(model\); choose another out="):
        evaluate(tmp_path, (model, tokenizer), world, shots=1)
    assert contents(tmp_path) == before
    (tmp_path / "toy_en.settings.json").unlink()
    with pytest.raises(ValueError, match=r"exists, but toy_en\.settings\.json"):
        evaluate(tmp_path, opened, world, shots=1)


def test_what_decides_no_answer_may_change(opened, world, tmp_path):
    evaluate(tmp_path, opened, world, shots=1)
    before = contents(tmp_path)
    moved = [replace(t, items=tuple(replace(i, place="elsewhere") for i in t.items)) for t in TASKS]
    evaluate(tmp_path, opened, world, moved, shots=1, batch_tokens=50, save_every=3)
    assert contents(tmp_path) == before


def test_only_one_command_writes_a_folder(opened, world, tmp_path):
    with (
        only_writer(tmp_path / ".lock", tmp_path),
        pytest.raises(ValueError, match="another process is writing it"),
    ):
        evaluate(tmp_path, opened, world, shots=1)


def test_nothing_is_written_where_the_questions_are_wrong(opened, world, tmp_path):
    solved = [make_task(solved=6), make_task(language="zh")]
    with pytest.raises(ValueError, match="shots=6: toy_zh has 5 solved questions"):
        evaluate(tmp_path / "out", opened, world, solved, shots=6)
    assert not (tmp_path / "out").exists()


def prediction(n, correct=1.0, subject="rocks", nats=(1.0, 2.0), **tags):
    return Prediction(str(n), subject, "A", "A", correct, nats, 0.5, tags)


def test_micro_and_macro_by_hand():
    answers = [prediction(n, float(n > 0)) for n in range(4)]
    answers += [prediction(n, 0.0, "maps", (1.0,) * 4) for n in range(4, 6)]
    broken = replace(prediction(6, 0.0, "maps", ()), margin=None)
    found = accuracy([*answers, broken])
    assert (found.questions, found.broken) == (7, 1)
    assert found.micro == pytest.approx(3 / 7)
    assert found.macro == pytest.approx((3 / 4 + 0) / 2)
    assert found.chance == pytest.approx((4 / 2 + 2 / 4) / 7)
    assert found.margin == pytest.approx(0.5)
    assert found.micro_interval.low < found.micro < found.micro_interval.high
    assert found.macro_interval.low < found.macro < found.macro_interval.high
    summary = summarize(answers, {"rocks": "Geology", "maps": "Geography", "none": "Empty"})
    assert list(summary["categories"]) == ["Geology", "Geography", OVERALL]
    assert summary["subjects"]["rocks"]["micro"] == 3 / 4


def test_broken_questions_count_as_wrong(opened, world, tmp_path):
    broken = item(0, tags={"broken": "no text in B"})
    summary = evaluate(tmp_path, opened, world, [make_task(items=(broken, item(1)))], shots=0)
    first, second = read_predictions(tmp_path / "toy_en.jsonl")
    assert (first.prediction, first.correct, first.nats, first.margin) == ("", 0, (), None)
    assert second.prediction
    whole = summary["toy_en"]["categories"][OVERALL]
    assert (whole["questions"], whole["broken"]) == (2, 1)


def test_tags_are_reported_where_they_repeat():
    answers = [prediction(n, float(n % 2), parity=str(n % 2), name=str(n)) for n in range(20)]
    tags = summarize(answers, {"rocks": "Geology"})["tags"]
    assert tags.keys() == {"parity"}
    assert [tags["parity"][x]["micro"] for x in "01"] == [0, 1]


def test_a_model_without_numbers_is_refused(opened):
    model, tokenizer = opened
    (question,) = prepare(make_task(items=(item(0),)), AskConfig(shots=0), tokenizer, model.config)
    with pytest.raises(ValueError, match=r"line 1: the log-likelihoods .* are not finite"):
        predict(question.item, question.prompt, (1.0, math.nan, 2.0, 3.0))


@pytest.fixture
def compared(opened, world, tmp_path):
    """Answers of a model, and of one with another head."""
    evaluate(tmp_path / "a", opened, world, shots=1)
    model, tokenizer = opened
    with torch.no_grad():
        model.lm_head.weight.copy_(model.lm_head.weight.flip(0))
    evaluate(tmp_path / "b", (model, tokenizer), world, shots=1)
    return tmp_path


def compare(folder, a="a", b="b"):
    return compare_folders(CompareConfig(a=str(folder / a), b=str(folder / b)))


def test_a_comparison_by_hand(compared):
    for found in compare(compared, "a", "a"):
        assert (found.difference, found.only_a, found.only_b, found.p) == (0, 0, 0, 1)
    both = {(c.task, c.category): c for c in compare(compared)}
    assert list(both)[:3] == [("toy_en", "Geology"), ("toy_en", "Geography"), ("toy_en", OVERALL)]
    a, b = (read_predictions(compared / x / "toy_en.jsonl") for x in "ab")
    whole = both["toy_en", OVERALL]
    assert whole.only_a == sum(x.correct > y.correct for x, y in zip(a, b, strict=True))
    assert whole.only_b == sum(x.correct < y.correct for x, y in zip(a, b, strict=True))
    assert whole.difference == pytest.approx((whole.only_b - whole.only_a) / 12)
    assert whole.interval.low <= whole.difference <= whole.interval.high
    assert comparison_table(list(both.values())).count("\n") == len(both)


def test_a_planted_difference_is_found(compared):
    for name, right in (("a", 0.0), ("b", 1.0)):
        file = compared / name / "toy_en.jsonl"
        changed = [json.loads(line) | {"correct": right} for line in file.read_text().splitlines()]
        file.write_text("".join(json.dumps(line) + "\n" for line in changed))
    whole = next(c for c in compare(compared) if c.category == OVERALL)
    assert (whole.difference, whole.only_a, whole.only_b) == (1, 0, 12)
    assert whole.p == pytest.approx(2 / 2**12)


def test_answers_to_other_questions_are_not_compared(compared, opened, world):
    evaluate(compared / "c", opened, world, shots=0)
    with pytest.raises(ValueError, match="differ in prompts, shots"):
        compare(compared, "a", "c")
    evaluate(compared / "d", opened, world, TASKS[:1], shots=1)
    with pytest.raises(ValueError, match=r"only one of .* has answered toy_zh"):
        compare(compared, "a", "d")
    with pytest.raises(ValueError, match="no such folder"):
        compare(compared, "a", "none")
    (compared / "empty").mkdir()
    with pytest.raises(ValueError, match="no predictions"):
        compare(compared, "a", "empty")
    file = compared / "b" / "toy_zh.jsonl"
    lines = file.read_text().splitlines(keepends=True)
    file.write_text("".join(lines[:-1]))
    with pytest.raises(ValueError, match=r"toy_zh.jsonl: 11 of 12 questions are answered; run the"):
        compare(compared)
    file.write_text("".join([*lines[:3], "{}\n", *lines[4:]]))
    with pytest.raises(ValueError, match=r"toy_zh.jsonl, line 4: not a prediction"):
        compare(compared)
    (compared / "b" / "toy_zh.settings.json").unlink()
    with pytest.raises(ValueError, match=r"toy_zh.settings.json: no such file"):
        compare(compared)


def test_a_limit_takes_the_same_questions_from_all_subjects_and_is_remembered(
    opened, world, tmp_path
):
    from evaluation.benchmarks.registry import open_tasks

    whole = open_tasks(["sample_en"], None, "released")[0]
    found = {n: open_tasks(["sample_en"], None, "released", n)[0] for n in (1, 10, 10**6)}
    assert [len(task.items) for task in found.values()] == [1, 10, len(whole.items)]
    ids = [item.id for item in whole.items]
    places = [ids.index(item.id) for item in found[10].items]
    steps = {after - before for before, after in pairwise(places)}
    assert places[0] == 0
    assert max(steps) - min(steps) <= 1
    for bad in (0, -3):
        with pytest.raises(ValueError, match=f"limit={bad}: must be at least 1"):
            configure(tmp_path, limit=bad)

    few = [replace(task, items=task.items[:2]) for task in TASKS]
    summary = evaluate(tmp_path, opened, world, tasks=few, shots=0, limit=2)
    assert {one["limit"] for one in summary.values()} == {2}
    evaluate(tmp_path, opened, world, tasks=few, shots=0, limit=2)
    for other in ({"limit": None, "tasks": TASKS}, {"limit": 3, "tasks": few}):
        with pytest.raises(ValueError, match=r"different settings \(limit"):
            evaluate(tmp_path, opened, world, shots=0, **other)


def run_script(monkeypatch, capsys, main, *arguments):
    """What a command prints; on a ValueError what it says of it."""
    monkeypatch.setattr("sys.argv", ["script", *arguments])
    try:
        main()
    except SystemExit as stopped:
        return str(stopped.code)
    return capsys.readouterr().out


def test_the_commands(compared, monkeypatch, capsys):
    from scripts.compare import main as compare_main
    from scripts.evaluate import main as evaluate_main

    def run(main, *arguments):
        return run_script(monkeypatch, capsys, main, *arguments)

    both, out = (f"a={compared / 'a'}", f"b={compared / 'b'}"), compared / "comparison.json"
    printed = run(compare_main, *both, f"out={out}")
    assert printed.splitlines()[3].split()[:3] == ["toy_en", "all", "12"]
    assert len(json.loads(out.read_text())) == 6
    assert "b: must be given" in run(compare_main, both[0])
    given = ("folder=none", "tasks=[sample_en]", f"out={compared / 'new'}")
    assert "did you mean shots" in run(evaluate_main, *given, "shot=0")
    assert "out: must be given" in run(evaluate_main, *given[:2], "shots=0")
    assert "shots_per_task={sample_en: 0}" in run(evaluate_main, *given)
    assert "mmlu needs benchmarks=" in run(evaluate_main, "folder=none", "tasks=[mmlu]", given[2])
