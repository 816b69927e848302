"""Expansion of a tokenizer gives the same bytes in every process."""

import subprocess
import sys

from tests.unit.tokenizer.expansion.test_expand import (  # noqa: F401 fixtures
    base,
    grown,
)


def test_a_fresh_process_gives_the_same_bytes(base, grown, tmp_path):
    (tmp_path / "base.model").write_bytes(base.SerializeToString())
    program = (
        "import sys; from pathlib import Path\n"
        "from tests.unit.tokenizer.expansion.test_expand import grow\n"
        "from tokenizer.expansion.candidates import read_model\n"
        "sys.stdout.buffer.write(grow(read_model(Path(sys.argv[1])), 60).model)"
    )
    command = [sys.executable, "-W", "ignore", "-c", program, str(tmp_path / "base.model")]
    for seed in "12":
        run = subprocess.run(command, capture_output=True, check=True, env={"PYTHONHASHSEED": seed})
        assert run.stdout == grown.model
