"""Initial weights of a run: drawn, read from a folder, or an adapter on a frozen base."""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch

from conf.schema import Config, load_run
from model.config import ModelConfig
from model.lora.layer import LoraOptions
from model.transformer import Mistral
from model.weights import InitialWeights, WeightSource
from pretrained.folder import Folder
from pretrained.safetensors_folder import PretrainedFolder
from pretrained.settings import FolderSettings
from training.adaptation import Frozen, open_frozen
from training.checkpoint.manifest import finished
from training.run.resume import recorded_fingerprints
from training.run.started_from import KEPT, KeptFolder, kept_settings
from training.sources import open_weights


@dataclass(frozen=True)
class Initial:
    """Opened `init_from` of a run.

    Attributes:
        folder: the weights; under an adapter the frozen base, None for drawn weights.
        frozen: the base of the adapter that is trained; None where all weights train.
        settings: settings of the folder other than those of the network.
    """

    folder: Folder | KeptFolder | None
    frozen: Frozen | None
    settings: FolderSettings

    @property
    def shape(self) -> ModelConfig | None:
        """Shape of the network in the folder."""
        return None if self.folder is None else self.folder.config

    @property
    def base(self) -> PretrainedFolder | None:
        """The frozen model under an adapter."""
        return None if self.frozen is None else self.frozen.base

    @property
    def kept_from(self) -> Path | None:
        """Folder whose settings the run keeps; None for drawn weights, adapters and kept ones."""
        trains = self.frozen is None and isinstance(self.folder, Folder)
        return self.folder.folder if trains and self.folder is not None else None

    @cached_property
    def fingerprints(self) -> Mapping[str, str]:
        """Digests of the weights that the run starts from, by the names in environment.json."""
        if self.frozen is not None:
            return self.frozen.fingerprints
        digest = None if self.folder is None else self.folder.digest
        return {} if digest is None else {"init_from": digest}

    def weights(
        self, model: Mistral, lora: LoraOptions | None, dtype: torch.dtype, seed: int
    ) -> tuple[LoraOptions | None, WeightSource]:
        """Add the adapter to the model, if one trains.

        Args:
            lora: requested settings of the adapter.
            dtype: of the computation.
            seed: of the drawn weights.

        Returns:
            The settings of the adapter with nulls resolved, and the source of all weights.

        Raises:
            ValueError: folder, adapter and model do not fit each other.
        """
        if isinstance(self.folder, Folder):
            self.folder.check(model)
        if lora is not None and self.frozen is not None:
            return self.frozen.adapt(model, lora, dtype, seed)
        return None, self.folder if isinstance(self.folder, Folder) else InitialWeights(model, seed)


def open_initial(config: Config, *, resumes: bool) -> Initial:
    """Open the folder that `init_from` names.

    Args:
        resumes: a run of all weights with a checkpoint needs only the files that it has kept of its
            initial folder, which may be gone. The weights are then drawn and replaced by the
            checkpoint.

    Raises:
        ValueError: the folder cannot be opened, and the run needs it.
    """
    kept = _kept_folder(config) if resumes else None
    folder: Folder | KeptFolder | None
    if kept is not None and config.init_from is None:
        folder = kept
    else:
        try:
            folder = open_weights(config.init_from)
        except ValueError:
            if kept is None:
                raise
            folder = kept
    frozen = None
    if config.lora is not None:
        assert isinstance(folder, Folder)
        frozen = open_frozen(folder)
        folder = frozen.base
    settings = kept_settings(config.folder, folder and folder.folder)
    return Initial(folder, frozen, settings)


def _kept_folder(config: Config) -> KeptFolder | None:
    """Files that a run with a checkpoint has kept of its initial folder, None where it has none."""
    if config.lora is not None or not finished(config.folder / "checkpoints"):
        return None
    with suppress(ValueError):  # of a damaged run folder, which is refused later
        written = load_run(config.folder)
        # Another init_from may be the same folder at a new place or another folder: it is opened.
        same = config.init_from in (None, written.init_from)
        if same and written.init_from is not None and written.model is not None:
            recorded = recorded_fingerprints(config.folder / "environment.json")
            return KeptFolder(config.folder / KEPT, written.model, recorded.get("init_from"))
    return None
