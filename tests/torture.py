"""kill -9 a run again and again at random instants, and compare it with the uninterrupted one.

    python -m tests.torture OUT KILLS RANKS[,RANKS...] +experiment=... [override ...]

OUT/straight runs through at the first number of ranks, OUT/killed-... is killed KILLS times and
continued each time at the next number of ranks in turn; all processes of a run die at once, in the
middle of whatever they do. Prints one JSON object with what was killed when and the largest
differences. Both runs are started by torchrun, as a user would.
"""

import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path

from safetensors.torch import load_file

from tests.runs import ROOT, command, evaluations, kill_tree, losses

SEED = 0
LIMIT = 1e-5
"""Relative difference of losses that a change of the world size may make."""
MOST_STEPS = 30
"""A run is killed within this many steps after it has continued, or while it starts."""


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


def kill_at_random(process: subprocess.Popen, run: Path, dice: random.Random) -> dict | None:
    """Kill a run within a random number of steps; None if it was done before."""
    steps, seconds, begun = dice.randrange(MOST_STEPS), dice.uniform(0, 1), time.monotonic()
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


def largest_difference(run: Path, other: Path) -> dict[str, float]:
    """Largest relative differences of losses, gradient norms, evaluations and weights, and the
    first step whose loss differs by more than `LIMIT`."""
    one, two = losses(run), losses(other)
    assert one.keys() == two.keys()
    worst = {
        name: max(abs(one[step][part] / two[step][part] - 1) for step in one)
        for part, name in enumerate(("loss_nats", "grad_norm"))
    }
    apart = [step for step in sorted(one) if abs(one[step][0] / two[step][0] - 1) > LIMIT]
    worst["first_step_beyond_limit"] = apart[0] if apart else float("nan")
    bits, expected = evaluations(run), evaluations(other)
    assert bits.keys() == expected.keys()
    worst["bits_per_byte"] = max(
        abs(bits[step][name]["bits_per_byte"] / expected[step][name]["bits_per_byte"] - 1)
        for step in bits
        for name in bits[step]
    )
    weights, theirs = (load_file(path / "model" / "model.safetensors") for path in (run, other))
    worst["weights"] = max(
        float((weights[name] - theirs[name]).abs().max() / theirs[name].abs().max())
        for name in theirs
    )
    return worst


def main(out: Path, kills: int, ranks: list[int], overrides: list[str]) -> None:
    """Both runs, one after the other, and the comparison."""
    out.mkdir(parents=True, exist_ok=True)
    common = [*overrides, f"runs_folder={out}"]
    straight, killed = out / "straight", out / f"killed-{'-'.join(map(str, ranks))}"
    if not (straight / "model").exists():
        assert start([*common, "name=straight"], ranks[0], out / "straight.log").wait() == 0
    dice, deaths = random.Random(SEED), []
    while len(deaths) < kills:
        size = ranks[len(deaths) % len(ranks)]
        process = start([*common, f"name={killed.name}"], size, out / f"{killed.name}.log")
        death = kill_at_random(process, killed, dice)
        if death is None:
            sys.exit(f"the run ended with {process.poll()} after {len(deaths)} kills: {deaths}")
        deaths.append({"ranks": size, **death})
        print(deaths[-1], flush=True)
    last = start([*common, f"name={killed.name}"], ranks[kills % len(ranks)], out / "last.log")
    assert last.wait() == 0
    print(json.dumps({"kills": deaths, "largest": largest_difference(killed, straight)}))


if __name__ == "__main__":
    main(
        Path(sys.argv[1]), int(sys.argv[2]), [int(n) for n in sys.argv[3].split(",")], sys.argv[4:]
    )
