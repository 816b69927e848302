"""The command that continues a text."""

import subprocess
import sys

from inference.generation.generate import generate
from inference.generation.load import LoadConfig, load_for_generation
from inference.generation.sampling import (
    SamplingConfig,
)
from tests.helpers.toy import ROOT
from tests.unit.inference.generation.test_generate import folder  # noqa: F401 fixture


def test_the_command_continues_a_text(folder):
    result = subprocess.run(
        [sys.executable, "-m", "scripts.generate", f"folder={folder}", "prompt=the rock",
         "max_new_tokens=12", "temperature=0", "device=cpu"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    loaded = load_for_generation(LoadConfig(folder=str(folder), device="cpu"))
    tokenizer = loaded.tokenizer
    ids = [tokenizer.bos_id, *tokenizer.encode("the rock")]
    config = SamplingConfig(max_new_tokens=12, temperature=0.0)
    answer = generate(
        loaded.engine, [ids], config, eos_ids=[tokenizer.eos_id], decode=tokenizer.decode
    )[0]
    assert result.stdout == f"the rock{answer.text}\n"
    assert tokenizer.decode([*ids, *answer.ids]) == f"the rock{answer.text}"
