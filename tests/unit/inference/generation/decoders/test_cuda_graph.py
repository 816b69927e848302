"""Where the network calls kernels it computes the same, training and decoding.

A CUDA device is stood for by Triton's interpreter, in a process of its own, and a recording by
running the step again; docs/results/performance.md has the comparison on hardware.
"""

from importlib.util import find_spec

import pytest
import torch

from inference.generation.decoders import cuda_graph as recorded
from inference.generation.decoders.cuda_graph import supports_cuda_graph
from model import transformer
from model.adapters import add_lora
from model.lora.layer import LoraConfig
from model.transformer import Mistral
from pretrained.safetensors_folder import load_pretrained, save_pretrained
from tests.helpers.toy import toy_config

pytestmark = pytest.mark.skipif(
    find_spec("triton") is None, reason="needs triton: pip install 'triton>=3.6'"
)


def drawn_network(*, window=None, lora=False):
    torch.manual_seed(0)
    config = toy_config(sliding_window=window, hidden_size=64, num_attention_heads=4, head_dim=16)
    network = Mistral(config)
    if lora:
        add_lora(network, LoraConfig(rank=2, alpha=4.0))
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, 1.0 if parameter.ndim == 1 else 0.0, 0.2)
    return network


def test_weights_are_joined_once_and_stay_the_networks(tmp_path):
    network = drawn_network()
    before = {name: p.clone() for name, p in network.named_parameters()}
    with torch.inference_mode():  # as `Engine.decode` is
        first, second = ([recorded._Layer(x) for x in network.model.layers] for _ in range(2))
    for one, other in zip(first, second, strict=True):
        for joined, again in ((one.qkv, other.qkv), (one.gate_up, other.gate_up)):
            assert joined.weight.data_ptr() == again.weight.data_ptr()
            assert joined.weight.shape == again.weight.shape
            assert torch.equal(torch.cat([x.weight for x in joined.linears]), joined.weight)
    with torch.no_grad():
        network.model.layers[0].self_attn.k_proj.weight += 1  # what is trained is seen
    assert torch.equal(first[0].qkv.weight[64:96], network.model.layers[0].self_attn.k_proj.weight)
    before["model.layers.0.self_attn.k_proj.weight"] += 1
    tokens = torch.arange(8)[None]
    network(tokens, labels=tokens).total.backward()  # it can still be trained
    assert all(torch.equal(p, before[name]) for name, p in network.named_parameters())
    save_pretrained(network, tmp_path / "saved")
    again = load_pretrained(tmp_path / "saved")
    assert all(torch.equal(p, before[name]) for name, p in again.named_parameters())


def test_what_cannot_be_recorded():
    network = drawn_network()
    assert not supports_cuda_graph(network)  # no CUDA device
    assert transformer.Block in {type(layer) for layer in network.model.layers}
