"""An adapter in training: the frozen model that it is trained on, and its first tensors."""

from dataclasses import asdict, dataclass

import torch

from model.adapters import InitialAdapter, add_lora, check_rank, settle
from model.lora.layer import LoraOptions
from model.transformer import Mistral
from model.weights import WeightSource
from pretrained.adapter import AdapterFolder
from pretrained.folder import Folder
from pretrained.merged import ContinuedAdapter
from pretrained.safetensors_folder import PretrainedFolder
from training.run.resume import ADAPTER


@dataclass(frozen=True)
class Frozen:
    """Base of an adapter that is trained.

    Attributes:
        base: the frozen model.
        continued: the adapter on it whose training continues; None if a new one begins.
    """

    base: PretrainedFolder
    continued: AdapterFolder | None = None

    @property
    def fingerprints(self) -> dict[str, str]:
        """Digests of the weights that no checkpoint holds, and of the adapter at the start."""
        noted = {"init_from": self.base.digest}
        if self.continued is not None:
            noted[ADAPTER] = self.continued.digest(self.base.config)
        return noted

    def adapt(
        self, model: Mistral, asked: LoraOptions, dtype: torch.dtype, seed: int
    ) -> tuple[LoraOptions, WeightSource]:
        """Give a model its adapter, see `add_lora`; return its settings, and what fills the model.

        Raises:
            ValueError: the settings do not fit the model or the continued adapter.
        """
        adapter = None if self.continued is None else self.continued.lora(self.base.config)
        lora = settle(asked, adapter, model)
        if adapter is None:
            check_rank(model, lora)
        add_lora(model, lora, dtype)
        weights: WeightSource = InitialAdapter(self.base, model, seed)
        if self.continued is not None:
            weights = ContinuedAdapter(self.base, self.continued)
        return LoraOptions(**asdict(lora)), weights


def open_frozen(folder: Folder) -> Frozen:
    """Base of an adapter that is trained, from `init_from`: a model, or an adapter on its
    base, whose training then continues.

    Raises:
        ValueError: that adapter is not of a kind that is trained here.
    """
    if isinstance(folder, PretrainedFolder):
        return Frozen(folder)
    ((adapter, _),) = folder.adapters
    if reason := adapter.obstacle(folder.base.config) or adapter.untrained():
        raise ValueError(
            f"init_from={adapter.folder}: {reason}; the training of such an adapter cannot be "
            "continued. Merge it (python -m scripts.export folder=<it> out=<folder>) and name that "
            "folder, to train another adapter or, with lora=none, all weights"
        )
    return Frozen(folder.base, adapter)
