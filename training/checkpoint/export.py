"""A trained, possibly sharded model as an HF folder, or as a PEFT one where only an adapter was
trained."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor

from data.rows.conversations import Conversations
from data.rows.sources import AnySource
from model.device import DTYPES
from model.transformer import Mistral
from pretrained.adapter import save_adapter
from pretrained.safetensors_folder import PretrainedFolder, write_folder
from pretrained.settings import NO_SETTINGS, FolderSettings
from tokenizer.chat import end_of_turn, template_of
from tokenizer.folder import TEMPLATE
from tokenizer.tokenizer import Tokenizer
from training.checkpoint.state import state_parameters
from training.distributed import World


def export(
    model: Mistral,
    folder: Path,
    tokenizer: Tokenizer,
    dtype: str,
    world: World,
    *,
    base: PretrainedFolder | None = None,
    settings: FolderSettings = NO_SETTINGS,
    sources: Sequence[AnySource] = (),
) -> None:
    """Gather one tensor at a time and let process 0 write the folder; all processes must call it.

    A model with LoRA is written as an adapter, in fp32. An existing folder is left as it is: a
    resumed run may pass the same step again.

    Args:
        base: what an adapter was trained on.
        settings: of the folder that training started from; an adapter leaves them to its base.
        sources: training data; conversations add their chat template to the folder, and their end
            of a turn ends generation.
    """
    files: dict[str, bytes] = {}
    if any(isinstance(source, Conversations) for source in sources):
        settings = settings.ended_by(end_of_turn(tokenizer))
        if not tokenizer.templates:  # the tokenizer writes its own templates itself
            files = {TEMPLATE: template_of(tokenizer).source.encode()}
    if not world.from_main(folder.exists()):
        tensors = _full_tensors(model)
        if not world.is_main:
            for _ in tensors:
                pass
        elif model.lora is None:
            write_folder(
                folder,
                model.config,
                tensors,
                tokenizer=tokenizer,
                settings=settings,
                dtype=DTYPES[dtype],
                files=files,
            )
        else:
            assert base is not None
            save_adapter(
                folder,
                model,
                tensors,
                base=base.folder.absolute(),
                base_digest=base.digest,
                tokenizer=tokenizer,
                files=files,
            )
    world.barrier()


@torch.no_grad()
def _full_tensors(model: Mistral) -> Iterator[tuple[str, Tensor]]:
    for name, parameter in state_parameters(model):
        full = parameter.full_tensor() if isinstance(parameter, DTensor) else parameter
        yield name, full
