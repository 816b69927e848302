"""Open a network in one process and its tokenizer, from any kind of model folder."""

import hashlib
from pathlib import Path

import torch

from model.attention import resolve_backend
from model.device import keep_freed_memory
from model.transformer import Mistral
from pretrained.adapter import AdapterFolder, load_adapter
from pretrained.adapter_config import is_adapter
from pretrained.folder import final_folder, open_base, own_tokenizer
from pretrained.merged import MergedAdapters
from pretrained.safetensors_folder import (
    NetworkSource,
    PretrainedFolder,
    load_network,
    telling_rows,
)
from tokenizer.folder import JSON, MODEL, check_rows, read_templates
from tokenizer.tokenizer import Tokenizer


def open_model(
    path: Path | str,
    dtype: torch.dtype,
    device: torch.device | str,
    *,
    base: Path | str | None = None,
) -> tuple[Mistral, Tokenizer]:
    """Load an HF folder, a finished run or an adapter folder; an adapter is applied without merging
    where the network can hold it so (`AdapterFolder.obstacle`).

    Args:
        base: base of an adapter, if it is not at the path in the adapter's settings.

    Raises:
        ValueError: something does not exist, or does not fit.
    """
    folder = final_folder(path)
    if not is_adapter(folder):
        model = _load(PretrainedFolder(folder), dtype, device)
        return _checked(model, open_tokenizer_of([folder]), folder)
    adapter = AdapterFolder(folder)
    source = open_base(adapter, base)
    if adapter.obstacle(source.config) is None:
        model = _load(source, dtype, device)
        load_adapter(model, adapter, source)
    else:
        merged = MergedAdapters(source, [(adapter, 1.0)])
        model = _load(merged, dtype, device)
        model.merged_digest = merged.digest
    return _checked(model, open_tokenizer_of([folder, source.folder]), folder)


def _load(source: NetworkSource, dtype: torch.dtype, device: torch.device | str) -> Mistral:
    """The network, with the attention that suits the device."""
    backend = resolve_backend("auto", torch.device(device), dtype, source.config.head_size)
    if torch.device(device).type == "cpu":
        keep_freed_memory()
    return load_network(source, dtype=dtype, device=device, backend=backend)


def open_tokenizer_of(folders: list[Path]) -> Tokenizer:
    """The tokenizer in the first of some folders that has one, with the first chat templates.

    Raises:
        ValueError: none has a tokenizer that can be read.
    """
    for folder in folders:
        if (tokenizer := own_tokenizer(folder)) is not None:
            templates = next(filter(None, map(read_templates, folders)), {})
            same = templates == tokenizer.templates
            return tokenizer if same else tokenizer.with_templates(templates)
    raise ValueError(
        f"no tokenizer in {', '.join(map(str, dict.fromkeys(folders)))}; copy the {MODEL} or the "
        f"{JSON} of the model there (tekken.json is not read)"
    )


def _checked(model: Mistral, tokenizer: Tokenizer, folder: Path) -> tuple[Mistral, Tokenizer]:
    """Ids that the tokenizer does not have become padding, which is never sampled."""
    shape = model.config
    check_rows(folder, tokenizer.vocab_size, shape.vocab_size)
    shape.num_padded_ids = max(shape.num_padded_ids, shape.vocab_size - tokenizer.vocab_size)
    return model, tokenizer


def model_digest(model: Mistral) -> str:
    """sha256 over some rows of every tensor, which differs between models.

    A network that was merged as it was loaded has the digest of what was merged: its weights are
    sums of products, whose last bits depend on the processor.
    """
    if model.merged_digest is not None:
        return model.merged_digest
    digest = hashlib.sha256()
    for name, parameter in model.named_parameters():
        rows = parameter.detach()[telling_rows(len(parameter), model.config)].float().cpu()
        digest.update(f"{name} {tuple(parameter.shape)}".encode())
        digest.update(rows.contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
