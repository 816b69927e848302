"""A trained, possibly sharded model as an HF folder."""

from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor

from model.transformer import Mistral
from model.weights import SavedTokenizer, write_folder
from training.distributed import World
from training.parallelize import DTYPES, clean_named_parameters


def export(
    model: Mistral, folder: Path, tokenizer: SavedTokenizer, dtype: str, world: World
) -> None:
    """Gather one tensor at a time and let process 0 write the folder; all processes must call it.

    An existing folder is left as it is: a resumed run may pass the same step again.
    """
    if not world.from_main(folder.exists()):
        tensors = _full_tensors(model)
        if world.is_main:
            write_folder(folder, model.config, tensors, tokenizer=tokenizer, dtype=DTYPES[dtype])
        else:
            for _ in tensors:
                pass
    world.barrier()


@torch.no_grad()
def _full_tensors(model: Mistral) -> Iterator[tuple[str, Tensor]]:
    for name, parameter in clean_named_parameters(model):
        full = parameter.full_tensor() if isinstance(parameter, DTensor) else parameter
        yield name, full
