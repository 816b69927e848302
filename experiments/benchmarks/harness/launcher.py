"""Who measures: a process for each job, or, on a GPU, one for all of them in turn.

On a CPU peak memory is a process's, so each side has its own. A GPU's can be reset, and
there starting Python and its libraries again and again would take longer than measuring.
"""

import json
import os
import selectors
import signal
import subprocess
import sys
import tempfile
from contextlib import ExitStack, suppress
from pathlib import Path

from experiments.benchmarks.harness.workloads import Job, Kernel

MINUTES = 30
"""A side that takes longer hangs: compiling peers have done so."""
ROOT = Path(__file__).resolve().parents[3]
MODULE = "experiments.benchmarks.measure"


def environment_of(job: Job) -> dict[str, str]:
    """Environment variables that libraries read at import."""
    threads = {name: str(job.threads) for name in ("OMP_NUM_THREADS", "RAYON_NUM_THREADS")}
    environment = {**os.environ, **threads, "TOKENIZERS_PARALLELISM": "true", "HF_HUB_OFFLINE": "1"}
    if isinstance(job.work, Kernel) and job.work.device == "cpu":
        environment["TRITON_INTERPRET"] = "1"
    return environment


def launch(job: Job) -> dict:
    """Measure a job in a separate process."""
    with subprocess.Popen(
        [sys.executable, "-m", MODULE, job.to_json()],
        cwd=ROOT,
        env=environment_of(job),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            out, errors = process.communicate(timeout=60 * MINUTES)
        except subprocess.TimeoutExpired:
            return {"not_measured": f"stopped after {MINUTES} minutes"}
        finally:
            end(process)
    if process.returncode == 0:
        return json.loads(out.splitlines()[-1])
    return {"not_measured": _why(process.returncode, errors)}


def end(process: subprocess.Popen) -> None:
    """With all that it has started, which would load what is measured next."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def _why(code: int, errors: str) -> str:
    """A process ended without a measurement: by which signal, or the last it had to say."""
    if code < 0:
        name = signal.Signals(-code).name
        return f"ended by {name}" + " (too little memory?)" * (name == "SIGKILL")
    lines = errors.strip().splitlines() or [f"exit code {code}"]
    return lines[-1][:300]


class Launcher:
    """Measures jobs, each where it belongs; a context, at whose end no process is left."""

    def __init__(self) -> None:
        self._server: subprocess.Popen[str] | None = None
        self._files = ExitStack()
        self._errors = self._files.enter_context(
            tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")  # noqa: SIM115
        )

    def __enter__(self) -> "Launcher":
        return self

    def __exit__(self, *_raised: object) -> None:
        self._stop()
        self._files.close()

    def __call__(self, job: Job) -> dict:
        """The figures of a job, or `not_measured` with the reason."""
        return self.ask(job) if getattr(job.work, "device", "cpu") == "cuda" else launch(job)

    def ask(self, job: Job) -> dict:
        """Let the serving process measure a job; it is started if there is none."""
        server = self._server
        if server is None or server.poll() is not None:
            self._stop()
            server = self._server = self._start(job)
        assert server.stdin is not None
        assert server.stdout is not None
        server.stdin.write(job.to_json() + "\n")
        server.stdin.flush()
        with selectors.DefaultSelector() as waiting:
            waiting.register(server.stdout, selectors.EVENT_READ)
            answered = waiting.select(60 * MINUTES)
        answer = server.stdout.readline() if answered else ""
        if answer:
            found = json.loads(answer)
            if found.pop("last"):  # it takes a while to end, and reads nothing any more
                self._stop()
            return found
        if not answered:
            self._stop()
            return {"not_measured": f"stopped after {MINUTES} minutes"}
        code = server.wait()
        self._errors.seek(0)
        return {"not_measured": _why(code, self._errors.read())}

    def _start(self, job: Job) -> subprocess.Popen[str]:
        self._errors.seek(0)
        self._errors.truncate()
        return subprocess.Popen(
            [sys.executable, "-m", MODULE, "--serve"],
            cwd=ROOT,
            env=environment_of(job),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            bufsize=1,
            start_new_session=True,
        )

    def _stop(self) -> None:
        server, self._server = self._server, None
        if server is None:
            return
        end(server)
        server.wait()
        for pipe in (server.stdin, server.stdout):
            if pipe is not None:
                with suppress(BrokenPipeError):
                    pipe.close()
