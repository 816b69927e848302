"""Measure the finished runs of a study: held-out loss by document, and the sample's facts.

    python -m scripts.measure runs=<folder of run folders> [half=development] [probes=true]

Leaves in each run folder what `scripts.report` compares: study.json (arm, seed, learning rate),
documents.json (nats and bytes of each held-out document of the test half), or development.json (of
the other half), and probes.json; and measured.json, how. Runs that have not finished are passed
over, and those that have been measured in the same way since they finished.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import torch
from hydra.core.config_store import ConfigStore
from omegaconf import DictConfig, OmegaConf
from tqdm import tqdm

from conf.command import command
from conf.schema import Config, load_run
from data.sample.probes import questions
from data.shards import Source
from data.sources import open_source
from evaluation.measure import first_texts, half_of, measure_documents, measure_probes
from training.inputs import final_folder
from training.open_model import open_model
from training.run_folder import FINAL_FOLDERS, replace_text

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

    def __post_init__(self) -> None:
        if self.half not in FILES:
            raise ValueError(f"half={self.half!r}: one of {', '.join(FILES)}")
        if self.max_bytes is not None and self.max_bytes < 1:
            raise ValueError(f"max_bytes={self.max_bytes}: must be at least 1, or null")


ConfigStore.instance().store("measure_schema", MeasureConfig)


def settings_of(config: MeasureConfig) -> dict[str, object]:
    """What decides the figures of a finished run."""
    return {"half": config.half, "max_bytes": config.max_bytes}


def is_measured(folder: Path, config: MeasureConfig) -> bool:
    """Whether all that is asked for is there, measured in this way after the run had finished."""
    wanted = [FILES[config.half], "study.json", *(["probes.json"] if config.probes else [])]
    record = folder / "measured.json"
    if not record.exists() or not all((folder / name).exists() for name in wanted):
        return False
    if json.loads(record.read_text(encoding="utf-8")) != settings_of(config):
        return False
    return record.stat().st_mtime >= final_folder(folder).stat().st_mtime


def measure(run: Config, folder: Path, config: MeasureConfig) -> None:
    """Measure one finished run."""
    model, tokenizer = open_model(final_folder(folder), torch.float32, "cpu")
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
    replace_text(folder / FILES[config.half], json.dumps(documents) + "\n")
    if config.probes:
        found = measure_probes(model, tokenizer, questions())
        replace_text(folder / "probes.json", json.dumps(found) + "\n")
    about = {
        "arm": run.experiment,
        "seed": run.seed,
        "starts_from": run.init_from and Path(run.init_from).name,
        "lr": run.optim.lr,
    }
    replace_text(folder / "study.json", json.dumps(about) + "\n")
    replace_text(folder / "measured.json", json.dumps(settings_of(config)) + "\n")


@command("measure", resumes="the same command goes on with the run that it was at")
def main(composed: DictConfig) -> None:
    """Measure every run that is finished and not measured."""
    if missing := OmegaConf.missing_keys(composed):
        raise ValueError(f"{', '.join(sorted(missing))}: must be given\n{__doc__}")
    config = OmegaConf.to_object(composed)
    assert isinstance(config, MeasureConfig)
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
