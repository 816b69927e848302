"""Build, check and time: our code and its peers, with the share of what the machine can do.

    python -m experiments.benchmarks suite=cpu   # hours on two cores; a second call continues
    python -m experiments.benchmarks suite=gpu              # one CUDA device
    python -m experiments.benchmarks suite=toy only='[train_32_float32]'   # whether all this works
    python -m experiments.benchmarks batch.row_length=8192 batch.micro_batch_rows=1 \\
        batch.tokens_per_step=8192 model.sliding_window=512
    python -m experiments.benchmarks model=mistral_7b parallel.attention=flex device=cuda

A suite measures each side of each part in separate processes, the sides taking turns, and
prints a Markdown table. Without one, a single kind of training step is timed, forward, loss,
backward and AdamW, and one JSON object printed: the median of `steps` steps after one warm-up, the
share of the matrix rate measured in the same run, and the largest attention error against the dense
fp64 reference. The sides of transformers need the extra `dev`.
"""

import json
import shlex
import sys
from dataclasses import dataclass, field
from pathlib import Path

from hydra.core.hydra_config import HydraConfig

from conf.command import command
from experiments.benchmarks.harness.launcher import Launcher
from experiments.benchmarks.harness.runner import describe, run_suite
from experiments.benchmarks.harness.suites import SUITES, chosen_parts
from experiments.benchmarks.harness.table import markdown
from experiments.benchmarks.step import StepConfig, run
from training.distributed import start_world

OF_SUITES = ("suite", "only", "rounds", "out")


@dataclass(kw_only=True)
class BenchmarkConfig(StepConfig):
    """A suite, or a step of one's own."""

    suite: str | None = None
    """`cpu`, `gpu`, or `toy` (tiny shapes, a few minutes); null times the step that the other
    fields describe."""
    only: list[str] = field(default_factory=list)
    """Parts of the suite; empty means all."""
    rounds: int | None = None
    """Turns of each side; null means the suite's own number."""
    out: str | None = None
    """JSON file of the results; what it holds of the same code, machine and settings is not
    measured again. null: runs/benchmarks/<suite>.json."""

    def __post_init__(self) -> None:
        if self.suite is not None:
            chosen_parts(self.suite, self.only)
        elif self.only or self.rounds is not None or self.out is not None:
            raise ValueError(
                "only, rounds and out belong to a suite; name one (suite="
                f"{', '.join(SUITES)}), or leave them out"
            )
        for name, value in (("rounds", self.rounds), ("steps", self.steps)):
            if value is not None and value < 1:
                raise ValueError(f"{name}={value}: must be at least 1")


def check_suite_overrides(overrides: list[str]) -> None:
    """ValueError if something is set that no suite would read."""
    keys = [override.lstrip("+~").partition("=")[0] for override in overrides]
    if unread := [key for key in keys if key not in OF_SUITES]:
        raise ValueError(
            f"{', '.join(unread)}: the shapes of a suite are fixed, it reads only "
            f"{', '.join(OF_SUITES)}; leave out suite= to time a step of your own"
        )


def measure_suite(config: BenchmarkConfig) -> str:
    """Measure what is not known yet; the table."""
    assert config.suite is not None
    parts = chosen_parts(config.suite, config.only)
    with start_world("cpu") as world:  # which finds out how many cores there are
        threads = world.threads
    with Launcher() as launcher:
        content = run_suite(
            parts,
            rounds=config.rounds or SUITES[config.suite].rounds,
            out=Path(config.out or f"runs/benchmarks/{config.suite}.json"),
            environment=describe(threads),
            command=shlex.join(["python", "-m", "experiments.benchmarks", *sys.argv[1:]]),
            launch=launcher,
            say=lambda line: print(line, file=sys.stderr, flush=True),
        )
    return markdown(content, [part.name for part in parts])


@command("benchmark", BenchmarkConfig, stopped="stopped; run the same command again to continue")
def main(config: BenchmarkConfig) -> None:
    """Compose, measure, print."""
    if config.suite is not None:
        check_suite_overrides(list(HydraConfig.get().overrides.task))
        print(measure_suite(config), end="")
        return
    with start_world(config.device) as world:
        print(json.dumps(run(config, world)))


if __name__ == "__main__":
    main()
