"""A network that somebody has changed is decoded by its own forward pass, whoever decodes."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook
from torch.nn.utils import parametrize, prune

from inference.generation.decoders.cpu_onednn import OneDnnDecoder, supports_onednn
from inference.generation.decoders.cuda_graph import supports_cuda_graph
from inference.generation.decoders.guard import departure
from inference.generation.engine import Engine
from model.adapters import add_lora
from model.lora.layer import LoraConfig, LoraLinear
from model.transformer import MLP, Attention
from tests.helpers.toy import random_tokens, randomize, toy_config, toy_model


class Geglu(MLP):
    def forward(self, x):
        return self.down_proj(F.gelu(self.gate_proj(x)) * self.up_proj(x))


class Reversed(Attention):
    def forward(self, x, *args):
        return super().forward(x.flip(-1), *args)


class NormedQueries(Attention):
    """Attention that a user has given a norm on q and k."""

    def forward(self, x, *args):
        return super().forward(self.own_norm(x), *args)


class HalfEmbedding(nn.Embedding):
    def forward(self, input):
        return super().forward(input) * 0.5


class Capped(nn.Linear):
    def forward(self, input):
        return 2 * torch.tanh(super().forward(input) / 2)


class Doubled(nn.Module):
    def forward(self, weight):
        return 2 * weight


class Tripled(LoraLinear):
    def forward(self, input):
        return 3 * super().forward(input)


def half(_module, _arguments, output):
    return output * 0.5


def half_input(_module, arguments):
    return (arguments[0] * 0.5, *arguments[1:])


def hook_every_block(model):
    for block in model.model.layers:
        block.register_forward_hook(half)


def hook_one_linear(model):
    model.model.layers[1].mlp.up_proj.register_forward_pre_hook(half_input)


def hook_with_keywords(model):
    model.lm_head.register_forward_hook(lambda *all: all[-1] * 0.5, with_kwargs=True)


def hook_the_network(model):
    model.register_forward_hook(half)


def subclass_mlp(model):
    model.model.layers[0].mlp.__class__ = Geglu


def subclass_attention(model):
    model.model.layers[0].self_attn.__class__ = Reversed


def norm_queries(model):
    attention = model.model.layers[1].self_attn
    attention.own_norm = nn.RMSNorm(model.config.hidden_size)
    attention.__class__ = NormedQueries


def subclass_embedding(model):
    model.model.embed_tokens.__class__ = HalfEmbedding


def subclass_head(model):
    model.lm_head.__class__ = Capped


def subclass_network(model):
    class Mine(type(model)):
        def forward(self, *args, **kwargs):
            return super().forward(*args, **kwargs) * 0.5

    model.__class__ = Mine


def replace_forward(model):
    mlp = model.model.layers[0].mlp
    mlp.forward = lambda x: -MLP.forward(mlp, x)


def replace_mlp(model):
    width = model.config.hidden_size
    model.model.layers[0].mlp = nn.Sequential(nn.Linear(width, width), nn.Tanh())
    randomize(model.model.layers[0].mlp, 0.3)


def replace_norm(model):
    model.model.norm = nn.LayerNorm(model.config.hidden_size)


def insert_norm(model):
    block = model.model.layers[0]
    block.mlp = nn.Sequential(block.mlp, nn.LayerNorm(model.config.hidden_size))


def add_bias(model):
    linear = model.model.layers[0].self_attn.q_proj
    linear.bias = nn.Parameter(torch.linspace(-1, 1, linear.out_features))


def parametrize_weight(model):
    parametrize.register_parametrization(model.model.layers[0].mlp.up_proj, "weight", Doubled())


def prune_weight(model):
    prune.l1_unstructured(model.model.layers[0].self_attn.o_proj, "weight", 0.5)


def other_eps(model):
    model.model.layers[1].input_layernorm.eps = 3.0


def other_eps_everywhere(model):
    for block in model.model.layers:
        block.post_attention_layernorm.eps = 3.0


def largest_embedding(model):
    model.model.embed_tokens.max_norm = 0.5


def drop_a_layer(model):
    model.model.layers = model.model.layers[:1]


CHANGES = [
    *(hook_every_block, hook_one_linear, hook_with_keywords, hook_the_network, subclass_mlp),
    *(subclass_attention, norm_queries, subclass_embedding, subclass_head, subclass_network),
    *(replace_forward, replace_mlp, replace_norm, insert_norm, add_bias, parametrize_weight),
    *(prune_weight, other_eps, other_eps_everywhere, largest_embedding, drop_a_layer),
]


@pytest.fixture
def decoder():
    """The CPU decoder that bypasses the network's modules."""
    if not supports_onednn(toy_model(toy_config())):
        pytest.skip("needs a PyTorch with MKL and oneDNN")
    return OneDnnDecoder


def decoded(engine, cache, ids):
    """Logits after each of some ids, one at a time."""
    return torch.stack([engine.decode(ids[:, n], cache) for n in range(ids.shape[1])], 1)


@torch.no_grad()
def check_equal(model, engine, steps=4):
    tokens = random_tokens(model.config, 2, 6 + steps, seed=5)
    cache = engine.new_cache(2, 0)
    engine.prefill(tokens[:, :6].tolist(), cache)
    expected = model(tokens)[:, 6:]
    found = decoded(engine, cache, tokens[:, 6:])
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    return expected


@torch.no_grad()
def greedy(model, prompt, count):
    """Greedy ids from full forward passes."""
    ids = list(prompt)
    for _ in range(count):
        ids.append(int(model(torch.tensor([ids]))[0, -1].argmax()))
    return ids[len(prompt) :]


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_network_is_decoded_as_it_is(decoder, change):
    model = toy_model(toy_config(sliding_window=None))
    tokens = random_tokens(model.config, 2, 10, seed=5)
    with torch.no_grad():
        stock = model(tokens)
    engine = Engine(model)
    assert isinstance(engine.decoder, decoder)
    check_equal(model, engine)
    change(model)
    with torch.no_grad():
        assert (model(tokens) - stock).abs().max() > 1e-2  # or the test would show nothing
    assert departure(model)
    for used in (engine, Engine(model)):  # made before, and after
        check_equal(model, used)
        assert used.decoder is None
        cache = used.new_cache(1, 0)
        ids = [int(used.prefill([[3, 1, 4]], cache)[0].argmax())]
        while len(ids) < 7:
            ids.append(int(used.decode(torch.tensor(ids[-1:]), cache).argmax()))
        assert ids == greedy(model, [3, 1, 4], 7)


@pytest.mark.parametrize("change", CHANGES)
def test_what_is_changed_between_two_steps_counts_from_the_next(decoder, change):
    """The step after the change is the changed network's on what the cache holds."""
    model = toy_model(toy_config(sliding_window=None))
    twin = copy.deepcopy(model)
    tokens = random_tokens(model.config, 2, 10, seed=5)
    engines = Engine(model), Engine(twin, decoder="plain")
    caches = [engine.new_cache(2, 0) for engine in engines]
    for engine, cache in zip(engines, caches, strict=True):
        engine.prefill(tokens[:, :6].tolist(), cache)
    assert isinstance(engines[0].decoder, decoder)
    for changed in (model, twin):
        if change not in (largest_embedding, add_bias):  # seen with the next prompts
            change(changed)
    one, other = (
        decoded(engine, cache, tokens[:, 6:]) for engine, cache in zip(engines, caches, strict=True)
    )
    torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("change", CHANGES)
def test_a_requested_decoder_names_the_change_that_excludes_it(decoder, change):
    model = toy_model(toy_config())
    engine = Engine(model, decoder="cpu_onednn")
    change(model)
    reason = departure(model)
    assert reason is not None
    with pytest.raises(ValueError, match="decoder=cpu_onednn: ") as error:
        Engine(model, decoder="cpu_onednn")
    assert reason in str(error.value)
    with pytest.raises(ValueError, match="decoder=cpu_onednn: "):
        engine.prefill([[1, 2]], engine.new_cache(1, 0))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (hook_one_linear, r"model\.layers\.1\.mlp\.up_proj has hooks .*half_input"),
        (subclass_mlp, r"model\.layers\.0\.mlp has class Geglu, the stock network MLP"),
        (norm_queries, r"model\.layers\.1\.self_attn has children .*own_norm"),
        (add_bias, r"model\.layers\.0\.self_attn\.q_proj has parameters .*'bias': \('Parameter'"),
        (other_eps, r"model\.layers\.1\.input_layernorm has eps 3\.0, the stock network 1e-05"),
        (replace_forward, r"model\.layers\.0\.mlp has forward .*, the stock network absent"),
        (drop_a_layer, r"model\.layers has children \['0'\], the stock network \['0', '1'\]"),
        (subclass_network, r"the network is of class Mine, not Mistral"),
    ],
)
def test_the_reason_names_the_module_and_the_difference(change, words):
    model = toy_model(toy_config())
    assert departure(model) is None
    change(model)
    with pytest.raises(ValueError, match=words):
        Engine(model, decoder="cpu_onednn")


@pytest.mark.parametrize("register", [register_module_forward_hook, "before"])
def test_hooks_of_all_modules_count(decoder, register):
    model = toy_model(toy_config())
    engine = Engine(model)
    seen = []
    if register == "before":
        handle = register_module_forward_pre_hook(lambda module, _: seen.append(module))
    else:
        handle = register(lambda module, _, output: seen.append(module))
    try:
        check_equal(model, engine)
        assert engine.decoder is None
        with pytest.raises(ValueError, match="global forward hook"):
            Engine(model, decoder="cpu_onednn")
        seen.clear()
        cache = engine.new_cache(1, 0)
        engine.prefill([[1, 2]], cache)
        engine.decode(torch.tensor([3]), cache)
        assert seen.count(model.lm_head) == 2
    finally:
        handle.remove()
    check_equal(model, engine)
    assert isinstance(engine.decoder, decoder)


def test_a_forward_replaced_in_the_class_counts(decoder, monkeypatch):
    model = toy_model(toy_config())
    engine = Engine(model)
    before = check_equal(model, engine)
    monkeypatch.setattr(MLP, "forward", Geglu.forward)
    after = check_equal(model, engine)
    assert (after - before).abs().max() > 1e-2
    assert engine.decoder is None
    assert "MLP with another forward" in str(departure(model))


def test_without_its_hook_a_network_is_decoded_fast_again(decoder):
    model = toy_model(toy_config())
    engine = Engine(model)
    handle = model.lm_head.register_forward_hook(half)
    check_equal(model, engine)
    assert engine.decoder is None
    handle.remove()
    check_equal(model, engine)
    assert isinstance(engine.decoder, decoder)


def test_other_weights_in_place_of_the_old_ones_are_seen_with_the_next_prompts(decoder):
    model = toy_model(toy_config())
    engine = Engine(model)
    check_equal(model, engine)
    other = toy_model(toy_config(), seed=1)
    for block, theirs in zip(model.model.layers, other.model.layers, strict=True):
        block.mlp.up_proj.weight = theirs.mlp.up_proj.weight
    model.model.norm = other.model.norm
    check_equal(model, engine)
    assert isinstance(engine.decoder, decoder)


def adapted():
    model = toy_model(toy_config())
    add_lora(model, LoraConfig(rank=3, alpha=5.0, targets=["q_proj", "mlp.down_proj"]))
    randomize(model, 0.3)
    return model


def test_an_adapter_is_part_of_the_stock_network(decoder):
    model = adapted()
    engine = Engine(model)
    assert isinstance(engine.decoder, decoder)
    first = check_equal(model, engine)
    for module in model.modules():
        if isinstance(module, LoraLinear):
            module.scale = 0.0  # as who switches it off
    second = check_equal(model, engine)
    assert isinstance(engine.decoder, decoder)
    assert (first - second).abs().max() > 1e-2


def subclass_adapter(model):
    model.model.layers[0].mlp.down_proj.__class__ = Tripled


def hook_adapter(model):
    model.model.layers[0].self_attn.q_proj.lora_A.register_forward_hook(half)


def widen_adapter(model):
    """DoRA's magnitude, as a hook would apply it."""
    linear = model.model.layers[0].self_attn.q_proj
    linear.magnitude = nn.Parameter(torch.full((linear.out_features,), 2.0))
    linear.register_forward_hook(lambda module, _, output: output * module.magnitude)


def bias_in_adapter(model):
    linear = model.model.layers[1].self_attn.q_proj.lora_B
    linear.bias = nn.Parameter(torch.ones(linear.out_features))


@pytest.mark.parametrize("change", [subclass_adapter, hook_adapter, widen_adapter])
def test_a_changed_adapter_is_decoded_as_it_is(decoder, change):
    model = adapted()
    engine = Engine(model)
    change(model)
    check_equal(model, engine)
    assert engine.decoder is None
    with pytest.raises(ValueError, match=r"decoder=cpu_onednn: model\.layers\.0"):
        Engine(model, decoder="cpu_onednn")


def test_a_bias_in_an_adapter_and_dropout_are_no_stock_network():
    model = adapted()
    bias_in_adapter(model)
    assert "lora_B has parameters" in str(departure(model))
    model = adapted()
    model.model.layers[0].self_attn.q_proj.seeds = torch.tensor([1])
    assert "q_proj has seeds" in str(departure(model))


@pytest.mark.parametrize("change", CHANGES)
def test_no_step_is_recorded_of_a_changed_network(monkeypatch, change):
    """Where a CUDA device and triton are had, which are stood for here."""
    monkeypatch.setattr("inference.generation.decoders.cuda_graph.use_triton", lambda x: True)
    model = toy_model(toy_config(hidden_size=64, head_dim=16))
    assert supports_cuda_graph(model)
    change(model)
    assert not supports_cuda_graph(model)


def test_no_step_is_recorded_of_a_variant_with_further_parameters(monkeypatch):
    """Also of a variant that is stock for its config, as QK-norm would be."""
    decoder = "inference.generation.decoders.cuda_graph"
    monkeypatch.setattr(f"{decoder}.use_triton", lambda x: True)
    monkeypatch.setattr(f"{decoder}.departure", lambda model: None)
    model = toy_model(toy_config(hidden_size=64, head_dim=16))
    add_lora(model, LoraConfig(rank=2, alpha=4.0))
    assert supports_cuda_graph(model)
    model.model.layers[1].self_attn.q_norm = nn.RMSNorm(16)
    assert not supports_cuda_graph(model)


def test_stock_networks_of_every_shape_are_stock():
    shapes = [
        {},
        {"tie_word_embeddings": True, "sliding_window": None},
        {"num_hidden_layers": 12, "num_padded_ids": 3},
        {"model_type": "llama", "sliding_window": None, "num_key_value_heads": 4},
    ]
    for shape in shapes:
        model = toy_model(toy_config(**shape))
        assert departure(model) is None
        assert departure(model.eval().requires_grad_(False)) is None
        assert departure(copy.deepcopy(model).bfloat16()) is None
        add_lora(model, LoraConfig(rank=2, alpha=1.0, dropout=0.3))
        assert departure(model) is None
