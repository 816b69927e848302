"""The shape of the network, its two file dialects and its FLOPs."""

import pytest
import transformers
from torch.utils.flop_counter import FlopCounterMode

from model.config import from_hf, to_hf
from tests.helpers.toy import random_tokens, toy_config, toy_model

SHAPE = {
    "vocab_size": 61,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        *(({name: 0}, f"model.{name}=0: must be positive") for name in SHAPE),
        ({"hidden_size": -32}, "model.hidden_size=-32: must be positive"),
        ({"max_position_embeddings": 0}, "model.max_position_embeddings=0"),
        ({"rope_theta": 0.0}, "model.rope_theta=0.0"),
        ({"rms_norm_eps": 0.0}, "model.rms_norm_eps=0.0"),
        ({"initializer_range": 0.0}, "model.initializer_range=0.0"),
        ({"model_type": "gpt2"}, "model.model_type='gpt2'.*mistral, llama"),
        (
            {"num_key_value_heads": 3},
            "num_key_value_heads=3 does not divide.*num_attention_heads=4",
        ),
        ({"hidden_size": 34}, "hidden_size=34 is not a multiple.*=4; give model.head_dim"),
        ({"hidden_size": 36}, "model.head_dim=9.*even"),
        ({"head_dim": 7}, "model.head_dim=7.*even"),
        ({"head_dim": 0}, "model.head_dim=0.*positive"),
        ({"head_dim": -8}, "model.head_dim=-8.*positive"),
        ({"sliding_window": 0}, "model.sliding_window=0.*null switches it off"),
        ({"model_type": "llama"}, "sliding_window=8 with model_type=llama.*model_type=mistral"),
        ({"num_padded_ids": -1}, "model.num_padded_ids=-1"),
        ({"num_padded_ids": 61}, r"model.num_padded_ids=61: must be in \[0, vocab_size=61\)"),
        ({"num_base_ids": 0}, r"model.num_base_ids=0: must be in \[1, 61\].*null if"),
        ({"num_base_ids": 59, "num_padded_ids": 3}, r"num_base_ids=59: must be in \[1, 58\]"),
    ],
)
def test_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        toy_config(**changes)


def test_derived_fields():
    assert toy_config().head_size == 8
    assert toy_config(hidden_size=34, head_dim=6).head_size == 6
    assert toy_config(num_padded_ids=3).num_tokens == 58


CONFIGS = [
    toy_config(),
    toy_config(sliding_window=None, rope_theta=1e6, head_dim=6, tie_word_embeddings=True),
    toy_config(num_padded_ids=5, rms_norm_eps=1e-6, max_position_embeddings=77),
    toy_config(num_padded_ids=5, num_base_ids=40),
    toy_config(model_type="llama", sliding_window=None, initializer_range=0.1),
]


@pytest.mark.parametrize("config", CONFIGS)
def test_round_trip(config):
    raw = to_hf(config, bos_token_id=1)
    assert raw["bos_token_id"] == 1
    found = from_hf(raw)
    assert found.head_dim == config.head_size  # written out, so that no reader has to derive it
    found.head_dim = config.head_dim
    assert found == config


@pytest.mark.parametrize("config", CONFIGS)
def test_transformers_reads_what_we_write(config):
    """In both dialects: version 5 takes rope_parameters, version 4 the rope_theta beside them."""
    raw = to_hf(config)
    hf = transformers.AutoConfig.for_model(**raw)
    assert hf.architectures == [
        {"mistral": "MistralForCausalLM", "llama": "LlamaForCausalLM"}[config.model_type]
    ]
    assert hf.rope_parameters == {"rope_type": "default", "rope_theta": config.rope_theta}
    assert hf.head_dim == config.head_size
    for name in (*SHAPE, "rms_norm_eps", "max_position_embeddings", "tie_word_embeddings"):
        assert getattr(hf, name) == getattr(config, name)
    assert getattr(hf, "sliding_window", None) == config.sliding_window
    assert raw["rope_theta"] == config.rope_theta
    assert from_hf(hf.to_dict()).rope_theta == config.rope_theta


def test_version_4_dialect():
    raw = to_hf(toy_config(rope_theta=5000.0))
    del raw["rope_parameters"]
    assert from_hf(raw | {"rope_scaling": None, "torch_dtype": "bfloat16"}).rope_theta == 5000.0


def test_version_5_dialect():
    raw = to_hf(toy_config(rope_theta=5000.0))
    del raw["rope_theta"]
    assert from_hf(raw | {"dtype": "bfloat16"}).rope_theta == 5000.0


@pytest.mark.parametrize(
    ("model_type", "hf_class"),
    [("mistral", transformers.MistralConfig), ("llama", transformers.LlamaConfig)],
)
def test_what_a_file_leaves_out_means_what_it_means_to_transformers(model_type, hf_class):
    raw = {"model_type": model_type, **SHAPE}
    ours, hf = from_hf(raw), hf_class(**SHAPE)
    assert getattr(hf, "sliding_window", None) == ours.sliding_window
    assert ours.rope_theta == hf.rope_parameters["rope_theta"]
    for name in (
        *("rms_norm_eps", "max_position_embeddings", "tie_word_embeddings"),
        *("initializer_range", "head_dim"),
    ):
        assert getattr(hf, name) == (ours.head_size if name == "head_dim" else getattr(ours, name))


@pytest.mark.parametrize(
    ("hf_class", "entry"),
    [
        (transformers.MistralConfig, {}),
        (transformers.LlamaConfig, {}),
        (transformers.LlamaConfig, {"num_key_value_heads": None}),
    ],
)
def test_number_of_key_heads_follows_transformers(hf_class, entry):
    shape = SHAPE | {"num_attention_heads": 16}
    del shape["num_key_value_heads"]
    found = from_hf({"model_type": hf_class.model_type, **shape, **entry})
    assert found.num_key_value_heads == hf_class(**shape, **entry).num_key_value_heads


def test_window_of_a_llama_file_beyond_its_positions_changes_nothing():
    raw = to_hf(toy_config(model_type="llama", sliding_window=None, max_position_embeddings=64))
    assert from_hf(raw | {"sliding_window": 64}).sliding_window is None
    with pytest.raises(ValueError, match="sliding_window=63 with model_type='llama'"):
        from_hf(raw | {"sliding_window": 63})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": "gpt2"}, "model_type='gpt2'; only mistral, llama"),
        ({"model_type": None}, "model_type=None"),
        ({"hidden_act": "gelu"}, "hidden_act='gelu' is not supported, only 'silu'"),
        ({"attention_bias": True}, "attention_bias=True is not supported, only False"),
        ({"mlp_bias": True}, "mlp_bias=True"),
        ({"rope_scaling": {"type": "linear", "factor": 2.0}}, "rope_scaling.type='linear'"),
        ({"quantization_config": {"bits": 4}}, "quantization_config="),
        (
            {"rope_parameters": {"rope_type": "llama3", "factor": 8.0, "rope_theta": 1e4}},
            "rope_parameters.rope_type='llama3' is not supported",
        ),
        ({"hidden_size": "32"}, "config.json: "),
        ({"num_base_ids": 62}, "num_base_ids=62"),
        ({"num_key_value_heads": 3}, "num_key_value_heads=3 does not divide"),
    ],
)
def test_file_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        from_hf(to_hf(toy_config()) | changes)


@pytest.mark.parametrize("name", ["model_type", *sorted(SHAPE.keys() - {"num_key_value_heads"})])
def test_file_without_a_field_refused(name):
    raw = to_hf(toy_config())
    del raw[name]
    with pytest.raises(ValueError, match=name):
        from_hf(raw)


@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("config", [toy_config(), CONFIGS[1]])
def test_training_flops_are_those_of_all_matrix_products(config, frozen):
    """The reference backend scores all T x T pairs, so every product is there to be counted."""
    rows, length = 3, 11
    network = toy_model(config, backend="reference")
    network.model.layers.requires_grad_(not frozen)
    tokens = random_tokens(config, rows, length)
    with FlopCounterMode(display=False) as counter:
        network(tokens, labels=tokens).total.backward()
    pairs = rows * length * length
    expected = config.training_flops(rows * length, pairs, frozen_layers=frozen)
    assert expected == counter.get_total_flops()


def test_matrix_weights_are_all_but_embedding_and_norms():
    network = toy_model(toy_config())
    sizes = [x.numel() for name, x in network.named_parameters() if "norm" not in name]
    assert network.config.num_matrix_weights == sum(sizes) - 61 * 32
