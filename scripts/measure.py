"""Measure the finished runs of a study: held-out loss by document, and facts of the sample.

    python -m scripts.measure runs=<folder of run folders> [half=development] [probes=true]

Each run is measured on the kind of device and in the precision that it was trained in, see `device`
and `dtype`.

Writes into each run folder what `scripts.report` compares: study.json (arm, seed, learning
rate); documents.json (nats and bytes of each held-out document of the test half) or
development.json (of the development half); probes.json; and measured.json with the settings.
Unfinished runs, and runs that were already measured with these settings, are skipped.
"""

import json
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import torch
from tqdm import tqdm

from conf.command import command
from conf.schema import Config, load_run
from data.rows.shards import Source
from data.rows.sources import open_source
from evaluation.study.measure import first_texts, half_of, measure_documents, measure_probes
from model.device import DTYPES
from pretrained.folder import FINAL_FOLDERS, final_folder
from pretrained.load import open_model
from storage.atomic import write_atomically
from training.distributed import World, start_world
from training.run.folder import read_starts

FILES = {"test": "documents.json", "development": "development.json"}
"""File of each half."""


@dataclass(kw_only=True)
class MeasureConfig:
    """Runs, documents and precision of a measurement."""

    runs: str
    """A folder of run folders."""
    half: str = "test"
    """Half of the held-out documents: `test`, or `development`, for the choice of settings."""
    max_bytes: int | None = None
    """Most bytes per source, in whole documents from the first on; null: all documents."""
    probes: bool = False
    """Also measure the facts of the embedded sample."""
    device: str | None = None
    """`cpu` or `cuda`; null: the kind of device on which each run was trained."""
    dtype: str | None = None
    """`float32` or `bfloat16`; null: the precision in which each run was trained."""

    def __post_init__(self) -> None:
        if self.half not in FILES:
            raise ValueError(f"half={self.half!r}: one of {', '.join(FILES)}")
        if self.max_bytes is not None and self.max_bytes < 1:
            raise ValueError(f"max_bytes={self.max_bytes}: must be at least 1, or null")
        for name, choices in (("device", ("cpu", "cuda")), ("dtype", tuple(DTYPES))):
            if getattr(self, name) not in (None, *choices):
                raise ValueError(f"{name}={getattr(self, name)!r}: {' or '.join(choices)}, or null")


def place_of(folder: Path, config: MeasureConfig) -> tuple[str, str]:
    """Kind of device and name of the precision for a run.

    Runs of earlier versions, without starts.jsonl, are measured on a CPU in float32.
    """
    last = next(reversed(read_starts(folder)), {})
    trained_on = "cpu" if last.get("device", "cpu") == "cpu" else "cuda"
    return config.device or trained_on, config.dtype or last.get("dtype", "float32")


def settings_of(folder: Path, config: MeasureConfig) -> dict[str, object]:
    """Settings that decide the figures of a finished run."""
    settings: dict[str, object] = {"half": config.half, "max_bytes": config.max_bytes}
    place = place_of(folder, config)
    # Earlier versions measured on a CPU in float32, without this field.
    return settings if place == ("cpu", "float32") else settings | {"place": " ".join(place)}


def is_measured(folder: Path, config: MeasureConfig) -> bool:
    """Decide if the run was measured with these settings after its end."""
    wanted = [FILES[config.half], "study.json", *(["probes.json"] if config.probes else [])]
    record = folder / "measured.json"
    if not record.exists() or not all((folder / name).exists() for name in wanted):
        return False
    if json.loads(record.read_text(encoding="utf-8")) != settings_of(folder, config):
        return False
    return record.stat().st_mtime >= final_folder(folder).stat().st_mtime


def measure(run: Config, folder: Path, config: MeasureConfig) -> None:
    """Measure one finished run."""
    device, dtype = place_of(folder, config)
    with ExitStack() as stack:
        try:
            world = stack.enter_context(start_world(device))
        except ValueError as error:
            raise ValueError(f"{folder} was trained on {device}: {error}") from None
        _measure(run, folder, config, DTYPES[dtype], world)


def _measure(
    run: Config, folder: Path, config: MeasureConfig, dtype: torch.dtype, world: World
) -> None:
    model, tokenizer = open_model(final_folder(folder), dtype, world.device)
    sources = {name: open_source(Path(run.data.root) / at) for name, at in run.data.sources.items()}
    documents = {
        name: measure_documents(
            model,
            tokenizer,
            first_texts(half_of(source.held_out(), config.half), config.max_bytes),
            run.evaluation.chunk_bytes,
            world,
        )
        for name, source in sources.items()
        if isinstance(source, Source) and source.held_out_documents
    }
    write_atomically(folder / FILES[config.half], json.dumps(documents) + "\n")
    if config.probes:
        found = measure_probes(model, tokenizer, world)
        write_atomically(folder / "probes.json", json.dumps(found) + "\n")
    about = {
        "arm": run.experiment,
        "seed": run.seed,
        "starts_from": run.init_from and Path(run.init_from).name,
        "lr": run.optim.lr,
    }
    write_atomically(folder / "study.json", json.dumps(about) + "\n")
    write_atomically(folder / "measured.json", json.dumps(settings_of(folder, config)) + "\n")


@command("measure", MeasureConfig, stopped="stopped; run the same command again to continue")
def main(config: MeasureConfig) -> None:
    """Measure every finished run that was not measured yet."""
    folders = sorted(path.parent for path in Path(config.runs).glob("*/config.yaml"))
    if not folders:
        raise ValueError(f"runs={config.runs} contains no run folders (looked for */config.yaml)")
    finished = [path for path in folders if any((path / final).exists() for final in FINAL_FOLDERS)]
    todo = [path for path in finished if not is_measured(path, config)]
    for folder in tqdm(todo, unit="run"):
        measure(load_run(folder), folder, config)
    print(f"{len(todo)} runs measured, {len(finished) - len(todo)} were already measured")
    for folder in sorted(set(folders) - set(finished)):
        print(f"not finished, skipped: {folder}")


if __name__ == "__main__":
    main()
