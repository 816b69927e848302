"""The adapter gives the log-likelihoods of lm-evaluation-harness's own model, on a local task."""

import json
import os
import subprocess
import sys
from importlib.util import find_spec

import pytest
import torch

from pretrained.safetensors_folder import save_pretrained
from tests.helpers.toy import ROOT, toy_config, toy_model
from tests.unit.evaluation.multiple_choice.test_prompts import write_tokenizer
from training.distributed import start_world


def compare_with_their_own(folder: str, tasks: str) -> None:
    """Accuracies of a local task through lm-eval's own model and through the adapter."""
    from lm_eval import simple_evaluate
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    from evaluation.multiple_choice.lm_eval_adapter import ModelAdapter
    from pretrained.load import open_model

    found = []
    with start_world("cpu") as world:
        model, tokenizer = open_model(folder, torch.float32, world.device)
        for network in (
            HFLM(pretrained=folder, device="cpu", dtype="float32", add_bos_token=True),
            ModelAdapter(model, tokenizer, world, 256),
        ):
            results = simple_evaluate(
                network, tasks=["toy"], num_fewshot=2, bootstrap_iters=0,
                task_manager=TaskManager(include_path=tasks, include_defaults=False),
            )  # fmt: skip
            assert results is not None
            samples = sorted(results["samples"]["toy"], key=lambda sample: sample["doc_id"])
            found.append([[float(r[0]) for r in s["filtered_resps"]] for s in samples])
    assert len(found[0]) == 12
    assert found[1] == [pytest.approx(one, abs=1e-4) for one in found[0]]


@pytest.mark.skipif(
    find_spec("lm_eval") is None, reason="lm-eval is not installed: pip install -e '.[harness]'"
)
def test_the_harness_gives_the_same_answers(tmp_path):
    tokenizer = write_tokenizer(tmp_path)
    # No padded ids: the harness gives them some probability.
    config = toy_config(vocab_size=tokenizer.vocab_size, sliding_window=96)
    save_pretrained(toy_model(config), tmp_path / "toy", tokenizer)
    tasks = tmp_path / "tasks"
    tasks.mkdir()
    lines = [
        {"question": f"Is it {n}?", "choices": ["yes", "no", "loess"], "answer": n % 3}
        for n in range(12)
    ]
    (tasks / "toy.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    description = {
        "task": "toy",
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(tasks / "toy.jsonl")}},
        "test_split": "test",
        "fewshot_split": "test",
        "output_type": "multiple_choice",
        "doc_to_text": "{{question}}\nAnswer:",
        "doc_to_choice": "choices",
        "doc_to_target": "answer",
        "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
    }
    (tasks / "toy.yaml").write_text(json.dumps(description))
    code = (
        "from tests.e2e.commands.test_lm_eval import compare_with_their_own as compare; "
        f"compare({str(tmp_path / 'toy')!r}, {str(tasks)!r})"
    )
    offline = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "HF_HOME": str(tmp_path / "hf")}
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False,
        env=os.environ | offline,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
