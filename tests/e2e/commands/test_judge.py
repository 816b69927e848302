"""A judge command that is killed continues."""

import signal
import subprocess
import sys
import threading
import time

import pytest

from evaluation.judge.run import judge_answers
from tests.helpers.toy import ROOT
from tests.unit.evaluation.judge.test_judge import (
    configure,
    files,  # noqa: F401 fixture
    score_by_kind,
    serving,
    transcript,
)


def test_a_killed_command_goes_on(files, tmp_path):
    """kill -9 while requests are under way; what had a verdict is not asked again."""
    reached, release = threading.Event(), threading.Event()

    def reply(prompt, count):
        if len(judge.seen) > 7:
            reached.set()
            release.wait(300)
        return score_by_kind(prompt, count)

    out = tmp_path / "out"
    with serving(reply) as judge:
        config = configure(files, judge.url, out, workers=2)
        names = ", ".join(f"{name}: {path}" for name, path in config.answers.items())
        process = subprocess.Popen(
            [sys.executable, "-m", "scripts.judge", f"questions={config.questions}",
             f"answers={{{names}}}", f"endpoint={judge.url}", f"judge={config.judge}",
             f"out={out}", "workers=2", "attempts=3", "backoff_seconds=0", "body={}"],
            cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert reached.wait(300), process.communicate(timeout=1)
        with pytest.raises(ValueError, match=r"out=.*: another process is writing it"):
            judge_answers(config)
        while len(transcript(out)) < 6:
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        done, asked = len(transcript(out)), len(judge.seen)
        assert 6 <= done < 12
        release.set()
        summary = judge_answers(config)
    assert len(judge.seen) - asked == 12 - done
    assert summary["answers"]["alpha"]["criteria"]["depth"]["total"] == 18
    assert len({(line["question"], *line["names"]) for line in transcript(out)}) == 12
