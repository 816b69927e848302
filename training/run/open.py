"""An open run: its folder is checked before anything is written, locked, and recorded."""

import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pretrained.folder import FINAL_FOLDERS
from storage.atomic import write_atomically
from storage.journal import json_row
from training.checkpoint.manifest import finished
from training.distributed import World
from training.run.folder import describe_environment, open_run_folder, record_start
from training.run.log import describe_gaps
from training.run.metrics import LoggingConfig, MetricsLog
from training.run.plots import plot_forgetting, plot_run
from training.run.resume import check_resume, check_same_state
from training.run.started_from import keep


@dataclass(frozen=True)
class RunRecord:
    """Facts about a run that its folder records before the first step.

    Attributes:
        folder: the run folder.
        config_yaml: the resolved configuration, for config.yaml.
        settings: the same configuration as a tree, for Weights & Biases.
        logging: settings of the log.
        resume: `auto`, `required` or `never`.
        steps: of the whole run.
        fingerprints: of the data and of the initial weights, for environment.json.
        start: settings and hardware that the last bits of a step depend on, for starts.jsonl.
        initial: folder of the initial weights, None where the run keeps no files of such a folder.
        description: first lines of the output.
    """

    folder: Path
    config_yaml: str
    settings: dict[str, Any]
    logging: LoggingConfig
    resume: str
    steps: int
    fingerprints: dict[str, str]
    start: dict[str, Any]
    initial: Path | None
    description: list[str]


class Run:
    """The folder of a run in the hands of this process.

    Attributes:
        folder: the run folder.
        finished: the run has ended; nothing is left to do.
        log: metrics.jsonl and what mirrors it; there from `start` on.
    """

    log: MetricsLog

    def __init__(self, record: RunRecord, world: World, stack: ExitStack) -> None:
        self.folder = record.folder
        finals = [(record.folder / name).exists() for name in FINAL_FOLDERS]
        self.finished: bool = world.from_main(any(finals))
        self._record, self._world, self._stack = record, world, stack

    def lock(self) -> None:
        """Create the folder if necessary and lock it until the run is closed.

        Raises:
            ValueError: another process works in the folder.
        """
        self._stack.enter_context(open_run_folder(self.folder, self._world))

    def start(self, step: int | None) -> None:
        """Write the record of the run, open its log and print the description.

        Args:
            step: of the checkpoint from which the run resumes; None for a new run.
        """
        record, world, folder = self._record, self._world, self.folder
        if world.is_main:
            write_atomically(folder / "config.yaml", record.config_yaml)
            environment = describe_environment(world, record.fingerprints)
            write_atomically(folder / "environment.json", json.dumps(environment, indent=2) + "\n")
            if record.initial is not None:
                keep(folder, record.initial)
        self.log = MetricsLog(
            folder,
            record.logging,
            active=world.is_main,
            steps=record.steps,
            settings=record.settings,
        )
        self._stack.callback(self.log.close)
        self.log.rewind(step)
        # After the rewind: the rows of the log after `step` belong to this start.
        world.run_on_rank0(lambda: record_start(folder, record.start | {"step": step or 0}))
        if world.is_main:
            for gap in describe_gaps(folder, step, record.logging.every):
                self.log.say(gap)
        for line in record.description:
            self.log.say(line)
        self.log.say("starting at step 0" if step is None else f"continuing after step {step}")

    def finish(self) -> None:
        """Draw loss.png and forgetting.png from the log."""
        if self._world.is_main:
            plot_run(self.folder / "metrics.jsonl", self.folder / "loss.png")
            plot_forgetting(self.folder / "metrics.jsonl", self.folder / "forgetting.png")


@contextmanager
def open_run(record: RunRecord, world: World, checkpoints: list[int]) -> Iterator[Run]:
    """Compare a run with its folder; nothing is written before `Run.lock`.

    Args:
        checkpoints: steps of the checkpoints in the folder.

    Raises:
        ValueError: data, precision or `resume` do not allow this run to continue there.
    """
    world.run_on_rank0(
        lambda: check_same_state(
            record.folder, checkpoints, record.fingerprints, record.start["dtype"]
        )
    )
    with ExitStack() as stack:
        run = Run(record, world, stack)
        if not run.finished:
            world.run_on_rank0(lambda: check_resume(record.resume, record.folder, checkpoints))
        yield run


def describe_stop(run: Path) -> str:
    """State of a stopped run, from its folder: the step reached, and the step it resumes from."""
    logged = run / "metrics.jsonl"
    steps = [0]
    if logged.is_file():
        with logged.open(encoding="utf-8") as lines:
            rows = [json_row(line) for line in lines if line.endswith("\n")]
        steps += [row["step"] for row in rows if type(row.get("step")) is int]
    saved = [step for step, _ in finished(run / "checkpoints")]
    begin = f"after step {saved[-1]}, its newest checkpoint" if saved else "at step 0"
    return f"stopped at step {max(steps)}; the same command continues {run} {begin}"
