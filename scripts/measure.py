"""Measure the finished runs of a study: held-out loss by document, and the sample's facts.

    python -m scripts.measure runs=<folder of run folders> [half=development] [probes=true]

Each run is measured on the kind of device and in the precision that it was trained in, see `device`
and `dtype`.

Leaves in each run folder what `scripts.report` compares: study.json (arm, seed, learning rate),
documents.json (nats and bytes of each held-out document of the test half), or development.json (of
the other half), and probes.json; and measured.json, how. Runs that have not finished are passed
over, and those that have been measured in the same way since they finished.
"""

import json
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from conf.command import command
from conf.schema import Config, load_run
from data.rows.shards import Source
from data.rows.sources import open_source
from data.sample.probes import questions
from evaluation.study.measure import first_texts, half_of, measure_documents, measure_probes
from model.device import DTYPES, choose_device
from pretrained.folder import FINAL_FOLDERS, final_folder
from pretrained.load import open_model
from storage.atomic import write_atomically
from training.run.folder import read_starts

FILES = {"test": "documents.json", "development": "development.json"}
"""What each half is written to."""


@dataclass(kw_only=True)
class MeasureConfig:
    """What is measured."""

    runs: str
    """A folder of run folders."""
    half: str = "test"
    """Of the held-out documents: `test`, or `development`, which settings may be chosen on."""
    max_bytes: int | None = None
    """Of each source, the first documents that together are no longer; null takes all."""
    probes: bool = False
    """Ask for the facts of the embedded sample too."""
    device: str | None = None
    """cpu or cuda; null: the kind of device that each run was trained on."""
    dtype: str | None = None
    """float32 or bfloat16; null: what each run was trained in."""

    def __post_init__(self) -> None:
        if self.half not in FILES:
            raise ValueError(f"half={self.half!r}: one of {', '.join(FILES)}")
        if self.max_bytes is not None and self.max_bytes < 1:
            raise ValueError(f"max_bytes={self.max_bytes}: must be at least 1, or null")
        for name, choices in (("device", ("cpu", "cuda")), ("dtype", tuple(DTYPES))):
            if getattr(self, name) not in (None, *choices):
                raise ValueError(f"{name}={getattr(self, name)!r}: {' or '.join(choices)}, or null")


def place_of(folder: Path, config: MeasureConfig) -> tuple[str, str]:
    """The kind of device, and the name of the precision, in which a run is measured.

    A run without starts.jsonl, of an earlier version, is measured on a CPU in float32.
    """
    last = next(reversed(read_starts(folder)), {})
    trained_on = "cpu" if last.get("device", "cpu") == "cpu" else "cuda"
    return config.device or trained_on, config.dtype or last.get("dtype", "float32")


def settings_of(folder: Path, config: MeasureConfig) -> dict[str, object]:
    """What decides the figures of a finished run."""
    settings: dict[str, object] = {"half": config.half, "max_bytes": config.max_bytes}
    place = place_of(folder, config)
    # Earlier versions measured on a CPU in float32, and did not note it.
    return settings if place == ("cpu", "float32") else settings | {"place": " ".join(place)}


def is_measured(folder: Path, config: MeasureConfig) -> bool:
    """Whether all that is asked for is there, measured in this way after the run had finished."""
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
    try:
        chosen = choose_device(device, 0)
    except ValueError as error:
        raise ValueError(f"{folder} is to be measured on {device}: {error}") from None
    model, tokenizer = open_model(final_folder(folder), DTYPES[dtype], chosen)
    sources = {name: open_source(Path(run.data.root) / at) for name, at in run.data.sources.items()}
    documents = {
        name: measure_documents(
            model,
            tokenizer,
            first_texts(half_of(source.held_out(), config.half), config.max_bytes),
            run.evaluation.chunk_bytes,
        )
        for name, source in sources.items()
        if isinstance(source, Source) and source.held_out_documents
    }
    write_atomically(folder / FILES[config.half], json.dumps(documents) + "\n")
    if config.probes:
        found = measure_probes(model, tokenizer, questions())
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
    """Measure every run that is finished and not measured."""
    folders = sorted(path.parent for path in Path(config.runs).glob("*/config.yaml"))
    if not folders:
        raise ValueError(f"runs={config.runs}: holds no run folder")
    finished = [path for path in folders if any((path / final).exists() for final in FINAL_FOLDERS)]
    todo = [path for path in finished if not is_measured(path, config)]
    for folder in tqdm(todo, unit="run"):
        measure(load_run(folder), folder, config)
    print(f"{len(todo)} runs measured, {len(finished) - len(todo)} had been")
    for folder in sorted(set(folders) - set(finished)):
        print(f"not finished, left out: {folder}")


if __name__ == "__main__":
    main()
