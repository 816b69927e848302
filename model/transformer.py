"""Mistral: a pre-norm decoder with grouped-query attention, rotary positions and SwiGLU.

Parameter names are HF's, so that reading and writing folders is I/O and not translation.
Dims: B rows, T tokens, D model, H query heads, K key heads, E head width, F feed-forward, V ids.
Jiang et al. 2023 (Mistral 7B), section 2.
"""

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, overload

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from inference.generation.cache.cache import Cache, Step
from kernels.add_rms_norm import add_rms_norm
from kernels.launch import chosen
from kernels.rope import rope
from kernels.swiglu import swiglu
from model.adapted import feed_forward, joined_feed_forward, project
from model.attention import attention, prepare_documents
from model.config import ModelConfig
from model.documents import Documents
from model.loss import Losses, linear_cross_entropy
from model.norm import RMSNorm
from model.rotary import Rotary, rotary_angles, rotate

if TYPE_CHECKING:
    from model.lora import LoraConfig


Attend = Callable[[Tensor, Tensor, Tensor], Tensor]
"""Attention of one layer to what a cache holds and to the pass's own tokens."""


class Attention(nn.Module):
    """Grouped-query attention inside documents and window."""

    def __init__(self, config: ModelConfig, backend: str) -> None:
        super().__init__()
        self.head_size = config.head_size
        self.window = config.sliding_window
        self.backend = backend
        queries = config.num_attention_heads * self.head_size
        keys = config.num_key_value_heads * self.head_size
        self.q_proj = nn.Linear(config.hidden_size, queries, bias=False)
        self.k_proj = nn.Linear(config.hidden_size, keys, bias=False)
        self.v_proj = nn.Linear(config.hidden_size, keys, bias=False)
        self.o_proj = nn.Linear(queries, config.hidden_size, bias=False)

    def forward(
        self,
        x: Float[Tensor, "B T D"],
        rotary: Rotary,
        documents: Documents | None,
        attend: Attend | None = None,
        last: Int[Tensor, " N"] | None = None,
    ) -> Float[Tensor, "B T D"] | Float[Tensor, "N 1 D"]:
        angles = rotary
        if last is None:
            projected = project(x, self.q_proj, self.k_proj, self.v_proj)
        else:
            asking, angles = _rows_at(x, last), Rotary(*(_rows_at(each, last) for each in rotary))
            projected = self.q_proj(asking), self.k_proj(x), self.v_proj(x)
        # (B, T, H, E), (B, T, K, E) twice
        query, key, value = (each.unflatten(-1, (-1, self.head_size)) for each in projected)
        if last is None and chosen(x):
            query, key = rope(query, key, *rotary)
        else:
            query, key = rotate(query, angles), rotate(key, rotary)
        if attend is not None:
            mixed = attend(query, key, value)
        else:
            assert documents is not None
            options = {"window": self.window, "backend": self.backend}
            mixed = attention(query, key, value, documents, **options)
        return project(mixed.flatten(-2), self.o_proj)[0]


class MLP(nn.Module):
    """SwiGLU: down(silu(gate(x)) * up(x)) (Shazeer 2020)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.up_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.down_proj = nn.Linear(config.intermediate_size, config.hidden_size, bias=False)

    def forward(self, x: Float[Tensor, "B T D"]) -> Float[Tensor, "B T D"]:
        if adapted := joined_feed_forward(x, self.gate_proj, self.up_proj, self.down_proj):
            return feed_forward(x, adapted)
        gate, up = project(x, self.gate_proj, self.up_proj)
        if chosen(x):
            product = swiglu(gate, up)
        elif torch.is_grad_enabled():
            product = F.silu(gate) * up
        else:
            product = F.silu(gate, inplace=True).mul_(up)  # two large tensors less
        return project(product, self.down_proj)[0]


class Block(nn.Module):
    """One decoder layer; the unit of checkpointing, compilation and sharding."""

    def __init__(self, config: ModelConfig, backend: str) -> None:
        super().__init__()
        self.self_attn = Attention(config, backend)
        self.mlp = MLP(config)
        self.input_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.post_attention_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)

    def forward(
        self,
        x: Float[Tensor, "B T D"],
        rotary: Rotary,
        documents: Documents | None,
        attend: Attend | None = None,
        last: Int[Tensor, " N"] | None = None,
    ) -> Float[Tensor, "B T D"] | Float[Tensor, "N 1 D"]:
        """The layer's output.

        Args:
            last: the only tokens, in the flattened rows, whose output is asked for; `attend` gets
                keys and values of all.
        """
        mixed = self.self_attn(self.input_layernorm(x), rotary, documents, attend, last)
        x, norm = x if last is None else _rows_at(x, last), self.post_attention_layernorm
        if chosen(x):
            h, x = add_rms_norm(mixed, x, norm.weight, norm.eps)
        else:
            x = x + mixed
            h = norm(x)
        return x + self.mlp(h)


class Decoder(nn.Module):
    """Embedding, layers and final norm: what HF calls `model`."""

    def __init__(self, config: ModelConfig, backend: str) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(Block(config, backend) for _ in range(config.num_hidden_layers))
        self.norm = RMSNorm(config.hidden_size, config.rms_norm_eps)

    def forward(
        self,
        tokens: Int[Tensor, "B T"],
        rotary: Rotary,
        documents: Documents | None,
        step: Step | None = None,
    ) -> Float[Tensor, "B T D"] | Float[Tensor, "N 1 D"]:
        x = self.embed_tokens(tokens)
        for number, layer in enumerate(self.layers):
            if step is None:
                x = layer(x, rotary, documents)
            else:
                if (kept := step.narrow(len(self.layers) - number)) is not None:
                    x = _rows_at(x, kept).transpose(0, 1)
                    rotary = Rotary(*(_rows_at(each, kept).transpose(0, 1) for each in rotary))
                # No later layer looks at what the final one makes of the other tokens.
                last = step.last if number == len(self.layers) - 1 else None
                x = layer(x, rotary, None, partial(step.attend, number), last)
        return self.norm(x)


def _rows_at(x: Tensor, index: Tensor) -> Tensor:
    """(B, T, ...) -> (N, 1, ...): what lies at these places of the flattened rows."""
    return x.flatten(0, 1)[index, None]


class Mistral(nn.Module):
    """The whole network.

    Args:
        config: its shape.
        backend: how attention is computed, see `model.attention`.
    """

    def __init__(self, config: ModelConfig, *, backend: str = "banded") -> None:
        super().__init__()
        self.config = config
        self.backend = backend
        self.lora: LoraConfig | None = None  # model.lora.add_lora sets it
        self.merged_digest: str | None = None  # set where weights are merged as they are loaded
        self.model = Decoder(config, backend)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.tie_weights()

    def tie_weights(self) -> None:
        """Let the head be the embedding, if the config says so; again after `to_empty`."""
        if self.config.tie_word_embeddings:
            self.lm_head.weight = self.model.embed_tokens.weight

    @overload
    def forward(
        self,
        tokens: Tensor,
        *,
        documents: Documents | None = None,
        labels: None = None,
        cache: Cache | None = None,
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
        cache: Cache | None = None,
    ) -> Float[Tensor, "B T V"] | Float[Tensor, "N 1 V"] | Losses:
        """Raw logits, or the summed loss if labels are given.

        Args:
            documents: where documents lie in the rows; None means one document per row.
            labels: the id that each position should predict; -100 is not supervised. The loss is
                computed here and not by the caller, so that it lies inside FSDP's forward.
            supervised: how many labels are not -100, so that the host need not ask the device.
            cache: what came before; the tokens, one document or row per sequence, go on from it
                and are added to it. The logits (N, 1, V) are those of each sequence's last token.
        """
        if cache is not None:
            assert labels is None, "a cache is for generating"
            return self._continue(tokens, documents, cache)
        if documents is None:
            rows, length = tokens.shape
            documents = Documents.whole_rows(rows, length, tokens.device)
        documents = prepare_documents(documents, self.config.sliding_window, self.backend)
        rotary = rotary_angles(documents.positions, self.config.head_size, self.config.rope_theta)
        hidden = self.model(tokens, rotary, documents)
        if labels is None:
            return self.lm_head(hidden)
        num_tokens = self.config.num_tokens
        return linear_cross_entropy(hidden, self.lm_head.weight, labels, num_tokens, supervised)

    def _continue(self, tokens: Tensor, documents: Documents | None, cache: Cache) -> Tensor:
        step = cache.begin(tokens, documents, self.backend)
        rotary = rotary_angles(step.positions, self.config.head_size, self.config.rope_theta)
        hidden = self.model(tokens, rotary, None, step)
        step.finish()
        return self.lm_head(hidden)
