"""Configuration of the stages of a run: data, learning rate, trainable weights."""

import math
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, field
from fractions import Fraction
from itertools import pairwise
from typing import Any

TRAINS = ("new_rows", "embeddings", "all")
"""Values of `trains`, from the fewest to the most trained weights."""
REPLAY = "replay"
"""Name of replayed rows in reports; no source can have this name."""
MIXED = "mixed"
"""Name of the only stage of a run in mixed order."""
ORDERS = ("stages", MIXED, "reversed")
"""Orders of the rows of the stages in a run."""


@dataclass(kw_only=True)
class Replay:
    of: str = ""
    """The earlier stage whose rows are read again."""
    share: float = 0.0
    """Share of this stage's rows that are replayed; 0 replays nothing."""


@dataclass(kw_only=True)
class LrMultipliers:
    """Factors on the learning rate of a stage, and so on its weight decay."""

    embeddings: float = 1.0
    """For the rows of the embedding."""
    head: float = 1.0
    """For the rows of the head; a tied head needs the value of `embeddings`."""
    layers: float = 1.0
    """For everything else, the final norm included."""


@dataclass(kw_only=True)
class Stage:
    tokens: int
    """Length of the stage, rounded to whole steps."""
    weights: Any
    """Mixture of the rows that are not replayed: shares by name, up to a common factor, as in
    `{general: 0.9, geo_en: 0.1}`, or one name alone. A name is that of a source, or `general` or
    `domain` for a mixture of the data set. A given mapping replaces that of the curriculum."""
    replay: Replay = field(default_factory=Replay)
    """Rows of an earlier stage to read again."""
    lr: str = "restart"
    """`restart`: the schedule restarts; `continue`: it spans the previous stage and this one."""
    moments: str = "reset"
    """Moments of the optimizer at the start of the stage: `reset` to zero, or `kept`."""
    peak_lr: float | None = None
    """Peak of a restarted schedule; null: `optim.lr`."""
    trains: str = "all"
    """`new_rows`: rows of embedding and head from model.num_base_ids on; `embeddings`: embedding
    and head; `all`. All other weights stay bit for bit the same."""
    lr_multipliers: LrMultipliers = field(default_factory=LrMultipliers)
    """Learning rates of the parts of the model, relative to the stage's."""


@dataclass(kw_only=True)
class CurriculumConfig:
    stages: dict[str, Stage]
    """The stages in order."""
    run: list[str] = field(default_factory=list)
    """Consecutive stages to run; earlier ones count as consumed. Empty runs all of them."""
    scale: float = 1.0
    """Multiplies the length of every stage."""
    order: str = "stages"
    """`stages`: one after the other. Two controls over the very same rows: `mixed`, all of them in
    one seeded permutation, as a single stage; `reversed`, the last stage first."""

    def __post_init__(self) -> None:
        names = list(self.stages)
        if not names:
            raise ValueError("curriculum.stages: empty; a curriculum needs at least one")
        for number, (name, stage) in enumerate(self.stages.items()):
            _check_stage(f"curriculum.stages.{name}", stage, names[:number])
        for previous, name in pairwise(names):
            _check_border(previous, name, self.stages)
        for name in self.run:
            if name not in names:
                raise ValueError(
                    f"curriculum.run: no stage {name!r}; stages are {', '.join(names)}"
                )
        start = names.index(self.run[0]) if self.run else 0
        if self.run and self.run != names[start : start + len(self.run)]:
            raise ValueError(
                f"curriculum.run: {self.run} is not a range of consecutive stages; the order is "
                f"{names}"
            )
        if not (math.isfinite(self.scale) and self.scale > 0):
            raise ValueError(f"curriculum.scale: {self.scale}; must be positive")
        if self.order not in ORDERS:
            raise ValueError(f"curriculum.order: {self.order!r}; one of {', '.join(ORDERS)}")
        if self.order != "stages":
            _check_alike(self.order, {name: self.stages[name] for name in self.run or names})
        first = self.stages[names[start]]
        if first.lr != "restart" or first.moments != "reset":
            raise ValueError(
                f"curriculum.stages.{names[start]}: lr={first.lr}, moments={first.moments}, but "
                "the run starts with this stage; use lr=restart, moments=reset"
            )


def _check_weights(key: str, weights: Any) -> None:
    """Check weights by name.

    Raises:
        ValueError: a weight is not a finite number of at least 0.
    """
    if not isinstance(weights, Mapping):
        raise ValueError(
            f"{key}: {weights!r}; give shares by name, as in {key}='{{general: 0.9, geo_en: 0.1}}'"
        )
    for name, weight in weights.items():
        if not isinstance(name, str) or name in ("", REPLAY):
            raise ValueError(f"{key}: a source cannot be named {name!r}; rename it")
        if isinstance(weight, bool) or not isinstance(weight, int | float):
            raise ValueError(f"{key}.{name}: {weight!r}; must be a number")
        if not math.isfinite(weight) or weight < 0:
            raise ValueError(f"{key}.{name}: {weight}; must be finite, 0 or more")


def weights_of_sources(
    key: str,
    weights: str | Mapping[str, int | float],
    sources: Collection[str],
    mixtures: Mapping[str, Mapping[str, float]],
) -> dict[str, float]:
    """Weights of sources, from weights that may refer to mixtures by name.

    A mixture with weight w has the part w of the rows, in the proportions of its sources; one
    mixture alone keeps its weights as they are. A source that has the name of a mixture is meant
    by that name.

    Args:
        key: of the field, for errors.

    Raises:
        ValueError: a name is neither that of a source nor of a mixture.
    """
    named = {weights: 1.0} if isinstance(weights, str) else dict(weights)
    for name in named:
        if name not in sources and name not in mixtures:
            raise ValueError(
                f"{key}.{name}: not a source or mixture; data.sources has "
                f"{', '.join(sources)}, and the mixtures are {', '.join(mixtures)}"
            )
    referred = [name for name in named if name not in sources]
    for name in referred:
        if not any(mixtures[name].values()):
            raise ValueError(
                f"{key}.{name}: nothing in data.{name}={dict(mixtures[name])} is positive; give it "
                "sources, or name sources here"
            )
    if not referred:
        return {source: float(weight) for source, weight in named.items()}
    if len(named) == 1:
        return {source: float(part) for source, part in mixtures[referred[0]].items()}
    found: dict[str, Fraction] = {}
    for name, weight in named.items():
        parts = mixtures[name] if name in referred else {name: 1.0}
        # Fractions of the decimals as written: 0.1 and 0.9 sum to one.
        unit = Fraction(str(weight)) / sum(Fraction(str(part)) for part in parts.values())
        for source, part in parts.items():
            found[source] = found.get(source, Fraction(0)) + unit * Fraction(str(part))
    return {source: float(weight) for source, weight in found.items()}


def _check_alike(order: str, stages: dict[str, Stage]) -> None:
    """Refuse other orders of rows for stages whose settings differ."""
    settings = [
        (stage.lr, stage.moments, stage.peak_lr, stage.trains, stage.lr_multipliers)
        for stage in stages.values()
    ]
    if any(found != settings[0] for found in settings):
        raise ValueError(
            f"curriculum.order={order}: {', '.join(stages)} differ in lr, moments, peak_lr, trains "
            "or lr_multipliers; give them equal values, or use order=stages"
        )


def _check_border(previous: str, name: str, stages: dict[str, Stage]) -> None:
    before, after = stages[previous], stages[name]
    if TRAINS.index(after.trains) < TRAINS.index(before.trains) and after.moments == "kept":
        raise ValueError(
            f"curriculum.stages.{name}: trains={after.trains} with moments=kept, but {previous} "
            f"trains={before.trains}, and frozen weights have no moments; use moments=reset"
        )


def _check_stage(key: str, stage: Stage, earlier: list[str]) -> None:
    if stage.tokens <= 0:
        raise ValueError(f"{key}.tokens: {stage.tokens}; must be positive")
    if not isinstance(stage.weights, str):
        _check_weights(f"{key}.weights", stage.weights)
        if not any(stage.weights.values()):
            raise ValueError(f"{key}.weights: {stage.weights}; at least one must be positive")
    share, replayed = stage.replay.share, stage.replay.of
    if not 0 <= share < 1:
        raise ValueError(f"{key}.replay.share: {share}; must be at least 0 and less than 1")
    if (share > 0 or replayed) and replayed not in earlier:
        raise ValueError(
            f"{key}.replay.of: {replayed!r}; must be an earlier stage "
            f"({', '.join(earlier) or 'there is none'}), or share must be 0 and of empty"
        )
    if stage.lr not in ("restart", "continue"):
        raise ValueError(f"{key}.lr: {stage.lr!r}; must be restart or continue")
    if stage.moments not in ("reset", "kept"):
        raise ValueError(f"{key}.moments: {stage.moments!r}; must be reset or kept")
    if stage.peak_lr is not None:
        if not (math.isfinite(stage.peak_lr) and stage.peak_lr > 0):
            raise ValueError(f"{key}.peak_lr: {stage.peak_lr}; must be positive, or null")
        if stage.lr == "continue":
            raise ValueError(f"{key}.peak_lr: has no effect with lr=continue; drop one of them")
    if stage.trains not in TRAINS:
        raise ValueError(f"{key}.trains: {stage.trains!r}; must be one of {', '.join(TRAINS)}")
    for part, factor in asdict(stage.lr_multipliers).items():
        if not (math.isfinite(factor) and factor > 0):
            raise ValueError(
                f"{key}.lr_multipliers.{part}: {factor}; must be positive and finite (to freeze "
                "a part, use trains)"
            )
    if stage.trains != "all" and stage.lr_multipliers.layers != 1:
        raise ValueError(
            f"{key}.lr_multipliers.layers: has no effect with trains={stage.trains}, which "
            "freezes the layers; drop one of them"
        )
