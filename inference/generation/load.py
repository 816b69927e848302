"""Opening a model for generation: engine, tokenizer and the ids that end an answer."""

from dataclasses import dataclass

from inference.generation.engine import Engine, check_decoder
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
class LoadConfig(SamplingConfig):
    """Model, device, decoder and sampling."""

    folder: str
    """HF folder, finished run or adapter folder."""
    base: str | None = None
    """HF folder of an adapter's base; null takes the path in the adapter."""
    dtype: str = "auto"
    """`float32`, `bfloat16`; `auto` is bfloat16 on CUDA, else float32."""
    device: str = "auto"
    """`auto`, `cpu` or `cuda`."""
    decoder: str = "auto"
    """Implementation of the decode step: `plain`, `cpu_onednn` or `cuda_graph`; `auto` is the fast
    one of the device, if it is available."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.seed < 0:
            raise ValueError(f"seed={self.seed}: must be at least 0")
        if self.dtype not in ("auto", *DTYPES):
            raise ValueError(f"dtype={self.dtype!r}: one of auto, {', '.join(DTYPES)}")
        check_decoder(self.decoder)


@dataclass(frozen=True)
class LoadedModel:
    """A model ready for generation.

    Attributes:
        eos_ids: ids that end an answer: the tokenizer's EOS, the end of a turn in the chat
            template, and the EOS ids in generation_config.json and config.json.
    """

    engine: Engine
    tokenizer: Tokenizer
    eos_ids: list[int]


def load_for_generation(config: LoadConfig) -> LoadedModel:
    """Open the model that a configuration names.

    Raises:
        ValueError: the folder has no model, or model and tokenizer do not belong together.
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
    engine = Engine(model, decoder=config.decoder)
    if is_adapter(folder):  # the settings are in the base folder
        folder = open_base(AdapterFolder(folder), config.base).folder
    settings = read_settings(folder).ended_by(end_of_turn(tokenizer))
    return LoadedModel(engine, tokenizer, sorted({tokenizer.eos_id, *settings.eos_ids}))
