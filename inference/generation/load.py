"""A model opened to speak: what generates, its tokenizer, and what ends its answers."""

from dataclasses import dataclass

from inference.generation.engine import Runner
from inference.generation.sampling import SamplingConfig
from model.device import DTYPES, choose_device, compute_dtype
from pretrained.adapter import AdapterFolder
from pretrained.adapter_config import is_adapter
from pretrained.folder import final_folder, open_base
from pretrained.load import open_model
from pretrained.settings import read_settings
from tokenizer.chat import end_of_turn
from tokenizer.tokenizer import Tokenizer


@dataclass(kw_only=True)
class SpeakerConfig(SamplingConfig):
    """Which model speaks, on what, and how it samples."""

    folder: str
    """HF folder, finished run or adapter folder."""
    base: str | None = None
    """HF folder of an adapter's base; null takes the path in the adapter."""
    dtype: str = "auto"
    """`float32`, `bfloat16`; `auto` is bfloat16 on CUDA, else float32."""
    device: str = "auto"
    """`auto`, `cpu` or `cuda`."""
    pack: bool | None = None
    """Decode with a copy of the weights that a CPU reads faster; null: where it helps."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.seed < 0:
            raise ValueError(f"seed={self.seed}: must be at least 0")
        if self.dtype not in ("auto", *DTYPES):
            raise ValueError(f"dtype={self.dtype!r}: one of auto, {', '.join(DTYPES)}")


@dataclass(frozen=True)
class Speaker:
    """What `open_speaker` returns.

    Attributes:
        eos_ids: the tokenizer's EOS, what ends an answer in the chat template, and what
            generation_config.json and config.json name.
    """

    runner: Runner
    tokenizer: Tokenizer
    eos_ids: list[int]


def open_speaker(config: SpeakerConfig) -> Speaker:
    """Open the model of a configuration.

    Raises:
        ValueError: there is no model, or its parts do not fit together.
    """
    device = choose_device(config.device, 0)
    folder = final_folder(config.folder)
    if not folder.is_dir():
        raise ValueError(
            f"folder={config.folder}: no such folder; name an HF folder, a run or an adapter"
        )
    dtype = compute_dtype(config.dtype, device)
    model, tokenizer = open_model(config.folder, dtype, device, base=config.base)
    model.requires_grad_(False)
    runner = Runner(model, pack=config.pack)
    if is_adapter(folder):  # an adapter has no settings of its own
        folder = open_base(AdapterFolder(folder), config.base).folder
    settings = read_settings(folder).ended_by(end_of_turn(tokenizer))
    return Speaker(runner, tokenizer, sorted({tokenizer.eos_id, *settings.eos_ids}))
