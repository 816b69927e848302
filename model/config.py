"""The shape of the network: field names are those of HF's config.json.

`from_hf` and `to_hf` are the only places that know the file's dialects. Every key of the file is
implemented, known to be harmless (`model.config_keys`), or refused by name with its value.
"""

from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, fields
from typing import Any

from model.config_keys import check_other_keys
from storage.json_file import is_number, shown

ARCHITECTURES = {"mistral": "MistralForCausalLM", "llama": "LlamaForCausalLM"}
MOST_LAYERS = 1000
"""More than any published model has; each costs memory before any weight is read."""
_LARGEST = 2**31 - 1

_SIZES = (
    *("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers"),
    *("num_attention_heads", "num_key_value_heads", "max_position_embeddings"),
)
_OPTIONAL_SIZES = ("head_dim", "sliding_window", "num_base_ids")
_NUMBERS = ("rope_theta", "rms_norm_eps", "initializer_range")


@dataclass(kw_only=True)
class ModelConfig:
    """A decoder of the Mistral / Llama family.

    Raises:
        ValueError: a field is out of range, or two fields contradict each other.
    """

    model_type: str = "mistral"
    """`mistral`, or `llama` (the same network without a window)."""
    vocab_size: int
    """Rows of the embedding, padded rows included."""
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int | None = None
    """Width of one head; null means hidden_size / num_attention_heads."""
    sliding_window: int | None = None
    """Keys that a query sees, itself included; null means all earlier ones."""
    max_position_embeddings: int = 32768
    """Largest length of generation without a sliding window; the network has no position table."""
    rope_theta: float = 10000.0
    rms_norm_eps: float = 1e-5
    initializer_range: float = 0.02
    """Standard deviation of freshly drawn weights."""
    tie_word_embeddings: bool = False
    num_padded_ids: int = 0
    """The last rows of the vocabulary that stand for no token: they get no probability in the
    loss, can never be sampled, and are exported as `suppress_tokens`."""
    num_base_ids: int | None = None
    """First new id of a grown vocabulary; lower ids are those of the tokenizer before growth. null:
    the vocabulary was not grown."""

    def __post_init__(self) -> None:
        _check_kinds(vars(self))
        for name in (*_SIZES, *_NUMBERS):
            if getattr(self, name) <= 0:
                raise ValueError(f"model.{name}={getattr(self, name)}: must be positive")
        if self.num_hidden_layers > MOST_LAYERS:
            raise ValueError(
                f"model.num_hidden_layers={self.num_hidden_layers}: at most {MOST_LAYERS} are built"
            )
        if self.num_attention_heads % self.num_key_value_heads:
            raise ValueError(
                f"model.num_key_value_heads={self.num_key_value_heads} does not divide "
                f"model.num_attention_heads={self.num_attention_heads}"
            )
        if self.head_dim is None and self.hidden_size % self.num_attention_heads:
            raise ValueError(
                f"model.hidden_size={self.hidden_size} is not a multiple of "
                f"model.num_attention_heads={self.num_attention_heads}; give model.head_dim"
            )
        if self.head_size <= 0 or self.head_size % 2:
            raise ValueError(
                f"model.head_dim={self.head_size}: rotary embedding needs a positive even width"
            )
        if self.model_type == "llama" and self.hidden_size % self.num_attention_heads:
            raise ValueError(
                f"model.hidden_size={self.hidden_size} is not a multiple of "
                f"model.num_attention_heads={self.num_attention_heads}: HF's Llama takes no such "
                "shape; use model_type=mistral"
            )
        if self.sliding_window is not None and self.sliding_window < 1:
            raise ValueError(
                f"model.sliding_window={self.sliding_window}: the window counts the query's own "
                "key, so the least is 1; null switches it off"
            )
        if self.model_type == "llama" and self.sliding_window is not None:
            raise ValueError(
                f"model.sliding_window={self.sliding_window} with model_type=llama: HF's Llama "
                "has no window; use model_type=mistral"
            )
        if not 0 <= self.num_padded_ids < self.vocab_size:
            raise ValueError(
                f"model.num_padded_ids={self.num_padded_ids}: must be in "
                f"[0, vocab_size={self.vocab_size})"
            )
        if self.num_base_ids is not None and not 0 < self.num_base_ids <= self.num_tokens:
            raise ValueError(
                f"model.num_base_ids={self.num_base_ids}: must be in [1, {self.num_tokens}], the "
                "number of tokens; set null if the vocabulary was not grown"
            )

    @property
    def head_size(self) -> int:
        """Width of one head, given or derived."""
        if self.head_dim is None:
            return self.hidden_size // self.num_attention_heads
        return self.head_dim

    @property
    def num_tokens(self) -> int:
        """Ids that stand for a token."""
        return self.vocab_size - self.num_padded_ids

    @property
    def num_matrix_weights(self) -> int:
        """Weights that a token is multiplied with: no embedding, no norms, no padded ids."""
        heads = 2 * self.num_attention_heads + 2 * self.num_key_value_heads
        per_layer = self.hidden_size * (heads * self.head_size + 3 * self.intermediate_size)
        return self.num_hidden_layers * per_layer + self.num_tokens * self.hidden_size

    def training_flops(
        self, tokens: int, pairs: int, *, frozen_layers: bool = False, frozen_head: bool = False
    ) -> int:
        """FLOPs of one forward and backward pass, recomputation and adapters not counted.

        Args:
            tokens: tokens processed.
            pairs: (query, key) pairs inside the window and the documents, see
                `Documents.count_pairs`.
            frozen_layers: no gradients of weights inside the layers are computed.
            frozen_head: nor of the head's.
        """
        attention = 12 * self.num_hidden_layers * self.num_attention_heads * self.head_size * pairs
        head = self.num_tokens * self.hidden_size
        layers = self.num_matrix_weights - head
        per_token = (4 if frozen_head else 6) * head + (4 if frozen_layers else 6) * layers
        return per_token * tokens + attention

    def palm_flops(self, tokens: int, row_length: int) -> int:
        """PaLM's count, 6 N + 12 L H E T per token, to compare MFU with others' figures.

        N has no embedding. Each token is charged with all keys of its row, whatever causality,
        window and documents hide from it, and with gradients of all weights (Chowdhery et al. 2022,
        appendix B).
        """
        return self.training_flops(tokens, tokens * row_length)


def _check_kinds(values: Mapping[str, Any]) -> None:
    """ValueError for a value of another kind than its field, whatever file it came from."""
    kind = values["model_type"]
    if not isinstance(kind, str) or kind not in ARCHITECTURES:
        raise ValueError(
            f"model.model_type={shown(kind)}: this network is one of {', '.join(ARCHITECTURES)}"
        )
    for name in sorted(values.keys() & {*_SIZES, "num_padded_ids", *_OPTIONAL_SIZES}):
        value = values[name]
        if value is None and name in _OPTIONAL_SIZES:
            continue
        if isinstance(value, bool) or not isinstance(value, int):
            raise ValueError(f"model.{name}={shown(value)}: must be a whole number")
        if abs(value) > _LARGEST:
            raise ValueError(f"model.{name}={shown(value)}: must be below 2^31")
    for name in sorted(values.keys() & set(_NUMBERS)):
        if not is_number(values[name]):
            raise ValueError(f"model.{name}={shown(values[name])}: must be a finite number")
    tied = values.get("tie_word_embeddings", False)
    if not isinstance(tied, bool):
        raise ValueError(f"model.tie_word_embeddings={shown(tied)}: must be true or false")


def from_hf(raw: Mapping[str, Any]) -> ModelConfig:
    """Read the contents of a config.json.

    Keys that are absent take the defaults of transformers 5.

    Raises:
        ValueError: another architecture, a missing field, a value of the wrong kind, or a key that
            changes the network and is not implemented.
    """
    kind = raw.get("model_type")
    if not isinstance(kind, str) or kind not in ARCHITECTURES:
        raise ValueError(
            f"config.json: model_type={shown(kind)}; only {', '.join(ARCHITECTURES)} folders "
            "can be read"
        )
    known = {field.name for field in fields(ModelConfig)}
    check_other_keys({name: value for name, value in raw.items() if name not in known})
    values = {name: value for name, value in raw.items() if name in known}
    values["rope_theta"] = _rope_theta(raw)
    # The defaults of transformers differ between the two architectures.
    values.setdefault("rms_norm_eps", 1e-6)
    values.setdefault("max_position_embeddings", 2048 if kind == "llama" else 131072)
    if kind == "mistral":
        values.setdefault("sliding_window", 4096)
        values.setdefault("num_key_value_heads", 8)
    if values.get("num_key_value_heads") is None:
        values["num_key_value_heads"] = raw.get("num_attention_heads")
    values["sliding_window"] = _window(raw, values)
    needed = (field.name for field in fields(ModelConfig) if field.default is MISSING)
    if missing := [name for name in needed if name not in values]:
        raise ValueError(f"config.json: {', '.join(missing)} is missing")
    try:
        _check_kinds(values)
        return ModelConfig(**values)
    except ValueError as error:
        raise ValueError(f"config.json: {error}") from None


def _rope_theta(raw: Mapping[str, Any]) -> float:
    """The base of the rotary frequencies, in every dialect of the file.

    As in transformers 5 (`convert_rope_params_to_dict`), `rope_scaling` replaces `rope_parameters`
    where it is not empty, and a `rope_theta` inside wins over the one at the top level.

    Raises:
        ValueError: frequencies are scaled, or a key is not known.
    """
    rope: dict[str, Any] = {}
    where = "rope_parameters"
    for name in ("rope_parameters", "rope_scaling"):
        given = raw.get(name)
        if given is not None and not isinstance(given, dict):
            raise ValueError(f"config.json: {name}={shown(given)} is not an object or null")
        if given:
            rope, where = given, name
    types = {name: rope[name] for name in ("rope_type", "type") if name in rope}
    for name, value in types.items():
        if value != "default":
            raise ValueError(
                f"config.json: {where}.{name}={shown(value)} is not supported, only 'default' "
                "(no scaling)"
            )
    for name, value in rope.items():
        neutral = name == "partial_rotary_factor" and is_number(value) and value == 1
        if name not in ("rope_type", "type", "rope_theta") and not neutral:
            raise ValueError(
                f"config.json: {where}.{name}={shown(value)} is not supported, only a "
                "rope_theta and the rope_type 'default'"
            )
    theta = rope.get("rope_theta", raw.get("rope_theta", 10000.0))
    if not is_number(theta) or theta <= 0:
        raise ValueError(
            f"config.json: rope_theta={shown(theta)}: must be a positive, finite number"
        )
    return float(theta)


def _window(raw: Mapping[str, Any], values: Mapping[str, Any]) -> Any:
    """The window of every layer; ValueError where the file asks for windows in some layers only.

    transformers reads a `mistral` folder with `layer_types` as `ministral`: a layer of full
    attention then has no window, whatever `sliding_window` says. Under `llama` transformers reads
    neither key, so only what changes nothing is taken.
    """
    window, layers = values.get("sliding_window"), values.get("num_hidden_layers")
    llama = raw["model_type"] == "llama"
    positions = values["max_position_embeddings"]
    if llama and window is not None:
        if not (is_number(window) and is_number(positions) and window >= positions):
            raise ValueError(
                f"config.json: sliding_window={shown(window)} with model_type='llama' is not "
                "supported: transformers ignores it there; set it to null, or model_type to "
                "'mistral'"
            )
        window = None
    types = raw.get("layer_types")
    if types is not None:
        kinds = set(types) if isinstance(types, list) and all(map(_is_text, types)) else set()
        full, sliding = kinds == {"full_attention"}, kinds == {"sliding_attention"}
        if not (full or (sliding and window is not None)) or len(types) != layers:
            raise ValueError(
                f"config.json: layer_types={shown(types)} is not supported, only one kind of "
                "attention in all layers: 'sliding_attention' with a sliding_window, or "
                "'full_attention'"
            )
        window = None if full else window
    used = raw.get("use_sliding_window")
    if used is not None and used is not (window is not None):
        raise ValueError(
            f"config.json: use_sliding_window={shown(used)} with sliding_window="
            f"{shown(raw.get('sliding_window'))} is not supported: transformers ignores the "
            "former key here; set sliding_window to what is meant, and remove it"
        )
    first = raw.get("max_window_layers")
    if first is not None and window is not None and not (is_number(first) and first == 0):
        raise ValueError(
            f"config.json: max_window_layers={shown(first)} is not supported: all layers have "
            "the same window; remove it if that is meant"
        )
    return window


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def to_hf(
    config: ModelConfig, *, kept: Mapping[str, Any] | None = None, **extra: Any
) -> dict[str, Any]:
    """Contents of a config.json with the same meaning in transformers 4 and 5.

    Args:
        kept: keys of the folder that the weights come from, which say nothing of the network.
        extra: entries that the network does not know (dtype, bos_token_id, ...).
    """
    raw = asdict(config)
    raw["architectures"] = [ARCHITECTURES[config.model_type]]
    raw["head_dim"] = config.head_size
    raw["hidden_act"] = "silu"
    raw["rope_parameters"] = {"rope_type": "default", "rope_theta": config.rope_theta}
    if config.model_type == "llama":
        del raw["sliding_window"]
    return dict(kept or {}) | raw | extra


def kept_keys(raw: Mapping[str, Any]) -> dict[str, Any]:
    """The keys of a config.json that say nothing of the network and are written again."""
    ours = {field.name for field in fields(ModelConfig)} | _WRITTEN_ANEW
    return {name: value for name, value in raw.items() if name not in ours}


# What `to_hf` and its callers write themselves, in whatever dialect the file has said it.
_WRITTEN_ANEW = {
    *("architectures", "hidden_act", "rope_parameters", "rope_scaling", "partial_rotary_factor"),
    *("layer_types", "use_sliding_window", "max_window_layers", "dtype", "torch_dtype"),
}
