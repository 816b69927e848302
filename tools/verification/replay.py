"""Repetition of random steps of a run from its saved states, and comparison with its log.

Row n and the learning rate of a step are pure functions of the configuration and n, so training can
be repeated from the initial weights and from every checkpoint. Nothing here writes to the run
folder.
"""

import math
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from itertools import groupby
from statistics import median
from typing import Any

from data.rows.seeds import derive, permutation
from data.rows.sources import AnySource
from model.transformer import Mistral
from storage.checksum import sha256_of
from tools.verification.verdict import Verdict
from training.checkpoint.checkpointer import Checkpointer
from training.distributed import World
from training.optimizer import TrainingOptimizer
from training.run.log import Records

PROGRESS_SECONDS = 15
TOLERANCES = {"float32": 1e-5, "bfloat16": 2.0**-8}
"""Largest relative differences that another order of summation may cause, by compute dtype.

float32: a hundred times the measured difference over a few steps (docs/explanation/exactness.md).
bfloat16 keeps 8 bits of every activation, so a logit is exact to 2**-8 at best; in a loss, the mean
of many, rounding errors partly cancel.
"""
NOT_COMPARED = ("step", "logging_every", "checkpoint_every")
"""Fields of a start that do not influence a figure."""


@dataclass(kw_only=True)
class VerifyConfig:
    """Steps of a run to repeat, and the tolerance of the comparison."""

    run: str
    """Folder of the run, finished or running."""
    steps: int = 10
    """Number of logged steps to draw; the steps before them are repeated and compared too."""
    seed: int = 0
    """Seed of the draw."""
    reach: int = 50
    """Largest distance of a drawn step from the saved state before it, in steps."""
    tolerance: float | None = None
    """Largest relative difference that passes; 0 requires equality, of later checkpoints too.
    null: 0 if starts.jsonl shows that the steps were computed with the ranks, device, batches and
    versions of this command, otherwise 1e-5 in float32 and 2**-8 in bfloat16."""
    device: str | None = None
    """auto, cpu or cuda; null: as the run."""

    def __post_init__(self) -> None:
        if self.seed < 0:
            raise ValueError(f"seed={self.seed}: must be at least 0")
        for name in ("steps", "reach"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)}: must be at least 1")
        if self.tolerance is not None and not 0 <= self.tolerance < math.inf:
            raise ValueError(f"tolerance={self.tolerance}: must be finite, 0 or more, or null")


@dataclass(frozen=True)
class Replay:
    """Consecutive steps to repeat.

    Attributes:
        start: number of updates of the saved state to start from.
        targets: drawn steps in order; the last one ends the replay.
        tolerance: largest relative difference that passes.
        start_tolerance: the same for the evaluation of the saved state.
    """

    start: int
    targets: list[int]
    tolerance: float = 0.0
    start_tolerance: float = 0.0

    @property
    def stop(self) -> int:
        """Number of updates of the state at the end."""
        return self.targets[-1]


def check_source_files(sources: dict[str, AnySource], world: World) -> int:
    """Compare every shard with the checksum in its manifest; returns the number of files.

    A source's fingerprint covers the checksums, not the bytes. The processes share the reading.

    Raises:
        ValueError: files have changed; the message names them.
    """
    files = [
        (source.folder / name, digest)
        for source in sources.values()
        for name, digest in source.digests.items()
    ]
    mine = files[world.rank :: world.dp_size]
    found = world.gather([str(path) for path, digest in mine if sha256_of(path) != digest])
    if changed := sorted(path for part in found for path in part):
        raise ValueError(
            f"{', '.join(changed)}: the bytes differ from the checksum in the manifest, so the run "
            "read other data; restore the files, or prepare the source again"
        )
    return len(files)


def reachable_steps(states: list[int], logged: Collection[int], reach: int) -> dict[int, int]:
    """Logged step -> nearest saved state before it, for distances of at most `reach`."""
    start_of = {step: max((s for s in states if s < step), default=step) for step in sorted(logged)}
    return {step: start for step, start in start_of.items() if 0 < step - start <= reach}


def draw_replays(config: VerifyConfig, states: list[int], logged: Collection[int]) -> list[Replay]:
    """Draw logged steps to repeat, each from the nearest saved state before it.

    Args:
        states: numbers of updates of the saved states, in order.
        logged: steps in metrics.jsonl.

    Raises:
        ValueError: no logged step is within reach of a saved state.
    """
    start_of = reachable_steps(states, logged, config.reach)
    near = list(start_of)
    if not near:
        raise ValueError(
            f"reach={config.reach}: none of the {len(logged)} logged steps follows one of the "
            f"saved states {', '.join(map(str, states))} within this distance; raise reach"
        )
    order = permutation(len(near), derive(config.seed, "verify"))
    targets = sorted(near[place] for place in order[: config.steps].tolist())
    return [Replay(start, list(steps)) for start, steps in groupby(targets, start_of.__getitem__)]


def with_tolerances(
    replays: list[Replay],
    tolerance: float | None,
    starts: list[dict[str, Any]],
    now: dict[str, Any],
) -> tuple[list[Replay], list[str]]:
    """The replays with the tolerance of each, and sentences on the reasons.

    Args:
        tolerance: the user's tolerance for all replays, or None.
        starts: starts of the run in order.
        now: the record of a start of the run with this command's settings.
    """
    found, sentences = [], dict[str, None]()
    for replay in replays:
        behind = _starts_of(replay.start + 1, replay.stop, starts)
        chosen, why = choose_tolerance(tolerance, behind, now)
        first = max(replay.start, 1)  # the first start also evaluated the initial weights
        before, _ = choose_tolerance(tolerance, _starts_of(first, first, starts), now)
        found.append(replace(replay, tolerance=chosen, start_tolerance=before))
        shown = f"{chosen:g}" if chosen else "exact equality"
        sentences[f"tolerance: {shown} ({why})"] = None
    return found, list(sentences)


def _starts_of(first: int, last: int, starts: list[dict[str, Any]]) -> list[dict[str, Any]] | None:
    """Starts that computed the steps `first` to `last`; None if the start of a step is unknown.

    Each start repeated the steps after its own first state, so the last start counts.
    """
    behind: list[dict[str, Any]] = []
    for step in range(first, last + 1):
        start = next((start for start in reversed(starts) if start["step"] < step), None)
        if start is None:
            return None
        if start not in behind:
            behind.append(start)
    return behind


def choose_tolerance(
    tolerance: float | None, starts: list[dict[str, Any]] | None, now: dict[str, Any]
) -> tuple[float, str]:
    """The tolerance for steps that these starts computed, and its reason.

    Args:
        tolerance: the user's tolerance, or None.
        starts: None if the starts are unknown.
        now: the record of a start of the run with this command's settings.
    """
    if tolerance is not None:
        return tolerance, "as given"
    if starts is None:
        loose = TOLERANCES[now["dtype"]]
        return loose, "no starts.jsonl for these steps: they are older than that file"
    conditions = [name for name in now if name not in NOT_COMPARED]
    different = []
    for name in conditions:
        values = [value for value, _ in groupby(start.get(name) for start in [*starts, now])]
        if len(values) > 1:
            different.append(f"{name} {' -> '.join(map(str, values))}")
    if different:
        loose = max(TOLERANCES[start["dtype"]] for start in [*starts, now])
        return loose, f"{', '.join(different)} from the run's starts to this command"
    return 0.0, ", ".join(f"{name} {now[name]}" for name in conditions) + " as in the run"


def describe_reach(states: list[int], logged: Collection[int], reach: int) -> str:
    """Share of the log that can be drawn."""
    near = len(reachable_steps(states, logged, reach))
    sentence = f"drawn from {near} of {len(logged)} logged steps"
    if near == len(logged):
        return sentence
    return f"{sentence}; the others are more than {reach} steps after a kept checkpoint"


def describe_replays(replays: list[Replay], records: Records, tokens_per_step: int) -> list[str]:
    """Lines on the steps to repeat and the expected time."""
    count = sum(replay.stop - replay.start for replay in replays)
    evaluations = {step for replay in replays for step in range(replay.start, replay.stop + 1)}
    evaluations &= records.evaluations.keys()
    seconds = median(tokens_per_step / row["tokens_per_second"] for row in records.steps)
    lines = [
        f"to execute: {count} steps, {count * seconds / 60:.1f} min at the run's speed, and "
        f"{len(evaluations)} evaluations"
    ]
    for replay in replays:
        state = f"the checkpoint of step {replay.start}" if replay.start else "the initial weights"
        drawn = ", ".join(map(str, replay.targets))
        lines.append(f"  steps {replay.start + 1} to {replay.stop} from {state}; drawn: {drawn}")
    return lines


def repeat(
    replays: list[Replay],
    execute: Callable[[int], dict[str, Any]],
    evaluate: Callable[[int], dict[str, Any]],
    records: Records,
    checkpointer: Checkpointer,
    model: Mistral,
    optimizer: TrainingOptimizer,
) -> Verdict:
    """Repeat the steps and compare with the log; all processes call it and get the same verdict.

    Args:
        replays: in order; for a first one from step 0 the model has the initial weights.
        execute: number of updates before a step -> the row that the run would log for the step.
        evaluate: number of updates -> the row that the run would log for the evaluation.
    """
    verdict, world, logged = Verdict(), checkpointer.world, records.logged
    progress = _Progress(world, sum(replay.stop - replay.start for replay in replays))

    def compare_evaluation(step: int, tolerance: float) -> None:
        # A replay may start at the end of the previous replay.
        if step in records.evaluations and step not in verdict.evaluated:
            verdict.add(step, records.evaluations[step], evaluate(step), tolerance)

    for replay in replays:
        problems, there = len(verdict.problems), checkpointer.steps()
        if replay.start and replay.start not in there:
            world.print(
                f"checkpoint of step {replay.start} was pruned meanwhile; its steps are skipped"
            )
            continue
        optimizer.zero_grad(set_to_none=True)  # of a replay that stopped early
        try:
            if replay.start:
                checkpointer.load(replay.start, model, optimizer)
            compare_evaluation(replay.start, replay.start_tolerance)
            for step in range(replay.start + 1, replay.stop + 1):
                found = execute(step - 1)
                progress.advance(step)
                if step in logged:
                    verdict.add(step, logged[step], found, replay.tolerance)
                compare_evaluation(step, replay.tolerance)
            if replay.tolerance == 0 and replay.stop in checkpointer.steps():
                different = checkpointer.differences(replay.stop, model, optimizer)
                verdict.add_checkpoint(replay.stop, different)
        except (ValueError, FloatingPointError) as error:
            verdict.problems.append(f"steps {replay.start + 1} to {replay.stop}: stopped, {error}")
        new = len(verdict.problems) - problems
        outcome = f"NOT reproduced ({new})" if new else "reproduced"
        world.print(f"steps {replay.start + 1} to {replay.stop}: {outcome}")
    return verdict


class _Progress:
    """Prints the progress every `PROGRESS_SECONDS`."""

    def __init__(self, world: World, total: int) -> None:
        self._world, self._total, self._done = world, total, 0
        self._shown = time.monotonic()

    def advance(self, step: int) -> None:
        self._done += 1
        if time.monotonic() - self._shown > PROGRESS_SECONDS:
            self._shown = time.monotonic()
            self._world.print(f"  {self._done} of {self._total} executed, the last was step {step}")
