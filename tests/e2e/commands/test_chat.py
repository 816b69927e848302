"""A conversation in the terminal, as a process."""

import json
import subprocess
import sys

from pretrained.safetensors_folder import save_pretrained
from tests.helpers.toy import ROOT
from tests.unit.inference.generation.test_chat import (
    network,
    tokenizer,  # noqa: F401 fixture
)


def test_a_session_through_a_pipe(tokenizer, tmp_path):
    folder, saved = tmp_path / "toy", tmp_path / "said.jsonl"
    save_pretrained(network(tokenizer), folder, tokenizer)
    lines = [
        "/system be brief",
        "what is\\",
        "loess?",
        '"""',
        "and",
        "sand?",
        '"""',
        f"/save {saved}",
    ]
    result = subprocess.run(
        [sys.executable, "-m", "scripts.chat", f"folder={folder}", "max_new_tokens=5",
         "device=cpu"],
        cwd=ROOT, capture_output=True, text=True, check=False, input="\n".join(lines) + "\n",
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    messages = json.loads(saved.read_text())["messages"]
    assert [m["content"] for m in messages if m["role"] != "assistant"] == [
        "be brief", "what is\nloess?", "and\nsand?",
    ]  # fmt: skip
    answers = [m["content"] for m in messages if m["role"] == "assistant"]
    assert len(answers) == 2
    assert all(answer in result.stdout for answer in answers)
