"""Whole runs at a size that takes seconds."""

import json
import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from conf.schema import Config, register
from conf.suggest import CONF
from tests.helpers.sizes import SAMPLE_SCALE
from training.run.folder import read_starts

ROOT = CONF.parent
TINY = (
    "model.hidden_size=32",
    "model.intermediate_size=64",
    "model.num_hidden_layers=2",
    "model.sliding_window=24",
    "batch.row_length=64",
    "batch.tokens_per_step=512",
    "batch.micro_batch_rows=4",
    "optim.lr=3e-3",
    "evaluation.chunk_bytes=48",
    "evaluation.max_bytes=2000",
    "evaluation.every=5",
    "checkpoint.every=4",
    "device=cpu",
)

TWO_STAGES = (
    "curriculum.stages.adaptation.tokens=3072",  # 6 steps
    "curriculum.stages.specialization.tokens=2048",  # 4 steps
)


def tiny(sample: Path, runs: Path, *overrides: str) -> list[str]:
    """Overrides of a tiny run on the small sample."""
    return [
        *TINY,
        f"data.root={sample}",
        f"data.tokenizer={sample / 'tokenizer'}",
        f"data.sample_scale={SAMPLE_SCALE}",
        f"runs_folder={runs}",
        *overrides,
    ]


def two_stages(sample: Path, runs: Path, *overrides: str) -> list[str]:
    """Overrides of a run of two stages in the folder `run`: 10 steps, the border after step 6.

    Checkpoints of steps 4, 8 and 10, so that one leg crosses the border; evaluations of steps 0, 6
    and 10; the second stage replays rows of the first.
    """
    keep = ("checkpoint.every=4", "checkpoint.keep_last=3", "evaluation.every=6", "name=run")
    return ["+experiment=tspt", *TWO_STAGES, *tiny(sample, runs), *keep, *overrides]


def configure(*overrides: str, config_name: str = "train") -> Config:
    """What `train.py` would compose from a command line."""
    register()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = OmegaConf.to_object(compose(config_name, list(overrides)))
    assert isinstance(config, Config)
    return config


def command(*arguments: str, ranks: int | None = None) -> list[str]:
    """A command line for train.py, under torchrun if ranks are given."""
    if ranks is None:
        return [sys.executable, "train.py", *arguments]
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    return [*launcher, f"--nproc-per-node={ranks}", "train.py", *arguments]


def execute(*arguments: str, ranks: int | None = None) -> subprocess.CompletedProcess[str]:
    """Run train.py as a user would, and wait."""
    return subprocess.run(
        command(*arguments, ranks=ranks),
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"TORCH_CPP_LOG_LEVEL": "ERROR"},
    )


def kill_tree(process: subprocess.Popen) -> None:
    """kill -9 a launcher and its workers, which lead sessions of their own: by their parent."""
    children = subprocess.run(
        ["pgrep", "-P", str(process.pid)], capture_output=True, text=True, check=False
    )
    for pid in [process.pid, *map(int, children.stdout.split())]:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    process.wait()


def metrics(run: Path) -> list[dict]:
    """The rows of a run's metrics.jsonl."""
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def losses(run: Path) -> dict[int, tuple[float, float]]:
    """step -> (loss_nats, grad_norm), each step once."""
    rows = [row for row in metrics(run) if "loss_nats" in row]
    found = {row["step"]: (row["loss_nats"], row["grad_norm"]) for row in rows}
    assert len(found) == len(rows)
    return found


def starts(run: Path) -> list[int]:
    """After which step each start of a run went on; 0 for one that began."""
    return [start["step"] for start in read_starts(run)]


def evaluations(run: Path) -> dict[int, dict]:
    """step -> results per held-out set, each step once."""
    rows = [row for row in metrics(run) if "eval" in row]
    found = {row["step"]: row["eval"] for row in rows}
    assert len(found) == len(rows)
    return found
