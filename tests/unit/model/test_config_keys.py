"""Every key of a config.json: equal to transformers, or refused with its name."""

import json

import pytest

from model.config import from_hf
from tests.helpers.folders import FAMILIES, hf_folder, is_equal, put_json

FULL, SLIDING = "full_attention", "sliding_attention"
DROP = object()

# What a file says besides the network; transformers opens each, and so do we, with equal logits.
OPENS = [
    ("mistral", {"rope_parameters": {"rope_type": "default", "rope_theta": 500.0}}),
    ("mistral", {"rope_parameters": {"rope_theta": 500.0}, "rope_theta": 3e6}),
    ("mistral", {"rope_parameters": {"type": "default"}, "rope_theta": 500.0}),
    ("mistral", {"rope_parameters": {}, "rope_theta": 500.0}),
    ("llama", {"rope_scaling": {"rope_type": "default"}, "rope_theta": 500.0}),
    ("llama", {"rope_scaling": {"type": "default", "rope_theta": 500}, "rope_theta": 3e6}),
    (
        "llama",
        {"rope_scaling": {"type": "default"}, "rope_parameters": {"rope_theta": 7.0}},
    ),
    ("llama", {"rope_scaling": {}, "rope_parameters": {"rope_theta": 500.0}}),
    ("llama", {"rope_theta": 500, "partial_rotary_factor": 1.0}),
    ("llama", {"rope_parameters": {"rope_theta": 500.0, "partial_rotary_factor": 1.0}}),
    ("llama", {"rope_theta": DROP}),
    ("mistral", {"hidden_act": "swish"}),
    ("mistral", {"hidden_act": DROP, "initializer_range": DROP}),
    ("mistral", {"attention_dropout": 0.1}),
    ("llama", {"attention_dropout": 0.5}),
    ("mistral", {"layer_types": [SLIDING] * 2, "head_dim": 16}),
    ("mistral", {"layer_types": [FULL] * 2, "head_dim": 16}),
    ("mistral", {"layer_types": None, "head_dim": 16}),
    ("llama", {"layer_types": [FULL] * 2}),
    ("mistral", {"use_sliding_window": True}),
    ("mistral", {"use_sliding_window": False, "sliding_window": None, "max_window_layers": 28}),
    ("mistral", {"max_window_layers": 0}),
    ("llama", {"sliding_window": 4096}),
    ("llama", {"sliding_window": None, "use_sliding_window": False}),
    ("mistral", {"sliding_window": 1}),
    ("mistral", {"rms_norm_eps": DROP, "sliding_window": DROP}),
    ("llama", {"rms_norm_eps": DROP, "max_position_embeddings": DROP}),
    ("mistral", {"head_dim": None}),
    ("mistral", {"is_causal": True}),
    ("llama", {"rope_interleaved": False, "is_llama_config": True, "use_mrope": False}),
    ("llama", {"transformers.js_config": {"dtype": "q4"}, "max_sequence_length": 2048}),
    ("llama", {"unsloth_version": "2024.9", "unsloth_fixed": True, "license": "apache-2.0"}),
    ("mistral", {"id2label": {"0": "a", "1": "b"}, "label2id": {"a": 0, "b": 1}}),
    ("mistral", {"auto_map": {"AutoModelForCausalLM": "modeling_x.X"}}),
    ("mistral", {"temperature": 0.7, "max_length": 4096, "do_sample": True}),
    ("mistral", {"an_unknown_key": None, "num_experts": None, "quantization_config": None}),
    ("mistral", {"dtype": "bfloat16", "torch_dtype": DROP}),
    ("llama", {"architectures": ["LLaMAForCausalLM"], "pad_token_id": 0}),
    ("mistral", {"architectures": None, "_name_or_path": "somewhere", "use_cache": False}),
]


def changed(family, changes):
    raw = dict(FAMILIES[family])
    for name, value in changes.items():
        raw.pop(name, None)
        if value is not DROP:
            raw[name] = value
    return raw


def named(cases):
    return [
        f"{family} {json.dumps(changes, default=lambda _: 'absent')}" for family, changes in cases
    ]


@pytest.mark.parametrize(("family", "changes"), OPENS, ids=named(OPENS))
def test_equal_to_transformers(tmp_path, family, changes):
    folder = hf_folder(tmp_path / "folder", FAMILIES[family])
    put_json(folder / "config.json", changed(family, changes))
    assert is_equal(folder)


@pytest.mark.parametrize("window", [None, 16])
def test_full_attention_in_all_layers_means_no_window(window):
    """transformers agrees where it runs: with `sliding_window: null` it stops with an error."""
    raw = changed("mistral", {"layer_types": [FULL] * 2, "sliding_window": window})
    assert from_hf(raw).sliding_window is None


def layers(*kinds):
    return {"layer_types": list(kinds), "head_dim": 16}


LLAMA3 = {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
# (family, changes, what the message must name)
REFUSED = [
    ("mistral", layers(FULL, SLIDING), "layer_types"),
    ("mistral", layers(SLIDING), "layer_types"),
    ("mistral", layers("chunked_attention", "chunked_attention"), "layer_types"),
    ("mistral", {"layer_types": SLIDING}, "layer_types"),
    ("mistral", {"layer_types": []}, "layer_types"),
    ("mistral", {"layer_types": [None, None]}, "layer_types"),
    ("mistral", layers(SLIDING, SLIDING) | {"sliding_window": None}, "layer_types"),
    ("llama", layers(FULL, SLIDING), "layer_types"),
    ("llama", layers(SLIDING, SLIDING), "layer_types"),
    ("mistral", {"is_causal": False}, "is_causal=False"),
    ("llama", {"is_causal": None}, "is_causal=None"),
    ("llama", {"is_causal": 1}, "is_causal=1"),
    ("llama", {"rope_parameters": LLAMA3 | {"type": "llama3"}}, "rope_parameters.type='llama3'"),
    ("llama", {"rope_scaling": LLAMA3 | {"rope_type": "llama3"}}, "rope_scaling.rope_type"),
    ("llama", {"rope_scaling": {"type": "linear", "factor": 2.0}}, "rope_scaling.type='linear'"),
    ("llama", {"rope_scaling": {"type": "dynamic", "factor": 2.0}}, "rope_scaling.type='dynamic'"),
    ("mistral", {"rope_scaling": {"type": "yarn", "factor": 4.0}}, "rope_scaling.type='yarn'"),
    ("llama", {"rope_scaling": {"rope_type": "default", "type": "yarn"}}, "rope_scaling.type"),
    ("llama", {"rope_scaling": {"rope_type": None}}, "rope_scaling.rope_type=None"),
    ("llama", {"rope_scaling": {"rope_type": "default", "factor": 2.0}}, "rope_scaling.factor"),
    ("llama", {"rope_parameters": {FULL: {"rope_type": "default"}}}, "rope_parameters." + FULL),
    ("llama", {"rope_parameters": [1]}, "rope_parameters=[1]"),
    ("llama", {"rope_scaling": "default"}, "rope_scaling='default'"),
    ("llama", {"rope_scaling": False}, "rope_scaling=False"),
    ("llama", {"rope_parameters": {"rope_theta": None}}, "rope_theta=None"),
    ("llama", {"rope_parameters": {"partial_rotary_factor": 0.5}}, "partial_rotary_factor=0.5"),
    ("llama", {"partial_rotary_factor": 0.5}, "partial_rotary_factor=0.5"),
    ("llama", {"partial_rotary_factor": True}, "partial_rotary_factor=True"),
    ("llama", {"rope_theta": [1e4]}, "rope_theta="),
    ("llama", {"rope_theta": "10000"}, "rope_theta='10000'"),
    ("llama", {"rope_theta": float("nan")}, "rope_theta=nan"),
    ("llama", {"rope_theta": 10**400}, "rope_theta=a huge number"),
    ("llama", {"rope_theta": -1.0}, "rope_theta=-1.0"),
    ("llama", {"rope_ratio": 2.0}, "rope_ratio=2.0"),
    ("llama", {"rope_local_base_freq": 1e4}, "rope_local_base_freq"),
    ("llama", {"attention_bias": True}, "attention_bias=True"),
    ("mistral", {"attention_bias": True}, "attention_bias=True"),
    ("llama", {"mlp_bias": True}, "mlp_bias=True"),
    ("llama", {"attention_bias": None}, "attention_bias=None"),
    ("llama", {"hidden_act": "gelu"}, "hidden_act='gelu'"),
    ("llama", {"hidden_act": None}, "hidden_act=None"),
    ("llama", {"attention_dropout": 1.5}, "attention_dropout=1.5"),
    ("llama", {"attention_dropout": "0.1"}, "attention_dropout='0.1'"),
    ("mistral", {"use_sliding_window": False}, "use_sliding_window=False"),
    ("mistral", {"use_sliding_window": 1}, "use_sliding_window=1"),
    ("mistral", {"use_sliding_window": True, "sliding_window": None}, "use_sliding_window=True"),
    ("mistral", {"max_window_layers": 1}, "max_window_layers=1"),
    ("llama", {"sliding_window": 16}, "sliding_window=16"),
    ("mistral", {"attn_logit_softcapping": 50.0}, "attn_logit_softcapping=50.0"),
    ("mistral", {"final_logit_softcapping": 30.0}, "final_logit_softcapping"),
    ("mistral", {"query_pre_attn_scalar": 16}, "query_pre_attn_scalar=16"),
    ("mistral", {"attention_multiplier": 0.1}, "attention_multiplier"),
    ("mistral", {"embedding_multiplier": 12.0}, "embedding_multiplier=12.0"),
    ("mistral", {"logits_scaling": 8}, "logits_scaling=8"),
    ("mistral", {"num_local_experts": 8}, "num_local_experts=8"),
    ("mistral", {"num_experts": 64, "num_experts_per_tok": 8}, "num_experts=64"),
    ("mistral", {"no_rope_layers": [1, 0]}, "no_rope_layers=[1, 0]"),
    ("mistral", {"clip_qkv": 8.0}, "clip_qkv"),
    ("mistral", {"use_qk_norm": True}, "use_qk_norm=True"),
    ("mistral", {"quantization_config": {"bits": 4}}, "quantization_config"),
    ("mistral", {"text_config": {"model_type": "mistral"}}, "text_config"),
    ("mistral", {"layer_norm_eps": 1e-5}, "layer_norm_eps"),
    ("mistral", {"next_years_option": False}, "next_years_option=False"),
    ("mistral", {"next_years_options": []}, "next_years_options=[]"),
    ("mistral", {"position_embedding_type": "alibi"}, "position_embedding_type='alibi'"),
    ("mistral", {"norm_kind": "layernorm"}, "norm_kind='layernorm'"),
    ("mistral", {"transformers_weights": "other.safetensors"}, "transformers_weights"),
    ("mistral", {"per_layer_config": {"0": {"sliding_window": None}}}, "per_layer_config"),
    ("mistral", {"is_encoder_decoder": True}, "is_encoder_decoder=True"),
    ("mistral", {"model_type": "ministral3"}, "model_type='ministral3'"),
    ("mistral", {"model_type": {"name": "mistral"}}, "model_type={'name': 'mistral'}"),
    ("mistral", {"model_type": DROP}, "model_type=None"),
    ("mistral", {"hidden_size": "64"}, "hidden_size='64'"),
    ("mistral", {"hidden_size": 64.0}, "hidden_size=64.0"),
    ("mistral", {"hidden_size": [64]}, "hidden_size=[64]"),
    ("mistral", {"hidden_size": None}, "hidden_size=None"),
    ("mistral", {"hidden_size": DROP}, "hidden_size is missing"),
    ("mistral", {"num_hidden_layers": True}, "num_hidden_layers=True"),
    ("mistral", {"num_hidden_layers": 10**7}, "num_hidden_layers=10000000"),
    ("mistral", {"vocab_size": 10**400}, "vocab_size=a huge number"),
    ("mistral", {"rms_norm_eps": None}, "rms_norm_eps=None"),
    ("mistral", {"rms_norm_eps": "1e-5"}, "rms_norm_eps='1e-5'"),
    ("mistral", {"rms_norm_eps": float("inf")}, "rms_norm_eps=inf"),
    ("mistral", {"max_position_embeddings": None}, "max_position_embeddings=None"),
    ("mistral", {"tie_word_embeddings": None}, "tie_word_embeddings=None"),
    ("mistral", {"tie_word_embeddings": "false"}, "tie_word_embeddings='false'"),
    ("mistral", {"sliding_window": "16"}, "sliding_window='16'"),
    ("mistral", {"sliding_window": 16.0}, "sliding_window=16.0"),
    ("mistral", {"sliding_window": 0}, "sliding_window=0"),
    ("mistral", {"head_dim": "16"}, "head_dim='16'"),
    ("llama", {"hidden_size": 66, "head_dim": 16}, "hidden_size=66"),
    ("llama", {"num_key_value_heads": 3}, "num_key_value_heads=3"),
]


@pytest.mark.parametrize(
    ("family", "changes", "names"), REFUSED, ids=named([case[:2] for case in REFUSED])
)
def test_refused_by_name(family, changes, names):
    with pytest.raises(ValueError) as error:  # noqa: PT011 the message is compared below
        from_hf(changed(family, changes))
    assert str(error.value).startswith("config.json: ")
    assert names in str(error.value)
