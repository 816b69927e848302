"""What is not a whole folder of this network is refused by name; none is ever half-written."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from pretrained.safetensors_folder import INDEX, load_pretrained, save_pretrained, write_folder
from tests.helpers.toy import toy_config, toy_model
from tests.unit.pretrained.test_weights import edit_config


def remove(name):
    return lambda folder: (folder / name).unlink()


def change_config(**changes):
    return lambda folder: edit_config(folder, **changes)


def change_tensors(folder):
    tensors = load_file(folder / "model.safetensors")
    del tensors["model.norm.weight"]
    tensors["model.layers.0.self_attn.q_proj.bias"] = torch.zeros(32)
    tensors["lm_head.weight"] = torch.zeros(60, 32)
    save_file(tensors, folder / "model.safetensors")


def truncate(folder):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


def scribble(folder):
    (folder / "model.safetensors").write_bytes(b"not safetensors at all")


def only_bin(folder):
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def promise(tensor, file):
    def write_index(folder):
        (folder / "model.safetensors").rename(folder / "part.safetensors")
        index = dict.fromkeys(load_file(folder / "part.safetensors"), "part.safetensors")
        (folder / INDEX).write_text(json.dumps({"weight_map": index | {tensor: file}}))

    return write_index


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (remove("config.json"), "no config.json"),
        (remove("model.safetensors"), "neither model.safetensors nor"),
        (only_bin, "only safetensors are read, convert .bin"),
        (truncate, "model.safetensors: .*damaged"),
        (scribble, "model.safetensors: .*damaged"),
        (promise("model.ghost", "part.safetensors"), "unexpected model.ghost$"),
        (promise("lm_head.weight", "model-2.safetensors"), "model-2.safetensors: .*missing"),
        (change_config(model_type="gpt2"), "model_type='gpt2'"),
        (change_config(attention_bias=True), "attention_bias=True"),
        (change_config(rope_scaling={"type": "linear", "factor": 2.0}), "rope_scaling.type="),
        (change_config(rope_parameters={"rope_type": "yarn", "rope_theta": 1e4}), "'yarn'"),
        (change_config(num_hidden_layers=3), "missing model.layers.2.input_layernorm.weight;"),
        (change_config(num_hidden_layers=1), "unexpected model.layers.1.input_layernorm.weight;"),
        (
            change_config(tie_word_embeddings=True),
            "tie_word_embeddings is true, but lm_head.weight",
        ),
        (change_config(vocab_size=64), r"lm_head.weight has shape \(61, 32\), .*\(64, 32\)"),
        (
            change_tensors,
            "missing model.norm.weight; unexpected model.layers.0.self_attn.q_proj.bias; "
            r"lm_head.weight has shape \(60, 32\), config.json means \(61, 32\)$",
        ),
    ],
)
def test_folder_refused(tmp_path, damage, message):
    save_pretrained(toy_model(toy_config()), tmp_path / "model")
    damage(tmp_path / "model")
    with pytest.raises(ValueError, match=message) as error:
        load_pretrained(tmp_path / "model")
    assert str(tmp_path) in str(error.value) or str(error.value).startswith("config.json")


def test_existing_folder_is_left_alone(tmp_path):
    (tmp_path / "model").mkdir()
    with pytest.raises(ValueError, match="model exists; choose another folder"):
        save_pretrained(toy_model(toy_config()), tmp_path / "model")
    assert not list((tmp_path / "model").iterdir())


def test_nothing_is_half_written(tmp_path):
    network = toy_model(toy_config())

    def interrupted():
        for i, named in enumerate(network.named_parameters()):
            if i == 5:
                raise KeyboardInterrupt
            yield named

    with pytest.raises(KeyboardInterrupt):
        write_folder(tmp_path / "model", network.config, interrupted(), max_shard_bytes=9000)
    assert not (tmp_path / "model").exists()
    save_pretrained(network, tmp_path / "model")  # what the interrupted one left is no obstacle
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    assert sorted(path.name for path in (tmp_path / "model").iterdir()) == [
        *("config.json", "generation_config.json", "model.safetensors")
    ]
