"""Keys of a config.json that `ModelConfig` lacks: harmless, neutral, or refused by name.

A list of forbidden names would lose against next year's architecture, so the lists below name what
passes. Of a key on no list, null passes, and so does text whose name does not speak of a part of
the network (`license`, `unsloth_version`): every number, boolean, list and object is refused.
Sources: the configuration classes of transformers 4.57 and 5.24, and published config.json files.
"""

from collections.abc import Mapping
from typing import Any

from storage.json_file import is_number, shown

# Keys that change the network of some family, with the values that change nothing in this one.
NEUTRAL: dict[str, tuple[Any, ...]] = {
    "hidden_act": ("silu", "swish"),  # two names of one function
    "attention_bias": (False,),
    "mlp_bias": (False,),
    "bias": (False,),
    "is_causal": (True,),  # null is read as false
    "partial_rotary_factor": (1, None),
    "rope_interleaved": (False, None),
    "use_mrope": (False, None),
    "is_llama_config": (True, None),
    "qk_layernorm": (False, None),
    "use_qk_norm": (False, None),
    "embedding_multiplier": (1, None),
    "residual_multiplier": (1, None),
    "logits_scaling": (1, None),
    "logit_scale": (1, None),
    "hidden_dropout": (0, None),
    "hidden_dropout_prob": (0, None),
    "attention_probs_dropout_prob": (0, None),
    "attn_pdrop": (0, None),
    "resid_pdrop": (0, None),
    "embd_pdrop": (0, None),
    "add_cross_attention": (False, None),
    "is_encoder_decoder": (False,),
    "tie_encoder_decoder": (False, None),
    "chunk_size_feed_forward": (0, None),
    "pruned_heads": ({}, None),
    "quantization_config": (None,),
    "text_config": (None,),
    "vision_config": (None,),
    "transformers_weights": (None,),  # names the file that transformers reads
}

# Read by `model.config.from_hf` itself.
_READ = {
    *("rope_parameters", "rope_scaling", "layer_types", "use_sliding_window", "max_window_layers"),
}

GENERATION_KEYS = frozenset(
    {
        *("max_length", "max_new_tokens", "min_length", "min_new_tokens", "early_stopping"),
        *("max_time", "stop_strings", "do_sample", "num_beams", "num_beam_groups", "temperature"),
        *("top_k", "top_p", "min_p", "top_h", "typical_p", "epsilon_cutoff", "eta_cutoff"),
        *("diversity_penalty", "repetition_penalty", "encoder_repetition_penalty"),
        *("length_penalty", "no_repeat_ngram_size", "encoder_no_repeat_ngram_size"),
        *("bad_words_ids", "force_words_ids", "renormalize_logits", "constraints"),
        *("forced_bos_token_id", "forced_eos_token_id", "remove_invalid_values"),
        *("exponential_decay_length_penalty", "suppress_tokens", "begin_suppress_tokens"),
        *("sequence_bias", "token_healing", "guidance_scale", "num_return_sequences"),
        *("output_scores", "output_logits", "return_dict_in_generate", "penalty_alpha"),
        *("bos_token_id", "eos_token_id", "pad_token_id", "decoder_start_token_id"),
        *(
            "use_cache",
            "cache_implementation",
            "low_memory",
            "dola_layers",
            "prompt_lookup_num_tokens",
        ),
    }
)
"""Generation settings that old folders have in config.json."""

HARMLESS = GENERATION_KEYS | frozenset(
    {
        # How a file was written, and how transformers shall run what it says.
        *("_name_or_path", "name_or_path", "_commit_hash", "architectures", "auto_map"),
        *("transformers_version", "torch_dtype", "dtype", "use_cache", "torchscript"),
        *("_attn_implementation", "_attn_implementation_autoset", "attn_implementation"),
        *("_attn_implementation_internal", "_flash_attn_2_enabled", "use_flash_attention"),
        *("_experts_implementation", "experts_implementation", "pretraining_tp"),
        *("use_bfloat16", "tf_legacy_loss", "return_dict", "use_return_dict"),
        *("output_attentions", "output_hidden_states", "transformers.js_config"),
        *("unsloth_fixed", "gradient_checkpointing", "attention_dropout"),
        # Tokens and lengths, which the tokenizer and max_position_embeddings decide.
        *("unk_token_id", "sep_token_id", "cls_token_id", "mask_token_id", "prefix"),
        *("max_sequence_length", "max_seq_len", "seq_length", "model_max_length"),
        *("tokenizer_model_max_length", "tokenizer_padding_side", "tokenizer_class"),
        # Heads for other tasks: their tensors are refused.
        *("is_decoder", "finetuning_task", "task_specific_params", "problem_type"),
        *("id2label", "label2id", "num_labels", "classifier_dropout"),
        # Training only.
        *("neftune_noise_alpha", "loss_type"),
    }
)
"""Keys without an effect on the network or on inference."""

# A text whose name holds one of these may choose another network.
_NETWORK_WORDS = (
    *("attention", "attn", "position", "rope", "rotary", "norm", "activation", "act_fn", "mlp"),
    *("ffn", "moe", "expert", "router", "layer", "weight", "quant", "head", "embed", "causal"),
    *("mask", "window", "scal", "bias"),
)


def check_other_keys(others: Mapping[str, Any]) -> None:
    """Check the keys of a config.json that `ModelConfig` lacks.

    Raises:
        ValueError: a key changes the network, or is not known, or its value is of the wrong kind.
    """
    for name, value in others.items():
        if name in NEUTRAL:
            if not any(_same(value, allowed) for allowed in NEUTRAL[name]):
                allowed = " or ".join(repr(each) for each in NEUTRAL[name] if each is not None)
                only = f", only {allowed}" if allowed else ""
                raise ValueError(f"config.json: {name}={shown(value)} is not supported{only}")
        elif name == "attention_dropout":
            if value is not None and not (is_number(value) and 0 <= value < 1):
                raise ValueError(f"config.json: {name}={shown(value)}: must be in [0, 1)")
        elif name in HARMLESS or name in _READ or value is None:
            continue
        elif not isinstance(value, str) or any(word in name.lower() for word in _NETWORK_WORDS):
            raise ValueError(
                f"config.json: {name}={shown(value)} is not supported: it changes the network, or "
                "is not known; remove the key if it does not matter"
            )


def _same(value: object, allowed: object) -> bool:
    """Equality that holds true apart from 1."""
    if is_number(value) and is_number(allowed):
        return value == allowed
    return type(value) is type(allowed) and value == allowed
