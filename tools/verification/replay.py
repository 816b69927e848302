"""Does the log of a run come out again? What to repeat, from which states, and what is equal.

Row n and the learning rate of a step are pure functions of the configuration and n, so the state
after any step can be carried on from: the initial weights, and every checkpoint that is kept.
Nothing here writes to the run folder.
"""

import math
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from itertools import groupby
from statistics import median
from typing import Any

import torch

from data.rows.seeds import derive, permutation
from data.rows.sources import AnySource
from model.transformer import Mistral
from storage.checksum import sha256_of
from tools.verification.verdict import Verdict
from training.checkpoint.checkpointer import Checkpointer
from training.distributed import World
from training.run.log import Records

PROGRESS_SECONDS = 15
LOOSE = {"float32": 1e-5, "bfloat16": 2.0**-8}
"""Relative differences that another order of the same sums may make, by what is computed in.

fp32: a hundred times what it makes of a few steps (docs/explanation/exactness.md).
bf16 keeps 8 bits of every activation, so that a logit is known to its last bit, 2**-8, at best; a
loss is a mean of many, and what one of them is off by, others make up for.
"""


NO_CONDITIONS = ("step", "logging_every", "checkpoint_every")
"""What a start tells of itself that changes no figure."""


@dataclass(kw_only=True)
class VerifyConfig:
    """Which steps of a run to repeat, and how close they must come."""

    run: str
    """Folder of the run; it may be finished or still going on."""
    steps: int = 10
    """Logged steps drawn at random; all steps on the way to them are repeated and compared too."""
    seed: int = 0
    """Of the draw."""
    reach: int = 50
    """Farthest that a drawn step may lie after a state to start from, in steps."""
    tolerance: float | None = None
    """Largest relative difference that passes; 0 asks for equality, of later checkpoints too.
    null: 0 for steps that were computed with the ranks, device, batches, PyTorch and so on of this
    command (starts.jsonl tells), for others 1e-5 in float32 and 2**-8 in bfloat16."""
    device: str | None = None
    """auto, cpu or cuda; null takes the run's."""

    def __post_init__(self) -> None:
        if self.seed < 0:
            raise ValueError(f"seed={self.seed}: must be at least 0")
        for name in ("steps", "reach"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)}: must be at least 1")
        if self.tolerance is not None and not 0 <= self.tolerance < math.inf:
            raise ValueError(f"tolerance={self.tolerance}: must be finite, 0 or more, or null")


@dataclass(frozen=True)
class Leg:
    """Steps to execute one after the other.

    Attributes:
        start: updates behind the state to start from.
        targets: the drawn steps, in order; the last one ends the leg.
        tolerance: largest relative difference that passes.
        start_tolerance: the same for the evaluation of the state to start from.
    """

    start: int
    targets: list[int]
    tolerance: float = 0.0
    start_tolerance: float = 0.0

    @property
    def stop(self) -> int:
        """Updates behind the state at the end."""
        return self.targets[-1]


def check_stored(sources: dict[str, AnySource], world: World) -> int:
    """Compare every shard with the digest in its manifest; returns how many files there are.

    A fingerprint covers the digests, not the bytes. The processes share the reading.

    Raises:
        ValueError: names the files that have changed.
    """
    files = [
        (source.folder / name, digest)
        for source in sources.values()
        for name, digest in source.digests.items()
    ]
    mine = files[world.rank :: world.size]
    found = world.gather([str(path) for path, digest in mine if sha256_of(path) != digest])
    if changed := sorted(path for part in found for path in part):
        raise ValueError(
            f"{', '.join(changed)}: not the bytes that the manifest promises, so not what the run "
            "read; restore them, or prepare the source again"
        )
    return len(files)


def within_reach(states: list[int], logged: Collection[int], reach: int) -> dict[int, int]:
    """Logged steps that lie near enough after a state, each with the nearest one before it."""
    start_of = {step: max((s for s in states if s < step), default=step) for step in sorted(logged)}
    return {step: start for step, start in start_of.items() if 0 < step - start <= reach}


def draw_legs(config: VerifyConfig, states: list[int], logged: Collection[int]) -> list[Leg]:
    """Draw steps to reproduce, each from the nearest state before it.

    Args:
        states: updates behind each state, in order.
        logged: steps that metrics.jsonl has.

    Raises:
        ValueError: no logged step lies within reach of a state.
    """
    start_of = within_reach(states, logged, config.reach)
    near = list(start_of)
    if not near:
        raise ValueError(
            f"reach={config.reach}: none of the {len(logged)} logged steps lies so near after one "
            f"of the states {', '.join(map(str, states))}; raise reach"
        )
    order = permutation(len(near), derive(config.seed, "verify"))
    targets = sorted(near[place] for place in order[: config.steps].tolist())
    return [Leg(start, list(leg)) for start, leg in groupby(targets, start_of.__getitem__)]


def judged(
    legs: list[Leg], asked: float | None, starts: list[dict[str, Any]], now: dict[str, Any]
) -> tuple[list[Leg], list[str]]:
    """The legs with the tolerance in force for each, and what to say of that.

    Args:
        asked: tolerance for all of them, if the user has named one.
        starts: of the run, in their order.
        now: what a start of the run would be here.
    """
    found, sentences = [], dict[str, None]()
    for leg in legs:
        tolerance, why = choose_tolerance(
            asked, _starts_behind(leg.start + 1, leg.stop, starts), now
        )
        first = max(leg.start, 1)  # the first start has also evaluated the initial weights
        before, _ = choose_tolerance(asked, _starts_behind(first, first, starts), now)
        found.append(replace(leg, tolerance=tolerance, start_tolerance=before))
        sentences[f"tolerance: {f'{tolerance:g}' if tolerance else 'exact equality'} ({why})"] = (
            None
        )
    return found, list(sentences)


def _starts_behind(
    first: int, last: int, starts: list[dict[str, Any]]
) -> list[dict[str, Any]] | None:
    """The starts that computed some steps, in order; None if one of them is not told of.

    Each start has computed anew whatever earlier ones had computed after the step it began from.
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
    asked: float | None, starts: list[dict[str, Any]] | None, now: dict[str, Any]
) -> tuple[float, str]:
    """The tolerance in force for steps that some starts have computed, and why.

    Args:
        starts: None if nothing tells.
        now: what a start of the run would be here.
    """
    if asked is not None:
        return asked, "as asked"
    if starts is None:
        loose = LOOSE[now["dtype"]]
        return loose, "no starts.jsonl tells how these steps were computed, they are older than it"
    conditions = [name for name in now if name not in NO_CONDITIONS]
    different = []
    for name in conditions:
        values = [value for value, _ in groupby(start.get(name) for start in [*starts, now])]
        if len(values) > 1:
            different.append(f"{name} {' -> '.join(map(str, values))}")
    if different:
        loose = max(LOOSE[start["dtype"]] for start in [*starts, now])
        return loose, f"{', '.join(different)} from the steps' own starts to this command"
    return 0.0, ", ".join(f"{name} {now[name]}" for name in conditions) + " as at their starts"


def describe_reach(states: list[int], logged: Collection[int], reach: int) -> str:
    """How much of the log can be drawn at all."""
    near = len(within_reach(states, logged, reach))
    sentence = f"drawn from {near} of {len(logged)} logged steps"
    if near == len(logged):
        return sentence
    return f"{sentence}; the others lie more than {reach} steps behind a kept checkpoint"


def describe_legs(legs: list[Leg], records: Records, tokens_per_step: int) -> list[str]:
    """What will be executed, before it is."""
    count = sum(leg.stop - leg.start for leg in legs)
    evaluations = {step for leg in legs for step in range(leg.start, leg.stop + 1)}
    evaluations &= records.evaluations.keys()
    seconds = [tokens_per_step / row["tokens_per_second"] for row in records.steps]
    return [
        f"to execute: {count} steps, {count * median(seconds) / 60:.1f} min at the run's own "
        f"speed, and {len(evaluations)} evaluations",
        *(
            f"  steps {leg.start + 1} to {leg.stop} from "
            f"{f'the checkpoint of step {leg.start}' if leg.start else 'the initial weights'}; "
            f"drawn were {', '.join(map(str, leg.targets))}"
            for leg in legs
        ),
    ]


def repeat(
    legs: list[Leg],
    execute: Callable[[int], dict[str, Any]],
    evaluate: Callable[[int], dict[str, Any]],
    records: Records,
    checkpointer: Checkpointer,
    model: Mistral,
    optimizer: torch.optim.Optimizer,
) -> Verdict:
    """Carry out the legs and compare; every process must call it, and all get the same verdict.

    Args:
        legs: in order; a first one from step 0 finds the initial weights in the model.
        execute: carries out one update, given the number of those before it; gives the row that the
            run would log.
        evaluate: the same for the evaluation of the state, given the number of updates behind it.
    """
    verdict, world, logged = Verdict(), checkpointer.world, records.logged
    progress = _Progress(world, sum(leg.stop - leg.start for leg in legs))

    def compare_evaluation(step: int, tolerance: float) -> None:
        # The end of a leg may be where the next one starts.
        if step in records.evaluations and step not in verdict.evaluated:
            verdict.add(step, records.evaluations[step], evaluate(step), tolerance)

    for leg in legs:
        problems, there = len(verdict.problems), checkpointer.steps()
        if leg.start and leg.start not in there:
            world.say(
                f"checkpoint of step {leg.start} was pruned meanwhile; its steps are left out"
            )
            continue
        optimizer.zero_grad(set_to_none=True)  # of a leg that broke off
        try:
            if leg.start:
                checkpointer.load(leg.start, model, optimizer)
            compare_evaluation(leg.start, leg.start_tolerance)
            for step in range(leg.start + 1, leg.stop + 1):
                found = execute(step - 1)
                progress.advance(step)
                if step in logged:
                    verdict.add(step, logged[step], found, leg.tolerance)
                compare_evaluation(step, leg.tolerance)
            if leg.tolerance == 0 and leg.stop in checkpointer.steps():
                different = checkpointer.differences(leg.stop, model, optimizer)
                verdict.add_checkpoint(leg.stop, different)
        except (ValueError, FloatingPointError) as error:
            verdict.problems.append(f"steps {leg.start + 1} to {leg.stop}: broke off, {error}")
        new = len(verdict.problems) - problems
        outcome = f"NOT reproduced ({new})" if new else "reproduced"
        world.say(f"steps {leg.start + 1} to {leg.stop}: {outcome}")
    return verdict


class _Progress:
    """A line now and then."""

    def __init__(self, world: World, total: int) -> None:
        self._world, self._total, self._done = world, total, 0
        self._shown = time.monotonic()

    def advance(self, step: int) -> None:
        self._done += 1
        if time.monotonic() - self._shown > PROGRESS_SECONDS:
            self._shown = time.monotonic()
            self._world.say(f"  {self._done} of {self._total} executed, step {step} was the last")
