"""Training a tokenizer gives the same bytes in every process."""

import json
import subprocess
import sys

from tests.unit.tokenizer.test_tokenizer import (
    CORPUS,
    parse,
    serialized,  # noqa: F401 fixture
)


def test_training_is_deterministic(serialized):
    program = (
        "import json, sys; from tokenizer.train import train_bpe\n"
        "texts = json.load(sys.stdin)\n"
        "sys.stdout.buffer.write(train_bpe(iter(texts), vocab_size=480))"
    )
    again = subprocess.run(
        [sys.executable, "-c", program], input=json.dumps(CORPUS).encode(), capture_output=True
    )
    assert again.stderr == b""  # and quiet
    first, second = parse(serialized), parse(again.stdout)
    assert [(p.piece, p.score) for p in first.pieces] == [(p.piece, p.score) for p in second.pieces]
