"""Result of repeating steps of a run: figures that were reproduced and figures that were not."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from training.run.log import SHOWN, compare

FIGURES = ("loss_nats", "grad_norm", "sources", "eval")


@dataclass(kw_only=True)
class Verdict:
    """Result of a verification.

    Attributes:
        problems: one sentence per figure or checkpoint that was not reproduced.
        compared: number of repeated logged steps.
        evaluated: steps whose logged evaluation was repeated.
        largest: largest relative difference of each figure.
        equal: steps of the checkpoints that were reproduced bit for bit.
    """

    problems: list[str] = field(default_factory=list)
    compared: int = 0
    evaluated: list[int] = field(default_factory=list)
    largest: dict[str, float] = field(default_factory=lambda: dict.fromkeys(FIGURES, 0.0))
    equal: list[int] = field(default_factory=list)

    def __str__(self) -> str:
        worst = ", ".join(f"{name} {value:.1e}" for name, value in self.largest.items())
        figures = (
            f"{self.compared} logged steps and {len(self.evaluated)} evaluations repeated; largest "
            f"relative differences: {worst}"
        )
        if self.problems:
            return "\n".join(["NOT REPRODUCED", *(f"  {p}" for p in self.problems), figures])
        if not self.compared:
            return "NOT VERIFIED: no logged step could be repeated; run the command again"
        equal = "".join(
            f"\ncheckpoint of step {step}: weights and moments are equal bit for bit"
            for step in self.equal
        )
        return f"REPRODUCED: {figures}{equal}"

    @property
    def passed(self) -> bool:
        """True if at least one step was repeated and everything was reproduced."""
        return bool(self.compared) and not self.problems

    def add(
        self, step: int, logged: dict[str, Any], found: dict[str, Any], tolerance: float
    ) -> None:
        """Compare a logged row of a step or an evaluation with the repeated one."""
        if "eval" in found:
            self.evaluated.append(step)
        else:
            self.compared += 1
        differences = compare(logged, found)
        for difference in differences:
            if difference.relative is not None:
                figure = difference.name.split(".")[0]
                self.largest[figure] = max(self.largest.get(figure, 0.0), difference.relative)
        failed = [difference for difference in differences if not difference.passes(tolerance)]
        self.problems += [f"step {step}: {difference}" for difference in failed[:SHOWN]]
        if failed[SHOWN:]:
            self.problems.append(f"step {step}: {len(failed) - SHOWN} more figures differ")

    def add_checkpoint(self, step: int, different: Iterable[str]) -> None:
        """Record a checkpoint that was reached, with the names of tensors that differ."""
        names = list(different)
        if not names:
            self.equal.append(step)
            return
        more = f" and {len(names) - SHOWN} more tensors" if names[SHOWN:] else ""
        self.problems.append(
            f"checkpoint of step {step}: the repeated steps give other bits of "
            f"{', '.join(names[:SHOWN])}{more}"
        )
