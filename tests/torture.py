"""kill -9 a run again and again at random instants, and compare it with the uninterrupted one.

    python -m tests.torture OUT KILLS +experiment=... [override ...]

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
from itertools import cycle
from pathlib import Path

from safetensors.torch import load_file

from tests.runs import ROOT, command, configure, evaluations, kill_tree, losses, metrics

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


def kill_at_random(
    process: subprocess.Popen, run: Path, dice: random.Random, within: int
) -> dict | None:
    """Kill a run within a random number of steps; None if it was done before."""
    steps, seconds, begun = dice.randrange(within), dice.uniform(0, 1), time.monotonic()
    if steps == 0:  # while it starts, or writes or reads a checkpoint
        seconds *= 20
    else:
        before = None
        while process.poll() is None:
            time.sleep(0.02)
            now = count_steps(run)
            # A continued run first forgets the steps after its checkpoint.
            before = now if before is None or now < before else before
            if now >= before + steps:
                break
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.005)
    if process.poll() is not None:
        return None
    kill_tree(process)
    return {"steps_logged": count_steps(run), "seconds": round(time.monotonic() - begun, 1)}


def carry_out(run: Path, kills: int, overrides: list[str], within: int) -> list[dict]:
    """Make one run, killed so often; returns its kills."""
    ranks, dice, deaths = cycle(RUNS[run.name]), random.Random(SEED), []
    output = run.with_name(f"{run.name}.log")
    arguments = [*overrides, f"runs_folder={run.parent}", f"name={run.name}"]
    while len(deaths) < kills:
        size = next(ranks)
        process = start(arguments, size, output)
        death = kill_at_random(process, run, dice, within)
        if process.poll() == 0:
            print(f"{run.name} had arrived before it could be killed again", flush=True)
            return deaths
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


def main(out: Path, kills: int, overrides: list[str]) -> None:
    """All runs, and the comparison; exit code 1 unless what must be equal is."""
    out.mkdir(parents=True, exist_ok=True)
    overrides = [*overrides, "logging.row_losses=true"]
    steps = configure(*overrides).plan().steps
    within = max(2, 2 * steps // max(kills, 1))  # so that they spread over the whole run
    reached = {}
    for name in RUNS:
        run, record = out / name, out / f"{name}.json"
        if not record.exists():
            if (out / name).exists() and name.startswith("killed"):
                shutil.rmtree(out / name)
            count = kills if name.startswith("killed") else 0
            deaths = carry_out(run, count, overrides, within)
            record.write_text(json.dumps(deaths))
        reached[name] = {"kills": json.loads(record.read_text())}
        reached[name] |= differences(run, out / "straight-2")
    (out / "torture.json").write_text(json.dumps(reached, indent=1))
    print(f"| run, {steps} steps | kills | {' | '.join(COLUMNS.values())} |")
    print("|---" * (2 + len(COLUMNS)) + "|")
    for name, found in list(reached.items())[1:]:
        cells = [name, str(len(found["kills"])), *(shown(found[key]) for key in COLUMNS)]
        print(f"| {' | '.join(cells)} |")
    exact = [reached["killed-2"][key] for key in COLUMNS if key not in ("token_stream", "beyond")]
    streams = {found["token_stream"] for found in reached.values()}
    if any(exact) or streams != {"equal"}:
        sys.exit("NOT exact: killed-2 must be equal bit for bit, and every token stream")


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3:])
