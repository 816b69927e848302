"""Files that a run keeps of its initial folder, so that it resumes without that folder.

    <run>/initial/    config.json and generation_config.json

The weights are in the checkpoints, the shape of the network in config.yaml, the digest of the
initial weights in environment.json.
"""

from dataclasses import dataclass
from pathlib import Path

from model.config import ModelConfig
from pretrained.settings import GENERATION, NO_SETTINGS, FolderSettings, read_settings
from storage.atomic import write_atomically

KEPT = "initial"


@dataclass(frozen=True)
class KeptFolder:
    """A folder that is gone, as far as a run has kept it.

    Attributes:
        folder: where the run keeps it; does not exist in runs of earlier versions.
        config: shape of the network.
        digest: of the weights, as `PretrainedFolder.digest`; None in runs of earlier versions.
    """

    folder: Path
    config: ModelConfig
    digest: str | None


def keep(run: Path, source: Path) -> None:
    """Copy the files of a folder that training does not need before its end, unless it was done."""
    if (run / KEPT / "config.json").exists():
        return
    (run / KEPT).mkdir(exist_ok=True)
    for name in (GENERATION, "config.json"):  # the last one says that all are there
        if (source / name).is_file():
            write_atomically(run / KEPT / name, (source / name).read_text(encoding="utf-8"))


def kept_settings(run: Path, source: Path | None) -> FolderSettings:
    """Settings of a folder besides its network: the copy in the run, else the present files."""
    for folder in (run / KEPT, source):
        if folder is not None and (folder / "config.json").is_file():
            return read_settings(folder)
    return NO_SETTINGS
