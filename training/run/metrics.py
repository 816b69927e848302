"""Log of a run: metrics.jsonl, a progress bar and, on request, Weights & Biases."""

import json
import math
import secrets
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from model.config import ModelConfig
from storage.atomic import fsync_file, write_atomically
from storage.journal import json_row
from training.distributed import World
from training.run.forgetting import Results, describe_evaluation, starting_point, with_deltas
from training.step import StepResult

LOG_LINE_SECONDS = 15
WANDB_MODES = ("disabled", "offline", "online")


@dataclass(kw_only=True)
class LoggingConfig:
    """Frequency and targets of the log."""

    every: int = 1
    """Steps between rows of metrics.jsonl."""
    row_losses: bool = False
    """Log the loss of every row too (`rows`), for `scripts.trace`."""
    wandb: str = "disabled"
    """`disabled`, `offline` (files for a later `wandb sync`), or `online`."""
    wandb_project: str = "jiuzhou"
    profile: bool = False
    """Trace steps 3 to 5 of this start with the PyTorch profiler into `profile/rank-N.json`."""
    peak_tflops: float | None = None
    """Peak TFLOP/s of a device, for MFU; null: measure a matrix product at the start."""

    def __post_init__(self) -> None:
        if self.every < 1:
            raise ValueError(f"logging.every={self.every}: must be at least 1")
        if self.wandb not in WANDB_MODES:
            raise ValueError(f"logging.wandb={self.wandb!r}: one of {', '.join(WANDB_MODES)}")
        if self.peak_tflops is not None and not 0 < self.peak_tflops < math.inf:
            raise ValueError(f"logging.peak_tflops={self.peak_tflops}: must be positive")


class MetricsLog:
    """Appends rows to metrics.jsonl, mirrors them to W&B, and moves the progress bar.

    On processes other than the main one it does nothing.
    """

    def __init__(
        self, folder: Path, config: LoggingConfig, *, active: bool, steps: int, settings: dict
    ) -> None:
        self._file = self._bar = self._wandb = None
        if not active:
            return
        self._path = folder / "metrics.jsonl"
        self._file = self._path.open("a", encoding="utf-8")
        # A bar on a terminal; in a log file a line now and then.
        terminal = sys.stderr.isatty()
        self._bar = tqdm(total=steps, unit="step", dynamic_ncols=True, disable=not terminal)
        self._steps, self._last_line = steps, 0.0
        if config.wandb != "disabled":
            self._wandb = _start_wandb(folder, config, settings)

    def rewind(self, step: int | None) -> None:
        """Remove the rows after `step` (None: all rows); the resumed run writes them again."""
        if self._file is None or self._bar is None:
            return
        self._file.close()
        rows = self._path.read_text(encoding="utf-8").splitlines(keepends=True)
        # A kill in the middle of a write may leave a last line without its end.
        complete = (row for row in rows if row.endswith("\n"))
        numbered = enumerate(complete, start=1)
        kept = [row for n, row in numbered if step is not None and self._step_of(n, row) <= step]
        write_atomically(self._path, "".join(kept))
        self._file = self._path.open("a", encoding="utf-8")
        self._bar.update((step or 0) - self._bar.n)

    def _step_of(self, line: int, row: str) -> int:
        step = json_row(row).get("step")
        if type(step) is not int:
            raise ValueError(
                f"{self._path}: line {line} is not a valid log record: {row[:40]!r}. Correct or "
                "remove it, then run the same command again"
            )
        return step

    def write(self, row: dict[str, Any]) -> None:
        """Append one row, durable against a crash of the process."""
        if self._file is None:
            return
        self._file.write(json.dumps(row) + "\n")
        self._file.flush()
        if self._wandb is not None:
            self._wandb.log(row, step=row["step"])

    def step(
        self,
        step: int,
        stage: str,
        tokens: int,
        lr: float,
        result: StepResult,
        rates: dict[str, float],
        rows: list[tuple[int, float]] | None,
    ) -> None:
        """Log one update and show it.

        Args:
            tokens: read by the run up to this step.
            rates: reading of a `Meter`.
            rows: loss of each row, None where it is not logged.
        """
        row = {
            "step": step,
            "stage": stage,
            "tokens": tokens,
            "loss_nats": result.loss_nats,
            "lr": lr,
            "grad_norm": result.grad_norm,
            **rates,
            "sources": result.sources,
        }
        self.write(row if rows is None else row | {"rows": rows})
        self.progress(row)

    def evaluation(self, step: int, stage: str, results: Results) -> None:
        """Log the loss on the held-out sets, with differences from step 0; nothing without sets."""
        if self._file is None or not results:
            return
        start = results if step == 0 else starting_point(self._path) or {}
        results = with_deltas(results, start)
        self.write({"step": step, "stage": stage, "eval": results})
        self.say(f"step {step}: {describe_evaluation(results)}")

    def tasks(self, step: int, stage: str, scores: dict[str, dict[str, float | None]]) -> None:
        """Log the accuracy of each benchmark, and its mean margin in nats."""
        self.write({"step": step, "stage": stage, "tasks": scores})
        parts = [
            f"{name} {score['micro']:.1%}"
            + (f" ({score['margin']:+.3f})" if score["margin"] else "")
            for name, score in scores.items()
        ]
        self.say(f"step {step}: accuracy (margin in nats) {', '.join(parts)}")

    def fsync(self) -> None:
        """Force the log to disk: no checkpoint may exist without the rows that lead to it."""
        if self._file is not None:
            fsync_file(self._file)

    def progress(self, row: dict[str, Any]) -> None:
        """Show a row's figures and how far the run is."""
        if self._bar is None:
            return
        figures = (
            f"{row['stage']} loss {row['loss_nats']:.3f} lr {row['lr']:.1e} "
            f"{row['tokens_per_second']:,.0f} tok/s "
            f"MFU {row['mfu']:.0%} (PaLM's count {row['mfu_palm']:.0%})"
        )
        if not self._bar.disable:
            self._bar.set_postfix_str(figures, refresh=False)
            self._bar.update(row["step"] - self._bar.n)
            return
        now = time.monotonic()
        if now - self._last_line >= LOG_LINE_SECONDS or row["step"] == self._steps:
            self._last_line = now
            tokens_left = (self._steps / row["step"] - 1) * row["tokens"]
            minutes = tokens_left / row["tokens_per_second"] / 60
            self.say(f"step {row['step']}/{self._steps} {figures} {minutes:.1f} min left")

    def say(self, message: str) -> None:
        """Print a line above the bar."""
        if self._bar is not None:
            self._bar.write(message)
            sys.stdout.flush()

    def close(self) -> None:
        """Flush and finish all sinks."""
        if self._file is not None and self._bar is not None:
            self._file.close()
            self._bar.close()
        if self._wandb is not None:
            self._wandb.finish()


def _start_wandb(folder: Path, config: LoggingConfig, settings: dict) -> Any:
    import wandb

    # Drawn once and kept in the folder: a resumed run continues its own curves, and a run of the
    # same name elsewhere does not.
    identity = folder / "wandb_id"
    if not identity.exists():
        write_atomically(identity, secrets.token_hex(8))
    return wandb.init(
        project=config.wandb_project,
        name=folder.name,
        id=identity.read_text(encoding="utf-8"),
        resume="allow",
        mode=config.wandb,  # pyright: ignore[reportArgumentType]
        dir=folder,
        config=settings,
    )


class Meter:
    """Tokens per second and model FLOPs utilisation between two readings.

    Only the time of updates is counted, not that of evaluation and saving.

    Args:
        peak_flops: per second, of all devices.
        palm_flops: per token, see `ModelConfig.palm_flops`.
    """

    def __init__(self, peak_flops: float, palm_flops: float) -> None:
        self._peak_flops, self._palm_flops = peak_flops, palm_flops
        self._tokens, self._flops, self._seconds = 0, 0, 0.0

    @classmethod
    def for_run(
        cls,
        config: LoggingConfig,
        model: ModelConfig,
        row_length: int,
        dtype: torch.dtype,
        world: World,
    ) -> "Meter":
        """Meter against `logging.peak_tflops` or a matrix product measured now; prints the peak."""
        peak = (config.peak_tflops or 0.0) * 1e12 or measure_peak_flops(world.device, dtype)
        source = "measured now" if config.peak_tflops is None else "logging.peak_tflops"
        world.print(f"MFU is relative to {peak / 1e12:.3g} TFLOP/s per device ({source})")
        return cls(peak * world.dp_size, model.palm_flops(1, row_length))

    def add(self, tokens: int, flops: int, seconds: float) -> None:
        """Count the work of all devices in one update, and its time."""
        self._tokens += tokens
        self._flops += flops
        self._seconds += seconds

    def read(self) -> dict[str, float]:
        """Figures since the last reading; starts a new interval."""
        rate = self._tokens / self._seconds
        figures = {
            "tokens_per_second": rate,
            "mfu": self._flops / self._seconds / self._peak_flops,
            "mfu_palm": rate * self._palm_flops / self._peak_flops,
            "seconds": self._seconds,
        }
        self._tokens, self._flops, self._seconds = 0, 0, 0.0
        return figures


def measure_peak_flops(device: torch.device, dtype: torch.dtype) -> float:
    """Rate of a large square matrix product on this device, the best of a few."""
    size = 8192 if device.type == "cuda" else 1024
    x = torch.randn(size, size, device=device).to(dtype)
    best = float("inf")
    for _ in range(8):
        _wait(device)
        start = time.perf_counter()
        torch.mm(x, x)
        _wait(device)
        best = min(best, time.perf_counter() - start)
    return 2 * size**3 / best


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
