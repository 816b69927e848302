"""A trace of a run that starts from another run."""

import re

from tests.helpers.runs import TWO_STAGES, configure, tiny
from tests.unit.data.rows.test_trace import printed
from train import train


def test_what_was_read_before_the_run_began_is_said(finished, sample, tmp_path, capsys):
    config = configure(
        "+experiment=tspt_stage2",
        *TWO_STAGES,
        f"init_from={finished}",
        "name=second",
        *tiny(sample, tmp_path),
    )
    train(config)
    out = printed(capsys, finished, step=1)
    read = {line.split()[0] for line in out.splitlines() if line.startswith("  general_en:")}
    second = [printed(capsys, config.folder, document=name) for name in read]
    assert second
    for text in second:  # all of their rows that the first run read, some of them replayed here
        assert re.search(r"\n  before this run began: (\d+) of the \1 rows", text)
        assert "adaptation" not in text
