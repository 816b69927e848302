"""Mistral: a pre-norm decoder with grouped-query attention, rotary positions and SwiGLU.

Parameter names are those of HF, so that reading and writing folders needs no translation.
Dims: B rows, T tokens, D model, H query heads, K key heads, E head width, V ids.
Jiang et al. 2023 (Mistral 7B), section 2.
"""

from typing import overload

from jaxtyping import Float, Int
from torch import Tensor, nn

from model import ops
from model.attention import AttentionContext, PackedContext
from model.config import ModelConfig
from model.documents import Documents
from model.lora.layer import LoraConfig
from model.loss import Losses, linear_cross_entropy
from model.norm import RMSNorm
from model.rotary import Rotary, rotary_angles


class Attention(nn.Module):
    """Grouped-query attention to the keys of a context."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.head_size = config.head_size
        queries = config.num_attention_heads * self.head_size
        keys = config.num_key_value_heads * self.head_size
        self.q_proj = nn.Linear(config.hidden_size, queries, bias=False)
        self.k_proj = nn.Linear(config.hidden_size, keys, bias=False)
        self.v_proj = nn.Linear(config.hidden_size, keys, bias=False)
        self.o_proj = nn.Linear(queries, config.hidden_size, bias=False)

    def forward(
        self, x: Float[Tensor, "B T D"], rotary: Rotary, context: AttentionContext
    ) -> Float[Tensor, "B T D"]:
        projected = ops.project(x, self.q_proj, self.k_proj, self.v_proj)
        # (B, T, H, E), (B, T, K, E) twice
        query, key, value = (each.unflatten(-1, (-1, self.head_size)) for each in projected)
        query, key = ops.rotate(query, key, rotary)
        mixed = context.mix(query, key, value)
        return ops.project(mixed.flatten(-2), self.o_proj)[0]


class MLP(nn.Module):
    """SwiGLU feed-forward (Shazeer 2020)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.up_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.down_proj = nn.Linear(config.intermediate_size, config.hidden_size, bias=False)

    def forward(self, x: Float[Tensor, "B T D"]) -> Float[Tensor, "B T D"]:
        return ops.feed_forward(x, self.gate_proj, self.up_proj, self.down_proj)


class Block(nn.Module):
    """One decoder layer; the unit of checkpointing, compilation and sharding."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.self_attn = Attention(config)
        self.mlp = MLP(config)
        self.input_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.post_attention_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)

    def forward(
        self, x: Float[Tensor, "B T D"], rotary: Rotary, context: AttentionContext
    ) -> Float[Tensor, "B T D"]:
        mixed = self.self_attn(self.input_layernorm(x), rotary, context)
        normed, x = ops.add_rms_norm(mixed, x, self.post_attention_layernorm)
        return x + self.mlp(normed)


class Decoder(nn.Module):
    """Embedding, layers and final norm: the module that HF calls `model`."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(Block(config) for _ in range(config.num_hidden_layers))
        self.norm = RMSNorm(config.hidden_size, config.rms_norm_eps)

    def forward(
        self, tokens: Int[Tensor, "B T"], rotary: Rotary, context: AttentionContext
    ) -> Float[Tensor, "B T D"]:
        x = self.embed_tokens(tokens)
        for layer in self.layers:
            x = layer(x, rotary, context)
        return self.norm(x)


class Mistral(nn.Module):
    """The whole network.

    Args:
        config: shape of the network.
        backend: attention backend of packed rows, see `model.attention`.

    Attributes:
        lora: settings of the adapter, set by `model.adapters.add_lora`.
        merged_digest: digest of the weights, set where an adapter is merged while they are loaded.
    """

    def __init__(self, config: ModelConfig, *, backend: str = "banded") -> None:
        super().__init__()
        self.config = config
        self.backend = backend
        self.lora: LoraConfig | None = None
        self.merged_digest: str | None = None
        self.model = Decoder(config)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.tie_weights()

    def tie_weights(self) -> None:
        """Use the embedding as the head if `tie_word_embeddings`; call again after `to_empty`."""
        if self.config.tie_word_embeddings:
            self.lm_head.weight = self.model.embed_tokens.weight

    @overload
    def forward(
        self,
        tokens: Tensor,
        *,
        documents: Documents | None = None,
        labels: None = None,
        context: AttentionContext | None = None,
        logits_to_keep: int | Tensor | None = None,
    ) -> Tensor: ...
    @overload
    def forward(
        self,
        tokens: Tensor,
        *,
        documents: Documents | None = None,
        labels: Tensor,
        supervised: int | None = None,
    ) -> Losses: ...
    def forward(
        self,
        tokens: Int[Tensor, "B T"],
        *,
        documents: Documents | None = None,
        labels: Int[Tensor, "B T"] | None = None,
        supervised: int | None = None,
        context: AttentionContext | None = None,
        logits_to_keep: int | Int[Tensor, " N"] | None = None,
    ) -> Float[Tensor, "B N V"] | Losses:
        """Raw logits, or the summed loss if labels are given.

        Args:
            documents: documents of packed rows; None: one document per row.
            labels: the id that each position should predict; `IGNORE_INDEX` is not supervised. The
                loss is computed here and not by the caller, so that it is inside FSDP's forward.
            supervised: number of supervised labels, so that the host does not wait for the device.
            context: the keys that the tokens attend to, in place of `documents`; decoding passes a
                KV cache here.
            logits_to_keep: the last tokens (a number) or places in each row (a tensor) whose logits
                are computed, as in transformers; None: all T.
        """
        if context is None:
            if documents is None:
                rows, length = tokens.shape
                documents = Documents.whole_rows(rows, length, tokens.device)
            context = PackedContext.of(documents, self.config.sliding_window, self.backend)
        rotary = rotary_angles(context.positions, self.config.head_size, self.config.rope_theta)
        hidden = self.model(tokens, rotary, context)
        if labels is not None:
            num_tokens = self.config.num_tokens
            return linear_cross_entropy(hidden, self.lm_head.weight, labels, num_tokens, supervised)
        if isinstance(logits_to_keep, int):
            hidden = hidden[:, -logits_to_keep:]
        elif logits_to_keep is not None:
            hidden = hidden[:, logits_to_keep]
        return self.lm_head(hidden)
