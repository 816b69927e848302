"""Does the log of a run come out again? What to repeat, from which states, and what is equal.

Row n and the learning rate of a step are pure functions of the configuration and n, so the state
after any step can be carried on from: the initial weights, and every checkpoint that is kept.
Nothing here writes to the run folder.
"""

import math
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from itertools import groupby
from statistics import median
from typing import Any

import torch

from data.random import derive, permutation
from data.shards import sha256_of
from data.sources import AnySource
from model.transformer import Mistral
from training.checkpoint import Checkpointer
from training.distributed import World
from training.run_log import SHOWN, compare

FIGURES = ("loss_nats", "grad_norm", "sources")
PROGRESS_SECONDS = 15
LOOSE = 1e-5


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
    null: 0 where every start of the run had the ranks, device, batches, PyTorch and so on of this
    command (starts.jsonl), else 1e-5."""
    device: str | None = None
    """auto, cpu or cuda; null takes the run's."""

    def __post_init__(self) -> None:
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
    """

    start: int
    targets: list[int]

    @property
    def stop(self) -> int:
        """Updates behind the state at the end."""
        return self.targets[-1]


@dataclass(kw_only=True)
class Verdict:
    """What came out.

    Attributes:
        problems: everything that did not reproduce, one sentence each.
        compared: logged steps that were executed again.
        largest: largest relative difference of each figure.
        equal: checkpoints that were reached with every bit the same.
    """

    problems: list[str] = field(default_factory=list)
    compared: int = 0
    largest: dict[str, float] = field(default_factory=lambda: dict.fromkeys(FIGURES, 0.0))
    equal: list[int] = field(default_factory=list)

    def __str__(self) -> str:
        worst = ", ".join(f"{name} {value:.1e}" for name, value in self.largest.items())
        figures = f"{self.compared} logged steps repeated; largest relative differences: {worst}"
        if self.problems:
            return "\n".join(["NOT REPRODUCED", *(f"  {p}" for p in self.problems), figures])
        if not self.compared:
            return "NOT VERIFIED: no logged step could be repeated; try again"
        equal = "".join(
            f"\ncheckpoint of step {step} was reached with every bit of weights and moments equal"
            for step in self.equal
        )
        return f"REPRODUCED: {figures}{equal}"

    @property
    def passed(self) -> bool:
        """Whether something was repeated and all of it came out again."""
        return bool(self.compared) and not self.problems


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


def choose_tolerance(
    asked: float | None, starts: list[dict[str, Any]], now: dict[str, Any]
) -> tuple[float, str]:
    """The tolerance in force, and why; `now` is what a start of the run would be here."""
    if asked is not None:
        return asked, "as asked"
    if not starts or starts[0]["step"]:
        steps = f"steps 1 to {starts[0]['step']}" if starts else "the steps"
        return LOOSE, f"no starts.jsonl tells how {steps} were computed, the run is older than it"
    conditions = [name for name in now if name not in ("step", "logging_every")]
    different = []
    for name in conditions:
        values = [value for value, _ in groupby(start.get(name) for start in [*starts, now])]
        if len(values) > 1:
            different.append(f"{name} {' -> '.join(map(str, values))}")
    if different:
        return LOOSE, f"{', '.join(different)} over the starts of the run and this command"
    return 0.0, ", ".join(f"{name} {now[name]}" for name in conditions) + " as at every start"


def describe_reach(states: list[int], logged: Collection[int], reach: int) -> str:
    """How much of the log can be drawn at all."""
    near = len(within_reach(states, logged, reach))
    sentence = f"drawn from {near} of {len(logged)} logged steps"
    if near == len(logged):
        return sentence
    return f"{sentence}; the others lie more than {reach} steps behind a kept checkpoint"


def describe_legs(
    legs: list[Leg], logged: dict[int, dict[str, Any]], tokens_per_step: int
) -> list[str]:
    """What will be executed, before it is."""
    count = sum(leg.stop - leg.start for leg in legs)
    seconds = [tokens_per_step / row["tokens_per_second"] for row in logged.values()]
    return [
        f"to execute: {count} steps, {count * median(seconds) / 60:.1f} min at the run's own speed",
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
    logged: dict[int, dict[str, Any]],
    tolerance: float,
    checkpointer: Checkpointer,
    model: Mistral,
    optimizer: torch.optim.Optimizer,
) -> Verdict:
    """Carry out the legs and compare; every process must call it, and all get the same verdict.

    Args:
        legs: in order; a first one from step 0 finds the initial weights in the model.
        execute: carries out one update, given the number of those before it; gives the row that the
            run would log.
    """
    verdict, world = Verdict(), checkpointer.world
    progress = _Progress(world, sum(leg.stop - leg.start for leg in legs))
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
            for step in range(leg.start + 1, leg.stop + 1):
                found = execute(step - 1)
                progress.advance(step)
                if step in logged:
                    _compare(step, logged[step], found, tolerance, verdict)
            if tolerance == 0 and leg.stop in checkpointer.steps():
                _compare_checkpoint(leg.stop, checkpointer, model, optimizer, verdict)
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


def _compare(
    step: int, logged: dict[str, Any], found: dict[str, Any], tolerance: float, verdict: Verdict
) -> None:
    verdict.compared += 1
    differences = compare(logged, found)
    for difference in differences:
        if difference.relative is not None:
            figure = difference.name.split(".")[0]
            largest = verdict.largest.get(figure, 0.0)
            verdict.largest[figure] = max(largest, difference.relative)
    failed = [difference for difference in differences if not difference.passes(tolerance)]
    verdict.problems += [f"step {step}: {difference}" for difference in failed[:SHOWN]]
    if failed[SHOWN:]:
        verdict.problems.append(f"step {step}: {len(failed) - SHOWN} more figures differ")


def _compare_checkpoint(
    step: int,
    checkpointer: Checkpointer,
    model: Mistral,
    optimizer: torch.optim.Optimizer,
    verdict: Verdict,
) -> None:
    different = checkpointer.differences(step, model, optimizer)
    if not different:
        verdict.equal.append(step)
        return
    named = ", ".join(different[:3])
    more = f" and {len(different) - 3} more tensors" if different[3:] else ""
    verdict.problems.append(
        f"checkpoint of step {step}: its steps lead to other bits of {named}{more}"
    )
