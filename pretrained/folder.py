"""Meaning of a path: an HF folder, an adapter folder or a run folder."""

from pathlib import Path

from pretrained.adapter import AdapterFolder
from pretrained.adapter_config import is_adapter
from pretrained.merged import MergedAdapters
from pretrained.safetensors_folder import PretrainedFolder
from tokenizer.folder import JSON, MODEL
from tokenizer.tokenizer import Tokenizer

FINAL_FOLDERS = ("model", "adapter")
"""Folders of which a finished run has one."""


def own_tokenizer(folder: Path) -> Tokenizer | None:
    """The tokenizer in a folder; None if the folder has no tokenizer file."""
    found = any((folder / name).is_file() for name in (MODEL, JSON))
    return Tokenizer.open(folder) if found else None


Folder = PretrainedFolder | MergedAdapters


def open_folder(path: Path | str, base: Path | str | None = None) -> Folder:
    """The weights in an HF folder, an adapter folder or a finished run.

    Args:
        base: base of an adapter, if it is not at the path in the adapter's settings.

    Raises:
        ValueError: there are none, or they do not fit together.
    """
    folder = final_folder(path)
    if not is_adapter(folder):
        if base is not None:
            raise ValueError(
                f"base={base}: {folder} is not an adapter, so it has no base; remove base"
            )
        return PretrainedFolder(folder)
    adapter = AdapterFolder(folder)
    return MergedAdapters(open_base(adapter, base), [(adapter, 1.0)])


def final_folder(path: Path | str) -> Path:
    """Folder with the weights: the folder itself, or `model/` or `adapter/` of a run.

    Raises:
        ValueError: the run has not finished.
    """
    folder = Path(path)
    if not (folder / "config.yaml").exists():
        return folder
    for final in FINAL_FOLDERS:
        if (folder / final).exists():
            return folder / final
    raise ValueError(
        f"{folder} is a run that has not finished; continue it, or name one of its exports"
    )


def open_base(adapter: AdapterFolder, base: Path | str | None = None) -> PretrainedFolder:
    """The model that an adapter was trained on.

    Raises:
        ValueError: it is not where the adapter says.
    """
    named = base or adapter.base
    path = final_folder(named) if named else None
    if path is None or not (path / "config.json").is_file():
        raise ValueError(
            f"{adapter.folder} is an adapter of {named or 'an unnamed base'}, but that path has "
            "no model; write the folder of the base into base_model_name_or_path of "
            "adapter_config.json, or merge the adapter first (python -m scripts.export folder=<it> "
            "base=<HF folder> out=<folder>; generate, chat and serve take base too)"
        )
    return PretrainedFolder(path)
