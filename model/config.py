"""The shape of the network: field names are those of HF's config.json.

`from_hf` and `to_hf` are the only places that know the file's dialects (rope_theta at the top
level or inside rope_parameters). What the network does not implement is refused by name.
"""

from dataclasses import asdict, dataclass, fields
from typing import Any

ARCHITECTURES = {"mistral": "MistralForCausalLM", "llama": "LlamaForCausalLM"}


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
    """Where generation stops without a sliding window; the network has no table of positions."""
    rope_theta: float = 10000.0
    rms_norm_eps: float = 1e-5
    initializer_range: float = 0.02
    """Standard deviation of freshly drawn weights."""
    tie_word_embeddings: bool = False
    num_padded_ids: int = 0
    """The last rows of the vocabulary that stand for no token: they get no probability in the
    loss, can never be sampled, and are exported as `suppress_tokens`."""
    num_base_ids: int | None = None
    """Where the vocabulary was grown: ids below are those of the tokenizer that it was grown from,
    ids from here on are new. null: it was not grown."""

    def __post_init__(self) -> None:
        for name in (
            *("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers"),
            *("num_attention_heads", "num_key_value_heads", "max_position_embeddings"),
            *("rope_theta", "rms_norm_eps", "initializer_range"),
        ):
            if getattr(self, name) <= 0:
                raise ValueError(f"model.{name}={getattr(self, name)}: must be positive")
        if self.model_type not in ARCHITECTURES:
            raise ValueError(
                f"model.model_type={self.model_type!r}: this network is one of "
                f"{', '.join(ARCHITECTURES)}"
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
                f"model.num_padded_ids={self.num_padded_ids}: must lie in "
                f"[0, vocab_size={self.vocab_size})"
            )
        if self.num_base_ids is not None and not 0 < self.num_base_ids <= self.num_tokens:
            raise ValueError(
                f"model.num_base_ids={self.num_base_ids}: must lie in [1, {self.num_tokens}], the "
                "ids that stand for a token; null if the vocabulary was not grown"
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

    def customary_training_flops(self, tokens: int, row_length: int) -> int:
        """The customary count, 6 N + 12 L H E T per token, to compare MFU with others' figures.

        N has no embedding. Each token is charged with all keys of its row, whatever causality,
        window and documents hide from it, and with gradients of all weights (Chowdhery et al. 2022,
        appendix B).
        """
        return self.training_flops(tokens, tokens * row_length)


# Options of HF's Mistral and Llama that change the network, with the one value we implement.
_ONLY = {
    "hidden_act": "silu",
    "attention_bias": False,
    "mlp_bias": False,
    "attention_dropout": 0.0,
    "rope_scaling": None,
    "quantization_config": None,
}


def from_hf(raw: dict[str, Any]) -> ModelConfig:
    """Read the contents of a config.json.

    Raises:
        ValueError: another architecture, a missing field, or an option we do not implement.
    """
    if raw.get("model_type") not in ARCHITECTURES:
        raise ValueError(
            f"config.json: model_type={raw.get('model_type')!r}; only "
            f"{', '.join(ARCHITECTURES)} folders can be read"
        )
    for name, value in _ONLY.items():
        if raw.get(name, value) != value:
            raise ValueError(f"config.json: {name}={raw[name]!r} is not supported, only {value!r}")
    rope = raw.get("rope_parameters") or {}
    if rope.get("rope_type", "default") != "default":
        raise ValueError(
            f"config.json: rope_parameters.rope_type={rope['rope_type']!r} is not supported, "
            "only 'default' (no scaling)"
        )
    known = {field.name for field in fields(ModelConfig)}
    values = {name: value for name, value in raw.items() if name in known}
    values["rope_theta"] = float(rope.get("rope_theta", raw.get("rope_theta", 10000.0)))
    # HF's defaults, where a file leaves them out, differ between the two architectures.
    values.setdefault("rms_norm_eps", 1e-6)
    values.setdefault("max_position_embeddings", 2048 if raw["model_type"] == "llama" else 131072)
    if raw["model_type"] == "mistral":
        values.setdefault("sliding_window", 4096)
        values.setdefault("num_key_value_heads", 8)
    else:
        values.pop("sliding_window", None)
    if values.get("num_key_value_heads") is None:
        values["num_key_value_heads"] = raw.get("num_attention_heads")
    try:
        return ModelConfig(**values)
    except TypeError as error:
        raise ValueError(f"config.json: {error}") from None


def to_hf(config: ModelConfig, **extra: Any) -> dict[str, Any]:
    """The contents of a config.json that transformers 4 and 5 read alike.

    Args:
        extra: entries that the network does not know (dtype, bos_token_id, ...).
    """
    raw = asdict(config)
    raw["architectures"] = [ARCHITECTURES[config.model_type]]
    raw["head_dim"] = config.head_size
    raw["hidden_act"] = _ONLY["hidden_act"]
    raw["rope_parameters"] = {"rope_type": "default", "rope_theta": config.rope_theta}
    if config.model_type == "llama":
        del raw["sliding_window"]
    return raw | extra
