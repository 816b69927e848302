"""kill -9 a run again and again, all over its length, and compare it with the uninterrupted one.

    python -m tests.helpers.torture OUT KILLS +experiment=... [override ...]

Four runs in OUT, one after the other, each started by torchrun as a user would:

    straight-2       two ranks, left alone; all others are compared with it
    straight-1       one rank, left alone: the control, for what another world size does by itself
    killed-2         two ranks, killed KILLS times: must be equal bit for bit
    killed-2-1-3     killed KILLS times and continued each time on the next of 2, 1 and 3 ranks

All processes of a run die at once, in the middle of whatever they do. Prints a table of largest
relative differences, and writes it with every kill to OUT/torture.json. A run that is there already
is not made again, so the same command goes on where it was stopped (but begins a killed run anew).
"""

import json
import os
import random
import shutil
import subprocess
import sys
import time
from collections import Counter
from itertools import cycle
from pathlib import Path
from typing import NamedTuple

from safetensors.torch import load_file

from data.rows.curriculum import Curriculum
from tests.helpers.runs import ROOT, command, configure, evaluations, kill_tree, losses, metrics

SEED = 0
LIMIT = 1e-5
"""Relative difference of losses that a change of the world size may make."""
RUNS = {
    "straight-2": (2,),
    "straight-1": (1,),
    "killed-2": (2,),
    "killed-2-1-3": (2, 1, 3),
}
COLUMNS = {
    "token_stream": "token stream",
    "loss_nats": "loss",
    "beyond": f"first step beyond {LIMIT:g}",
    "grad_norm": "gradient norm",
    "bits_per_byte": "bits per byte",
    "weights": "weights",
}


def start(arguments: list[str], ranks: int, output: Path) -> subprocess.Popen:
    """Begin a run under torchrun; its output is appended to a file."""
    with output.open("a") as file:
        return subprocess.Popen(
            command(*arguments, ranks=ranks),
            cwd=ROOT, stdout=file, stderr=file, start_new_session=True,
            env=os.environ | {"TORCH_CPP_LOG_LEVEL": "ERROR"},
        )  # fmt: skip


def count_steps(run: Path) -> int:
    """Rows of training that the log holds."""
    log = run / "metrics.jsonl"
    return log.read_bytes().count(b'"grad_norm"') if log.exists() else 0


class Kill(NamedTuple):
    """When to kill.

    Attributes:
        during: what is likely to be going on.
        step: wait until the log has it; not `during` a start.
        seconds: then, or after the start, wait so long.
    """

    during: str
    step: int
    seconds: float


def plan_kills(kills: int, steps: int, checkpoints: int, evaluations: int) -> list[Kill]:
    """Instants that spread over the whole run, in its order.

    In turn anywhere, as a checkpoint is due, as an evaluation is due, and while the run starts.

    Args:
        checkpoints, evaluations: steps between them.
    """
    dice, every = random.Random(SEED), {"save": checkpoints, "evaluation": evaluations}
    planned = []
    for number, step in enumerate(sorted(dice.randrange(1, steps) for _ in range(kills))):
        during = ("anywhere", "save", "evaluation", "start")[number % 4]
        n = every.get(during, 1)
        step = max(n, min(-(-step // n), (steps - 1) // n) * n)
        planned.append(Kill(during, step, dice.uniform(0, 15 if during == "start" else 1.5)))
    return planned


def count_starts(run: Path) -> int:
    """How often the run has begun or continued to compute."""
    starts = run / "starts.jsonl"
    return starts.read_bytes().count(b"\n") if starts.exists() else 0


def describe_death(run: Path, started: bool, evaluations: int) -> dict:
    """What a run was doing when it was killed."""
    log = run / "metrics.jsonl"
    lines = log.read_text().splitlines(keepends=True) if log.exists() else []
    rows = [json.loads(line) for line in lines if line.endswith("\n")]
    evaluated = {row["step"] for row in rows if "eval" in row}
    steps = max((row["step"] for row in rows), default=0)
    return {
        "steps_logged": steps,
        "starting": not started,
        "saving": any((run / "checkpoints").glob("step-*.tmp")),
        "evaluating": started and steps % evaluations == 0 and steps not in evaluated,
    }


def kill_when(process: subprocess.Popen, run: Path, kill: Kill, evaluations: int) -> dict | None:
    """Kill a run at an instant; None if it was done before."""
    before, begun = count_starts(run), time.monotonic()
    while kill.during != "start" and process.poll() is None:
        # A run that goes on first forgets the steps after its checkpoint.
        if count_starts(run) > before and count_steps(run) >= kill.step:
            break
        time.sleep(0.02)
    deadline = time.monotonic() + kill.seconds
    while time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.005)
    if process.poll() is not None:
        return None
    kill_tree(process)
    death = describe_death(run, count_starts(run) > before, evaluations)
    return {"asked": kill.during, **death, "seconds": round(time.monotonic() - begun, 1)}


def carry_out(run: Path, kills: list[Kill], overrides: list[str], evaluations: int) -> list[dict]:
    """Make one run, killed at some instants; returns how it was found then."""
    ranks, deaths = cycle(RUNS[run.name]), []
    output = run.with_name(f"{run.name}.log")
    arguments = [*overrides, f"runs_folder={run.parent}", f"name={run.name}"]
    for kill in kills:
        size = next(ranks)
        process = start(arguments, size, output)
        death = kill_when(process, run, kill, evaluations)
        if death is None:
            sys.exit(f"{run.name} ended with {process.poll()} after {len(deaths)} kills: {output}")
        deaths.append({"ranks": size, **death})
        print(f"{run.name}, kill {len(deaths)}: {deaths[-1]}", flush=True)
    if start(arguments, next(ranks), output).wait():
        sys.exit(f"{run.name} failed: {output}")
    return deaths


def stream(run: Path) -> dict[int, tuple]:
    """What each step has read: the rows, and how many tokens of which source."""
    return {
        row["step"]: (
            [number for number, _ in row["rows"]],
            {name: part["tokens"] for name, part in row["sources"].items()},
        )
        for row in metrics(run)
        if "rows" in row
    }


def differences(run: Path, other: Path) -> dict[str, float | str | None]:
    """Largest relative differences of losses, gradient norms, evaluations and weights, the first
    step whose loss differs by more than `LIMIT`, and whether the rows that were read are equal."""
    one, two = losses(run), losses(other)
    assert one.keys() == two.keys()
    found: dict[str, float | str | None] = {
        "token_stream": "equal" if stream(run) == stream(other) else "DIFFERENT",
        "beyond": next((s for s in sorted(one) if abs(one[s][0] / two[s][0] - 1) > LIMIT), None),
    }
    for part, name in enumerate(("loss_nats", "grad_norm")):
        found[name] = max(abs(one[step][part] / two[step][part] - 1) for step in one)
    bits, expected = evaluations(run), evaluations(other)
    assert bits.keys() == expected.keys()
    found["bits_per_byte"] = max(
        abs(bits[step][name]["bits_per_byte"] / expected[step][name]["bits_per_byte"] - 1)
        for step in bits
        for name in bits[step]
    )
    weights, theirs = (load_file(path / "model" / "model.safetensors") for path in (run, other))
    found["weights"] = max(
        float((weights[name] - theirs[name]).abs().max() / theirs[name].abs().max())
        for name in theirs
    )
    return found


def shown(value: float | str | None) -> str:
    """A cell of the table."""
    if isinstance(value, float):
        return f"{value:.1e}" if value else "0"
    return "none" if value is None else str(value)


def describe_deaths(deaths: list[dict], plan: Curriculum) -> str:
    """How many of the kills fell where."""
    counts = {what: sum(d[what] for d in deaths) for what in ("starting", "saving", "evaluating")}
    stages = Counter(plan.stage_at(min(d["steps_logged"], plan.steps - 1)).name for d in deaths)
    parts = [f"{n} {what}" for what, n in counts.items()]
    return ", ".join([*parts, *(f"{n} in stage {name}" for name, n in stages.items())])


def main(out: Path, kills: int, overrides: list[str]) -> None:
    """All runs, and the comparison; exit code 1 unless what must be equal is."""
    out.mkdir(parents=True, exist_ok=True)
    overrides = [*overrides, "logging.row_losses=true"]
    config = configure(*overrides)
    plan, evaluations = config.plan(), config.evaluation.every
    assert evaluations is not None
    planned = plan_kills(kills, plan.steps, config.checkpoint.every, evaluations)
    reached = {}
    for name in RUNS:
        run, record = out / name, out / f"{name}.json"
        if not record.exists():
            if (out / name).exists() and name.startswith("killed"):
                shutil.rmtree(out / name)
            instants = planned if name.startswith("killed") else []
            deaths = carry_out(run, instants, overrides, evaluations)
            record.write_text(json.dumps(deaths))
        reached[name] = {"kills": json.loads(record.read_text())}
        reached[name] |= differences(run, out / "straight-2")
    (out / "torture.json").write_text(json.dumps(reached, indent=1))
    print(f"| run, {plan.steps} steps | kills | {' | '.join(COLUMNS.values())} |")
    print("|---" * (2 + len(COLUMNS)) + "|")
    for name, found in list(reached.items())[1:]:
        cells = [name, str(len(found["kills"])), *(shown(found[key]) for key in COLUMNS)]
        print(f"| {' | '.join(cells)} |")
    for name, found in reached.items():
        if deaths := found["kills"]:
            print(f"{name}: {describe_deaths(deaths, plan)}")
    exact = [reached["killed-2"][key] for key in COLUMNS if key not in ("token_stream", "beyond")]
    streams = {found["token_stream"] for found in reached.values()}
    if any(exact) or streams != {"equal"}:
        sys.exit("NOT exact: killed-2 must be equal bit for bit, and every token stream")


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3:])
