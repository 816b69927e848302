"""What repeating a run has found: figures that came out again, and those that did not."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from training.run.log import SHOWN, compare

FIGURES = ("loss_nats", "grad_norm", "sources", "eval")


@dataclass(kw_only=True)
class Verdict:
    """What came out.

    Attributes:
        problems: everything that did not reproduce, one sentence each.
        compared: logged steps that were executed again.
        evaluated: steps whose logged evaluation was carried out again.
        largest: largest relative difference of each figure.
        equal: checkpoints that were reached with every bit the same.
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

    def add(
        self, step: int, logged: dict[str, Any], found: dict[str, Any], tolerance: float
    ) -> None:
        """Compare a row of the log, of a step or of an evaluation, with what was found now."""
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
        """Note that a checkpoint was reached, but for some tensors."""
        names = list(different)
        if not names:
            self.equal.append(step)
            return
        more = f" and {len(names) - SHOWN} more tensors" if names[SHOWN:] else ""
        self.problems.append(
            f"checkpoint of step {step}: its steps lead to other bits of "
            f"{', '.join(names[:SHOWN])}{more}"
        )
