"""HF folders: what we write transformers reads, what it writes we read, the rest is refused."""

import json

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from model.config import to_hf
from model.transformer import Mistral
from model.weights import InitialWeights, fill
from pretrained.safetensors_folder import (
    INDEX,
    PretrainedFolder,
    load_pretrained,
    save_pretrained,
    write_folder,
)
from tests.helpers.toy import hf_twin, random_tokens, toy_config, toy_model

SHAPES = {
    "mistral": toy_config(),
    "tied, given head width": toy_config(head_dim=12, tie_word_embeddings=True, rope_theta=1e6),
    "llama": toy_config(model_type="llama", sliding_window=None, rms_norm_eps=1e-6),
    "llama, tied": toy_config(model_type="llama", sliding_window=None, tie_word_embeddings=True),
}
every_shape = pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
sharded_or_not = pytest.mark.parametrize("shard_bytes", [None, 20_000])


def read_json(path):
    return json.loads(path.read_text())


def edit_config(folder, **changes):
    """Change entries of config.json; None removes one."""
    raw = read_json(folder / "config.json") | changes
    raw = {name: value for name, value in raw.items() if value is not None}
    (folder / "config.json").write_text(json.dumps(raw))


def assert_same_network(ours, twin):
    assert all(torch.equal(x, ours.state_dict()[name]) for name, x in twin.state_dict().items())
    tokens = random_tokens(ours.config, 2, 19)
    with torch.no_grad():
        found, expected = ours(tokens), twin(tokens, use_cache=False).logits
    assert (found - expected).abs().max() <= 1e-5 * expected.abs().max()


@every_shape
@sharded_or_not
def test_transformers_reads_what_we_write(tmp_path, shape, shard_bytes):
    network = toy_model(shape)
    options = {} if shard_bytes is None else {"max_shard_bytes": shard_bytes}
    write_folder(tmp_path / "model", shape, network.named_parameters(), **options)
    assert (tmp_path / "model" / INDEX).exists() == (shard_bytes is not None)
    twin, report = transformers.AutoModelForCausalLM.from_pretrained(
        tmp_path / "model", attn_implementation="eager", output_loading_info=True
    )
    assert not any(report.values())
    assert twin.dtype == torch.float32
    assert_same_network(network, twin)


@every_shape
@sharded_or_not
def test_we_read_what_transformers_writes(tmp_path, shape, shard_bytes):
    twin = hf_twin(toy_model(shape))
    options = {} if shard_bytes is None else {"max_shard_size": shard_bytes}
    twin.save_pretrained(tmp_path, **options)
    assert (tmp_path / INDEX).exists() == (shard_bytes is not None)
    network = load_pretrained(tmp_path)
    assert network.config.sliding_window == shape.sliding_window
    assert_same_network(network, twin)
    assert (network.lm_head.weight is network.model.embed_tokens.weight) == (
        shape.tie_word_embeddings
    )


def test_we_read_a_folder_of_transformers_4(tmp_path):
    shape = toy_config(rope_theta=5e4)
    twin = hf_twin(toy_model(shape))
    twin.save_pretrained(tmp_path)
    edit_config(tmp_path, rope_parameters=None, rope_theta=5e4, dtype=None, torch_dtype="float32")
    raw = read_json(tmp_path / "config.json")
    (tmp_path / "config.json").write_text(json.dumps(raw | {"rope_scaling": None}))
    # Old Llama folders stored the rotary frequencies, too.
    tensors = load_file(tmp_path / "model.safetensors")
    tensors["model.layers.0.self_attn.rotary_emb.inv_freq"] = torch.ones(4)
    save_file(tensors, tmp_path / "model.safetensors")
    assert_same_network(load_pretrained(tmp_path), twin)


@every_shape
def test_our_own_round_trip(tmp_path, shape):
    network = toy_model(shape)
    save_pretrained(network, tmp_path / "model")
    again = load_pretrained(tmp_path / "model", backend="reference")
    assert again.backend == "reference"
    assert to_hf(again.config) == to_hf(shape)
    for name, parameter in network.named_parameters():
        assert torch.equal(again.get_parameter(name), parameter)
        assert again.get_parameter(name).requires_grad


def test_conversion_of_dtype(tmp_path):
    network = toy_model(toy_config())
    write_folder(
        tmp_path / "half", network.config, network.named_parameters(), dtype=torch.bfloat16
    )
    assert read_json(tmp_path / "half" / "config.json")["dtype"] == "bfloat16"
    save_pretrained(network, tmp_path / "full")
    assert read_json(tmp_path / "full" / "config.json")["dtype"] == "float32"
    stored = load_file(tmp_path / "half" / "model.safetensors")
    narrowed = load_pretrained(tmp_path / "full", dtype=torch.bfloat16)
    widened = load_pretrained(tmp_path / "half")
    for name, parameter in network.named_parameters():
        expected = parameter.bfloat16()
        assert stored[name].dtype == torch.bfloat16
        assert torch.equal(stored[name], expected)
        assert narrowed.get_parameter(name).dtype == torch.bfloat16
        assert torch.equal(narrowed.get_parameter(name), expected)
        assert widened.get_parameter(name).dtype == torch.float32
        assert torch.equal(widened.get_parameter(name), expected.float())


def test_index_holds_every_tensor_once_within_the_limit(tmp_path):
    network = toy_model(toy_config())
    folder = tmp_path / "model"
    write_folder(folder, network.config, network.named_parameters(), max_shard_bytes=20_000)
    index = read_json(folder / INDEX)
    sizes = {name: x.nbytes for name, x in network.named_parameters()}
    assert index["weight_map"].keys() == sizes.keys()
    assert index["metadata"]["total_size"] == sum(sizes.values())
    files = {path.name: load_file(path) for path in folder.glob("*.safetensors")}
    assert sorted(files) == [
        f"model-{i:05d}-of-{len(files):05d}.safetensors" for i in range(1, len(files) + 1)
    ]
    for name, file in index["weight_map"].items():
        assert name in files[file]
    for tensors in files.values():
        assert sum(x.nbytes for x in tensors.values()) <= 20_000 or len(tensors) == 1


def test_rows_are_read_alone(tmp_path):
    network = toy_model(toy_config())
    save_pretrained(network, tmp_path / "model")
    source = PretrainedFolder(tmp_path / "model")
    for name, parameter in network.named_parameters():
        assert source.shapes[name] == parameter.shape
        for rows in (slice(None), slice(1, 3), slice(0, 0), slice(len(parameter), None)):
            assert torch.equal(source.read(name, rows), parameter[rows])


class Tokenizer:
    """Saves one file."""

    bos_id, eos_id = 5, 7

    def save(self, folder):
        (folder / "tokenizer.model").write_text("pieces")


def test_tokenizer_travels_with_the_weights(tmp_path):
    save_pretrained(toy_model(toy_config()), tmp_path / "model", Tokenizer())
    assert (tmp_path / "model" / "tokenizer.model").read_text() == "pieces"
    for name in ("config.json", "generation_config.json"):
        raw = read_json(tmp_path / "model" / name)
        assert (raw["bos_token_id"], raw["eos_token_id"]) == (5, 7)


def test_transformers_never_generates_padded_ids(tmp_path):
    shape = toy_config(num_padded_ids=3, num_base_ids=40)
    network = toy_model(shape)
    with torch.no_grad():
        network.lm_head.weight[-3:] *= 100  # the largest logits, where positive
    save_pretrained(network, tmp_path / "model")
    found = load_pretrained(tmp_path / "model").config
    assert (found.num_padded_ids, found.num_base_ids) == (3, 40)
    twin = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "model")
    prompt = random_tokens(shape, 4, 5)
    options = {"max_new_tokens": 8, "do_sample": False, "pad_token_id": 0}
    mask = torch.ones_like(prompt)
    assert twin.generate(prompt, attention_mask=mask, **options).max() < 58
    twin.generation_config.suppress_tokens = None
    assert twin.generate(prompt, attention_mask=mask, **options).max() >= 58


def test_initial_weights_depend_on_seed_and_name_alone():
    network = Mistral(toy_config())
    names = [name for name, parameter in network.named_parameters() if parameter.ndim == 2]
    whole, rows = slice(None), slice(5, 9)
    first = {name: InitialWeights(network, 0).read(name, whole) for name in names}
    torch.manual_seed(1)
    source, other = InitialWeights(network, 0), InitialWeights(network, 1)
    for name in reversed(names):
        assert torch.equal(source.read(name, rows), first[name][rows])
        assert torch.equal(source.read(name, whole), first[name])
        assert not torch.equal(other.read(name, whole), first[name])
    assert len({drawn[0, 0].item() for drawn in first.values()}) == len(names)


def test_initial_weights_have_the_configured_spread():
    shape = toy_config(hidden_size=128, intermediate_size=256, initializer_range=0.05)
    network = Mistral(shape)
    fill(network, InitialWeights(network, 3))
    for name, parameter in network.named_parameters():
        if parameter.ndim == 1:
            assert (parameter == 1).all()
            continue
        narrow = name.endswith(("o_proj.weight", "down_proj.weight"))
        std = 0.05 / 2 if narrow else 0.05  # sqrt(2 * 2 layers) = 2
        # Five standard errors of a standard deviation and of a mean.
        assert abs(parameter.std() / std - 1) < 5 / (2 * parameter.numel()) ** 0.5
        assert abs(parameter.mean() / std) < 5 / parameter.numel() ** 0.5
