"""General loss of weights before they are written: bits per byte of general held-out text.

One process has the network in memory once, in fp32. The loss equals that of the written folder.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor

from data.rows.shards import Source
from data.rows.sources import open_source
from model.attention import resolve_backend
from model.device import DTYPES, choose_device
from model.transformer import Mistral
from model.weights import fill
from pretrained.merged import Folder
from tokenizer.folder import check_rows
from tokenizer.tokenizer import Tokenizer
from tools.merging.arithmetic import ChatVector, TaskArithmetic
from training.distributed import World, start_world
from training.evaluate import EvaluationConfig, build_set, evaluate

_ROW_LENGTH = 512
_MICRO_BATCH_ROWS = 4


@dataclass(kw_only=True)
class GeneralLossConfig:
    """General text on which the loss is measured."""

    general: list[str] = field(default_factory=list)
    """Prepared sources whose held-out text is measured; the general loss is the mean over them.
    Paths are relative to `root`."""
    root: str = "."
    """Folder that contains the sources of `general`."""
    chunk_bytes: int = 240
    """UTF-8 bytes per piece of held-out text, as in `evaluation.chunk_bytes` of a run."""
    max_bytes: int = 100_000
    """UTF-8 bytes of held-out text per source, from its beginning."""
    device: str = "auto"
    """Device that computes the loss, in fp32: auto, cpu or cuda."""

    def __post_init__(self) -> None:
        for name in ("chunk_bytes", "max_bytes"):
            if getattr(self, name) < 4:
                raise ValueError(f"{name}={getattr(self, name)}: must be at least 4")
        if len(set(self.general)) < len(self.general):
            raise ValueError(f"general={self.general}: a source is named twice; name it once")


@dataclass(frozen=True)
class GeneralLoss:
    """Bits per byte of each source."""

    bits_per_byte: dict[str, float]

    @property
    def mean(self) -> float:
        """The plain mean over the sources."""
        return sum(self.bits_per_byte.values()) / len(self.bits_per_byte)

    def __str__(self) -> str:
        sets = ", ".join(f"{name} {bits:.4f}" for name, bits in self.bits_per_byte.items())
        return f"{self.mean:.4f} ({sets})"


class AsWritten:
    """Weights rounded to the dtypes in which a folder stores them.

    Args:
        dtype: `stored` (each tensor in the dtype of `weights`) or a key of `DTYPES`.
    """

    def __init__(self, weights: Folder | ChatVector | TaskArithmetic, dtype: str) -> None:
        self._weights, self._dtype = weights, dtype

    def dtype(self, name: str) -> torch.dtype:
        """Dtype in which a tensor is written."""
        return self._weights.dtype(name) if self._dtype == "stored" else DTYPES[self._dtype]

    def read(self, name: str, rows: slice) -> Tensor:
        """Rows of one tensor, rounded to that dtype."""
        return self._weights.read(name, rows).to(self.dtype(name))


Measure = Callable[[str, Folder | TaskArithmetic, Tokenizer, str], GeneralLoss]
"""(name for messages, weights, tokenizer, dtype as in `AsWritten`) -> loss."""


@contextmanager
def general_loss(config: GeneralLossConfig) -> Iterator[Measure]:
    """Open the text and return a function that measures weights on it.

    Raises:
        ValueError: a source or the device does not exist. The function raises it for a loss that
            is not finite.
    """
    sources = _open_general(config)
    choose_device(config.device, local_rank=0)
    with start_world(config.device) as world:

        def measure(
            name: str, weights: Folder | TaskArithmetic, tokenizer: Tokenizer, dtype: str
        ) -> GeneralLoss:
            model = _network(weights, tokenizer, dtype, world)
            loss = _measure(model, sources, tokenizer, config, world)
            if not math.isfinite(loss.mean):
                raise ValueError(f"{name}: the general loss is {loss}; check the weights")
            return loss

        yield measure


def _open_general(config: GeneralLossConfig) -> dict[str, Source]:
    """The sources; ValueError if one is absent, has conversations or no held-out documents."""
    sources = {}
    for path in config.general:
        folder = Path(config.root) / path
        if not folder.is_dir():
            raise ValueError(f"general={path}: no folder {folder}; set root=<its parent>")
        try:
            source = open_source(folder)
        except ValueError as error:
            raise ValueError(f"general={path}: {error}") from None
        if not isinstance(source, Source):
            raise ValueError(f"general={path} contains conversations; name sources of documents")
        if not source.held_out_documents:
            raise ValueError(
                f"general={path} has no held-out documents; prepare it with a larger "
                "held_out_fraction"
            )
        sources[path] = source
    return sources


def _network(
    weights: Folder | TaskArithmetic, tokenizer: Tokenizer, dtype: str, world: World
) -> Mistral:
    shape = weights.config
    check_rows(weights.folder, tokenizer.vocab_size, shape.vocab_size)
    # Ids that the tokenizer lacks get probability 0, as in training.
    padded = max(shape.num_padded_ids, shape.vocab_size - tokenizer.vocab_size)
    backend = resolve_backend("auto", world.device, torch.float32, shape.head_size)
    with torch.device("meta"):
        model = Mistral(replace(shape, num_padded_ids=padded, num_base_ids=None), backend=backend)
    model.float().to_empty(device=world.device).tie_weights()
    fill(model, AsWritten(weights, dtype))
    return model


def _measure(
    model: Mistral,
    sources: dict[str, Source],
    tokenizer: Tokenizer,
    config: GeneralLossConfig,
    world: World,
) -> GeneralLoss:
    settings = EvaluationConfig(chunk_bytes=config.chunk_bytes, max_bytes=config.max_bytes)
    row_length = max(_ROW_LENGTH, config.chunk_bytes + 3)  # no piece has more tokens
    sets = [
        build_set(name, source.held_out(), tokenizer, settings, row_length)
        for name, source in sources.items()
    ]
    results = evaluate(
        model, sets, row_length=row_length, micro_batch_rows=_MICRO_BATCH_ROWS, world=world
    )
    return GeneralLoss({name: result["bits_per_byte"] for name, result in results.items()})
