"""The command that serves, in a process of its own."""

import signal
import subprocess
import sys

import pytest
import torch

from pretrained.safetensors_folder import save_pretrained
from tests.helpers.toy import ROOT, toy_config, toy_model
from tests.unit.inference.serving.test_serve import (
    ENDLESS,
    QUESTION,
    loaded,  # noqa: F401 fixture
    openai,
)


@pytest.fixture
def interruptible():
    """Commands heed Ctrl-C, although a shell that runs the tests in the background ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
def test_the_command_serves_until_ctrl_c(loaded, tmp_path):
    tokenizer = loaded.tokenizer
    model = toy_model(toy_config(vocab_size=tokenizer.vocab_size))
    with torch.no_grad():
        # A logit of 0 is never the largest of so many: at temperature 0 the answer has no EOS.
        model.lm_head.weight[tokenizer.eos_id] = 0
    save_pretrained(model, tmp_path / "toy", tokenizer)
    arguments = [f"folder={tmp_path / 'toy'}", "port=0", "temperature=0", "device=cpu"]
    arguments.append(f"longest_answer={ENDLESS}")
    command = [sys.executable, "-m", "scripts.serve", *arguments]
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        url = next(line for line in process.stderr if "at http" in line).split()[-1]
        assert any("startup complete" in line for line in process.stderr)
        with openai.OpenAI(base_url=url, api_key="none") as client:
            asked = {"model": "toy", "messages": QUESTION, "max_tokens": ENDLESS}
            chunks = client.chat.completions.create(**asked, stream=True)
            assert next(chunks).choices[0].delta.role == "assistant"
            process.send_signal(signal.SIGINT)
            with pytest.raises(openai.APIError, match="shutting down"):
                list(chunks)
        log = process.stderr.read()
        assert process.wait(120) == 130
    assert "interrupted" in log
    assert log.endswith("stopped; run the same command to serve again\n")
    assert "Traceback" not in log
