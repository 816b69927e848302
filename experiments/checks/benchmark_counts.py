"""Count the questions of the released benchmarks, and what is wrong with them.

    python -m experiments.checks.benchmark_counts <folder of the benchmarks> [task]

With a task, its problems are listed.
"""

import sys

from evaluation.benchmarks.registry import BENCHMARKS, open_task


def main() -> None:
    """Print a row per task, or the problems of one."""
    folder, *chosen = sys.argv[1:]
    if chosen:
        for problem in open_task(chosen[0], folder, variant="cleaned").problems:
            print(f"{problem.place}: {problem.reason}")
        return
    print("| task | released | scored incorrect | cleaned | repeated | doubtful | demonstrations |")
    print("|---|---|---|---|---|---|---|")
    for name in BENCHMARKS:
        released, cleaned = (open_task(name, folder, variant=v) for v in ("released", "cleaned"))
        broken = sum("broken" in item.tags for item in released.items)
        reasons = [problem.reason for problem in cleaned.problems]
        repeated = sum(reason.startswith("left out: the same as") for reason in reasons)
        doubtful = sum(reason.startswith("doubtful") for reason in reasons)
        solved = sum(len(items) for items in released.demonstrations.values())
        cells = (len(released.items), broken, len(cleaned.items), repeated, doubtful, solved)
        print(f"| {name} | " + " | ".join(f"{cell:,}" for cell in cells) + " |")


if __name__ == "__main__":
    main()
