"""lm-evaluation-harness on the exported questions: the same answers, one by one.

Needs `pip install -e ".[harness]"`; everything else about prompts and scores is tested without it.
"""

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

from evaluation.multiple_choice.config import AskConfig
from evaluation.multiple_choice.harness import HarnessConfig, export_harness
from evaluation.multiple_choice.predictions import read_predictions
from evaluation.multiple_choice.prompts import write_prompts
from evaluation.multiple_choice.run import evaluate_tasks
from pretrained.load import open_model
from pretrained.safetensors_folder import save_pretrained
from tests.helpers.toy import ROOT, toy_config, toy_model
from tests.unit.evaluation.multiple_choice.test_evaluate_tasks import TASKS, configure
from tests.unit.evaluation.multiple_choice.test_prompts import item, make_task, write_tokenizer
from training.distributed import start_world

WAYS = {
    "zero": {"shots": 0},
    "five": {"shots": 5},
    "cloze": {"shots": 0, "scoring": "cloze"},
}


def export(out, tasks=TASKS, **options):
    return export_harness(HarnessConfig(tasks=["mmlu"], out=str(out), **options), tasks)


def test_the_harness_reads_what_the_model_reads(tmp_path):
    broken = item(0, tags={"broken": "no text in B"})
    tasks = [make_task(items=(broken, *make_task().items[1:])), TASKS[1]]
    names = export(tmp_path / "out", tasks, shots=2)
    assert names == ["jiuzhou_toy_en_released", "jiuzhou_toy_zh_released"]
    for name, task in zip(names, tasks, strict=True):
        description = json.loads((tmp_path / "out" / f"{name}.yaml").read_text())
        lines = [json.loads(x) for x in Path(description["dataset_kwargs"]["data_files"]["test"])
                 .read_text().splitlines()]  # fmt: skip
        prompts = [p for p in write_prompts(task, AskConfig(shots=2)) if p is not None]
        assert len(lines) == len(prompts)
        for line, prompt in zip(lines, prompts, strict=True):
            blank = description["target_delimiter"]
            assert line["context"] == prompt.context
            assert tuple(blank + choice for choice in line["choices"]) == prompt.endings
            assert line["answer"] == prompt.answer
    with pytest.raises(ValueError, match="exists; choose another folder"):
        export(tmp_path / "out", tasks)
    with pytest.raises(ValueError, match="shots=9: toy_en has 5 solved"):
        export(tmp_path / "other", tasks, shots=9)
    assert not (tmp_path / "other").exists()


def ask_harness(folder: str, exported: str, answers: str) -> None:
    """What a user's command does, in a process of its own: log-likelihoods of every choice."""
    from lm_eval import simple_evaluate
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    network = HFLM(pretrained=folder, device="cpu", dtype="float32", add_bos_token=True)
    found = {}
    for way in sorted(Path(exported).iterdir()):
        tasks = TaskManager(include_path=str(way), include_defaults=False)
        names = sorted(path.stem for path in way.glob("*.yaml"))
        results = simple_evaluate(
            network, tasks=names, task_manager=tasks, log_samples=True, bootstrap_iters=0
        )
        assert results is not None
        for name, samples in results["samples"].items():
            metric = "acc_bytes" if way.name == "cloze" else "acc"
            found[f"{way.name}/{name}"] = {
                sample["doc"]["id"]: {
                    "nats": [-float(resp[0]) for resp in sample["filtered_resps"]],
                    "bytes": [len(choice.encode()) for choice in sample["doc"]["choices"]],
                    "correct": float(sample[metric]),
                }
                for sample in samples
            }
    Path(answers).write_text(json.dumps(found))


@pytest.mark.skipif(
    find_spec("lm_eval") is None, reason="lm-eval is not installed: pip install -e '.[harness]'"
)
def test_the_harness_gives_the_same_answers(tmp_path):
    tokenizer = write_tokenizer(tmp_path)
    # No padded ids: the harness would give them some probability.
    config = toy_config(vocab_size=tokenizer.vocab_size, sliding_window=96)
    save_pretrained(toy_model(config), tmp_path / "toy", tokenizer)
    with start_world("cpu") as world:
        torch.set_num_threads(1)
        for way, options in WAYS.items():
            opened = open_model(tmp_path / "toy", torch.float32, "cpu")
            evaluate_tasks(configure(tmp_path / way, **options), TASKS, *opened, world)
            export(tmp_path / "exported" / way, **options)
    arguments = (str(tmp_path / "toy"), str(tmp_path / "exported"), str(tmp_path / "answers"))
    offline = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "HF_HOME": str(tmp_path / "hf")}
    code = f"from tests.e2e.commands.test_lm_eval import ask_harness; ask_harness(*{arguments!r})"
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False,
        env=os.environ | offline,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    answers, compared = json.loads((tmp_path / "answers").read_text()), 0
    for way, options in WAYS.items():
        for task in TASKS:
            theirs = answers[f"{way}/jiuzhou_{task.name}_released"]
            ours = read_predictions(tmp_path / way / f"{task.name}.jsonl")
            assert len(theirs) == len(ours)
            for prediction in ours:
                their = theirs[prediction.id]
                sizes = their["bytes"] if "scoring" in options else [1] * len(their["nats"])
                nats = [x / size for x, size in zip(their["nats"], sizes, strict=True)]
                assert prediction.nats == pytest.approx(nats, abs=1e-4)
                best = min(range(len(nats)), key=nats.__getitem__)
                assert prediction.prediction == "ABCD"[best]
                assert prediction.correct == their["correct"]
                compared += 1
    assert compared == len(WAYS) * 24
