"""The stages of a run, as its configuration states them: data, learning rate, what is trained."""

import math
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, field
from fractions import Fraction
from itertools import pairwise
from typing import Any

TRAINS = ("new_rows", "embeddings", "all")
"""What a stage can train, from the least to the most."""
REPLAY = "replay"
"""The arm of replayed rows in a schedule; no source can have this name."""
MIXED = "mixed"
"""The one stage of a run in mixed order."""
ORDERS = ("stages", MIXED, "reversed")
"""In which order a run can take the rows of its stages."""


@dataclass(kw_only=True)
class Replay:
    of: str = ""
    """The earlier stage whose rows are read again."""
    share: float = 0.0
    """Share of this stage's rows that are replayed; 0 replays nothing."""


@dataclass(kw_only=True)
class LrMultipliers:
    """What a stage's learning rate is multiplied with; decay, which goes by the rate, as well."""

    embeddings: float = 1.0
    """For the rows of the embedding."""
    head: float = 1.0
    """For the rows of the head; where it is tied to the embedding, the same as `embeddings`."""
    layers: float = 1.0
    """For everything else, the final norm included."""


@dataclass(kw_only=True)
class Stage:
    tokens: int
    """Length of the stage, rounded to whole steps."""
    weights: Any
    """Mixture of the rows that are not replayed: shares by name, up to a common factor, as in
    `{general: 0.9, geo_en: 0.1}`, or one name alone. A name is that of a source, or `general` or
    `domain` for a mixture of the data set. What is given replaces what the curriculum has."""
    replay: Replay = field(default_factory=Replay)
    """What to read again from an earlier stage."""
    lr: str = "restart"
    """`restart`: the schedule starts anew; `continue`: it spans the previous stage and this one."""
    moments: str = "reset"
    """`reset`: the optimizer forgets at the start of the stage; `kept`: it does not."""
    peak_lr: float | None = None
    """Peak of a restarted schedule; null takes the optimizer's."""
    trains: str = "all"
    """`new_rows`: rows of embedding and head from model.num_base_ids on; `embeddings`: embedding
    and head; `all`. The rest does not change by a bit."""
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
                "the run starts here with nothing to go on from; use lr=restart, moments=reset"
            )


def _check_weights(key: str, weights: Any) -> None:
    """Compare weights by name with what weights can be.

    Raises:
        ValueError: names what is no weight.
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
                f"{key}.{name}: no such source; data.sources has {', '.join(sources)}, and there "
                f"are the mixtures {', '.join(mixtures)}"
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
    """Rows can change places only between stages that treat them alike."""
    settings = [
        (stage.lr, stage.moments, stage.peak_lr, stage.trains, stage.lr_multipliers)
        for stage in stages.values()
    ]
    if any(found != settings[0] for found in settings):
        raise ValueError(
            f"curriculum.order={order}: {', '.join(stages)} differ in lr, moments, peak_lr, trains "
            "or lr_multipliers; give them the same, or use order=stages"
        )


def _check_border(previous: str, name: str, stages: dict[str, Stage]) -> None:
    before, after = stages[previous], stages[name]
    if TRAINS.index(after.trains) < TRAINS.index(before.trains) and after.moments == "kept":
        raise ValueError(
            f"curriculum.stages.{name}: trains={after.trains} with moments=kept, but {previous} "
            f"trains={before.trains}, and what is frozen has no moments; use moments=reset"
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
            raise ValueError(f"{key}.peak_lr: has no meaning with lr=continue; drop one of them")
    if stage.trains not in TRAINS:
        raise ValueError(f"{key}.trains: {stage.trains!r}; must be one of {', '.join(TRAINS)}")
    for part, factor in asdict(stage.lr_multipliers).items():
        if not (math.isfinite(factor) and factor > 0):
            raise ValueError(
                f"{key}.lr_multipliers.{part}: {factor}; must be positive and finite (to hold a "
                "part still, use trains)"
            )
    if stage.trains != "all" and stage.lr_multipliers.layers != 1:
        raise ValueError(
            f"{key}.lr_multipliers.layers: has no meaning with trains={stage.trains}, under which "
            "layers do not move; drop one of them"
        )
