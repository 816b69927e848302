"""The configuration of a training run; the dataclasses of its parts are defined at their users.

Checks of one field are in its dataclass, checks across dataclasses in `Config`.
"""

import glob
import hashlib
import json
import math
import re
from contextlib import suppress
from dataclasses import MISSING, Field, asdict, dataclass, field, fields, is_dataclass, replace
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from conf.command import marked_fields, register_command
from data.rows.curriculum import Curriculum
from data.rows.curriculum_config import CurriculumConfig, weights_of_sources
from evaluation.multiple_choice.in_training import TasksConfig
from model.config import ModelConfig
from model.lora.layer import LoraOptions
from training.checkpoint.checkpointer import CheckpointConfig
from training.evaluate import EvaluationConfig
from training.optim import OptimConfig
from training.parallelize import ParallelConfig
from training.run.metrics import LoggingConfig
from training.run.resume import recorded_fingerprints
from training.schedule import ScheduleConfig

LONGEST_ROW = 2**24
"""Largest number of tokens in a row."""
LONGEST_NAME = 200
"""Bytes of a run's name: file systems take 255, and names of other files contain it."""
MOST_SCALE = 1000
"""Largest `data.sample_scale`; the embedded sample is meant for runs of minutes."""

RENAMED = {"tasks.data": "tasks.benchmarks", "tasks.shots_of": "tasks.shots_per_task"}
"""Fields by an earlier name, under which the folders of older runs have them."""


@dataclass(kw_only=True)
class DataConfig:
    """Prepared sources and their mixtures."""

    root: str = field(metadata={"machine": True})
    """Folder that holds the sources."""
    tokenizer: str = field(metadata={"machine": True})
    """Tokenizer of the prepared sources: a folder or a .model file."""
    vocab_size: int
    """Rows of the embedding of a model with drawn weights."""
    sources: dict[str, str]
    """Name of each source and its folder under `root`."""
    general: dict[str, float]
    """Weights of the mixture that stages call `general`."""
    domain: dict[str, float]
    """Weights of the mixture that stages call `domain`."""
    sample_scale: float | None = None
    """Size of the embedded sample corpus, which is written to `root` at first use; null: none."""

    def __post_init__(self) -> None:
        if self.vocab_size < 1:
            raise ValueError(f"data.vocab_size={self.vocab_size}: must be at least 1")
        for mixture in ("general", "domain"):
            for source, weight in getattr(self, mixture).items():
                if not 0 <= weight < math.inf:
                    raise ValueError(
                        f"data.{mixture}.{source}={weight}: a weight is finite, 0 or more"
                    )
        scale = self.sample_scale
        if scale is not None and not 0 < scale <= MOST_SCALE:
            raise ValueError(f"data.sample_scale={scale}: must be in (0, {MOST_SCALE}], or null")


@dataclass(kw_only=True)
class BatchConfig:
    """Tokens of a step, of a row and of a micro-batch."""

    row_length: int = 256
    """Tokens per row."""
    tokens_per_step: int = 4096
    """Tokens per optimizer step over all ranks."""
    micro_batch_rows: int = field(default=16, metadata={"launch": True})
    """Rows per forward pass of one rank; changes memory and speed, not the result."""
    prefetch: int = field(default=2, metadata={"launch": True})
    """Steps that the loader computes ahead."""

    def __post_init__(self) -> None:
        for name, least in (("row_length", 2), ("micro_batch_rows", 1), ("prefetch", 0)):
            if getattr(self, name) < least:
                raise ValueError(f"batch.{name}={getattr(self, name)}: must be at least {least}")
        if self.row_length > LONGEST_ROW:
            raise ValueError(f"batch.row_length={self.row_length}: at most {LONGEST_ROW} tokens")
        if self.tokens_per_step < 1:
            raise ValueError(f"batch.tokens_per_step={self.tokens_per_step}: must be positive")
        if self.tokens_per_step % self.row_length:
            raise ValueError(
                f"batch.tokens_per_step={self.tokens_per_step} is not a multiple of "
                f"batch.row_length={self.row_length}"
            )

    @property
    def rows_per_step(self) -> int:
        """Rows of one optimizer step over all ranks."""
        return self.tokens_per_step // self.row_length


@dataclass(kw_only=True)
class Config:
    """All settings of `train.py`."""

    experiment: str = "train"
    """Name of the recipe; the default name of the run starts with it."""
    name: str | None = field(default=None, metadata={"launch": True})
    """Name of the run folder; null: the experiment and a hash of what the run computes."""
    runs_folder: str = field(default="runs", metadata={"launch": True})
    seed: int = 0
    """Seed of initial weights, document order, replay and dropout."""
    init_from: str | None = None
    """HF folder or run folder whose weights this run starts from; null draws them."""
    resume: str = field(default="auto", metadata={"launch": True})
    """`auto` resumes from a checkpoint if there is one, `required` refuses to start without one,
    `never` refuses to start with one."""
    device: str = field(default="auto", metadata={"launch": True})
    """auto, cpu or cuda."""
    model: ModelConfig | None = None
    """Shape of the network; null takes that of `init_from`."""
    lora: LoraOptions | None = None
    """Train an adapter on frozen weights; null trains the weights themselves."""
    data: DataConfig
    curriculum: CurriculumConfig
    batch: BatchConfig = field(default_factory=BatchConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    parallel: ParallelConfig = field(default_factory=ParallelConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    tasks: TasksConfig = field(default_factory=TasksConfig, metadata={"launch": True})
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    logging: LoggingConfig = field(default_factory=LoggingConfig, metadata={"launch": True})

    def __post_init__(self) -> None:
        for key, name in (("name", self.name), ("experiment", self.experiment)):
            if name is not None:
                _check_name(key, name)
        if self.seed < 0:
            raise ValueError(f"seed={self.seed}: must be at least 0")
        if self.resume not in ("auto", "required", "never"):
            raise ValueError(f"resume={self.resume!r}: one of auto, required, never")
        if self.model is None and self.init_from is None:
            raise ValueError("model=pretrained takes its shape from init_from, which is not given")
        if self.lora is not None and self.init_from is None:
            raise ValueError(
                "lora adapts a trained model, and init_from is not given; name its folder, or set "
                "lora=none to train fresh weights"
            )
        order = list(self.curriculum.stages)
        first = order.index(self.curriculum.run[0]) if self.curriculum.run else 0
        if first and self.init_from is None:
            raise ValueError(
                f"curriculum.run begins with {order[first]}, which follows {order[first - 1]}; "
                f"name the weights after {order[first - 1]} with init_from=<run or HF folder>"
            )
        mixtures = {"general": self.data.general, "domain": self.data.domain}
        for name, weights in mixtures.items():
            for source in sorted(weights.keys() - self.data.sources.keys()):
                raise ValueError(
                    f"data.{name}.{source}: no such source; data.sources has "
                    f"{', '.join(self.data.sources)}"
                )
        stages = {
            name: replace(
                stage,
                weights=weights_of_sources(
                    f"curriculum.stages.{name}.weights", stage.weights, self.data.sources, mixtures
                ),
            )
            for name, stage in self.curriculum.stages.items()
        }
        # From here on, every stage has the weights of sources.
        self.curriculum = replace(self.curriculum, stages=stages)

    @property
    def folder(self) -> Path:
        """The run folder."""
        return Path(self.runs_folder) / (self.name or self.default_name)

    @property
    def default_name(self) -> str:
        """Name of the run where none is given."""
        return f"{self.experiment}-{self.digest[:8]}"

    def plan(self) -> Curriculum:
        """The rows of the run."""
        return Curriculum(
            self.curriculum,
            row_length=self.batch.row_length,
            rows_per_step=self.batch.rows_per_step,
            seed=self.seed,
        )

    @property
    def digest(self) -> str:
        """Hash of what decides what the run computes, as far as it differs from the defaults.

        A field that is added with a default therefore changes no name. The order of the stages, and
        of the sources in each, enters too: rows follow from it.
        """
        content = _without(LAUNCH_FIELDS, _departures(self, None)) | _orders(asdict(self))
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _departures(value: Any, standard: Any) -> Any:
    """A value as a tree without the fields of dataclasses that have their default values.

    Args:
        standard: the default dataclass of this field, if any.
    """
    if isinstance(value, dict):
        return {key: _departures(part, None) for key, part in value.items()}
    if not is_dataclass(value):
        return value
    found: dict[str, Any] = {}
    for part in fields(value):
        mine, usual = getattr(value, part.name), _default(part)
        if is_dataclass(standard):  # which may lack a field that has been added
            usual = getattr(standard, part.name, usual)
        if is_dataclass(mine) and is_dataclass(usual):
            if below := _departures(mine, usual):
                found[part.name] = below
        elif mine != usual:
            found[part.name] = _departures(mine, None)
    return found


def _default(part: Field[Any]) -> Any:
    return part.default_factory() if part.default_factory is not MISSING else part.default


def _orders(tree: dict[str, Any]) -> dict[str, str]:
    """The orders from which rows follow: of the stages, and of the sources in each."""
    stages = (tree.get("curriculum") or {}).get("stages") or {}
    named = {"curriculum.stages (order)": stages}
    named |= {f"curriculum.stages.{n}.weights (order)": x.get("weights") for n, x in stages.items()}
    return {name: ", ".join(part or ()) for name, part in named.items()}


def _check_name(key: str, name: str) -> None:
    """ValueError unless a name is one component of a path, the same wherever it is copied."""
    if name in (".", ".."):
        wrong = "it means an existing folder; choose another name"
    elif name.strip() != name or not name or len(name.encode()) > LONGEST_NAME:
        wrong = "it must neither be empty nor begin or end with a blank, nor be too long for a file"
    elif found := re.search(r"[/\\\x00-\x1f\x7f]", name):
        wrong = f"it must not hold {found[0]!r}; the folder above it is runs_folder"
    else:
        return
    raise ValueError(f"{key}={name!r} is the name of the run's folder: {wrong}")


# Launch fields neither enter the default name of a run nor have to stay when the run is resumed.
LAUNCH_FIELDS = marked_fields(Config, "launch")
# Machine fields enter the default name, because nothing has been opened when the name is made. They
# may change when the run is resumed: the fingerprints of the data in environment.json and the
# precision in starts.jsonl are compared instead.
MACHINE_FIELDS = marked_fields(Config, "machine")


def register() -> None:
    """Make the configuration of train.py known to Hydra without importing train.py."""
    register_command("train", Config)


def load_run(folder: Path | str) -> Config:
    """The configuration that a run was carried out with, from its folder, wherever it lies now.

    Raises:
        ValueError: the folder is not a run folder, or its configuration does not fit this version.
    """
    path = Path(folder).absolute() / "config.yaml"
    if not path.is_file():
        raise ValueError(f"run={folder}: no config.yaml; name the folder of a run")
    try:
        written = OmegaConf.merge(OmegaConf.structured(Config), _with_new_names(path))
        config = OmegaConf.to_object(written)
    except OmegaConfBaseException as error:
        reason = str(error).splitlines()[0]
        raise ValueError(
            f"{path}: {reason}; the run was started by another version of the code"
        ) from None
    assert isinstance(config, Config)
    return replace(config, runs_folder=str(path.parent.parent), name=path.parent.name)


def _with_new_names(path: Path) -> DictConfig:
    """A written configuration, its fields under the names that they have today."""
    written = OmegaConf.create(_read_tree(path))
    for old, new in RENAMED.items():
        parent, _, name = old.rpartition(".")
        holder = OmegaConf.select(written, parent)
        if isinstance(holder, DictConfig) and name in holder:
            OmegaConf.update(written, new, holder.pop(name))
    return written


def to_yaml(config: Config) -> str:
    """The resolved configuration as it is written into the run folder."""
    content: dict[str, Any] = asdict(config)
    return OmegaConf.to_yaml(OmegaConf.create(content))


def check_same_run(path: Path, config: Config) -> None:
    """Compare with the configuration of an existing run folder.

    Raises:
        ValueError: names the fields that differ and decide what the run computes.
    """
    if not path.exists():
        return
    free = LAUNCH_FIELDS + MACHINE_FIELDS
    # The digest in environment.json is compared instead, where the run has noted it.
    if config.lora is not None or "init_from" in recorded_fingerprints(
        path.with_name("environment.json")
    ):
        free += ("init_from",)
    if different := _differences(path, config, free):
        raise ValueError(
            f"{path} was created with other settings ({'; '.join(different)}); restore them, "
            "or set another name"
        )


def under_former_name(config: Config) -> Config:
    """The configuration with the name that an earlier version gave to the same run.

    Default names depended on all fields once. A run without a name that has no folder is looked for
    among those of its experiment that have a default name and equal settings.
    """
    if config.name is not None or config.folder.exists():
        return config
    found, free = [], LAUNCH_FIELDS
    # What the written configuration has from the folder of the initial weights.
    if config.model is None:
        free += ("model",)
    elif config.init_from is not None:
        free += ("model.num_base_ids", "model.num_padded_ids")
    pattern = f"{glob.escape(config.experiment)}-{'[0-9a-f]' * 8}/config.yaml"
    for path in Path(config.runs_folder).glob(pattern):
        with suppress(ValueError):  # a damaged folder must not prevent a new run
            if not _differences(path, config, free):
                found.append((path.stat().st_mtime, path.parent.name))
    return replace(config, name=max(found)[1]) if found else config


def _differences(path: Path, config: Config, free: tuple[str, ...]) -> list[str]:
    """Fields in which a written configuration differs from another one, with both values.

    Args:
        free: fields that may differ.
    """
    written = _read_tree(path)
    asked: Any = OmegaConf.to_container(OmegaConf.create(asdict(config)))
    before, now = _without(free, written) | _orders(written), _without(free, asked) | _orders(asked)
    # A field that the run's own version did not have: what it did is what the default means.
    defaults = _flat(OmegaConf.to_container(OmegaConf.structured(Config)))
    chosen = _flat(_departures(config, None))
    usual = {key: defaults.get(key) if key in chosen else value for key, value in now.items()}
    before = {key: before.get(key, usual.get(key)) for key in before.keys() | now.keys()}
    return [
        f"{key}: {value} -> {now.get(key)}"
        for key, value in sorted(before.items())
        if value != now.get(key)
    ]


def _read_tree(path: Path) -> dict:
    try:
        tree = OmegaConf.to_container(OmegaConf.load(path))
    except (OmegaConfBaseException, YAMLError, UnicodeDecodeError):
        tree = None
    if not isinstance(tree, dict) or not tree:
        raise ValueError(f"{path} is damaged; restore it, or set another name")
    return tree


def _without(fields: tuple[str, ...], tree: Any) -> dict[str, Any]:
    """Leaves by dotted key, without those at or below some fields."""
    return {
        key: value
        for key, value in _flat(tree).items()
        if not any(key == field or key.startswith(f"{field}.") for field in fields)
    }


def _flat(tree: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(tree, dict) or (prefix and not tree):
        return {prefix[:-1]: tree}
    leaves: dict[str, Any] = {}
    for key, value in tree.items():
        leaves |= _flat(value, f"{prefix}{key}.")
    return leaves
