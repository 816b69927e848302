"""Adapters: the same numbers as PEFT in both directions, and nothing that does not fit."""

import json
import shutil
import warnings

import pytest
import torch
from safetensors.torch import load_file, save_file

from model.adapters import InitialAdapter, adapter_names, add_lora, match_targets, seed_dropout
from model.documents import Documents
from model.lora.layer import LoraConfig, LoraLinear, dropout_mask
from model.transformer import Mistral
from pretrained.adapter import CONFIG, WEIGHTS, AdapterFolder, load_adapter, save_adapter
from pretrained.merged import MergedAdapters
from pretrained.safetensors_folder import (
    PretrainedFolder,
    load_pretrained,
    save_pretrained,
    write_folder,
)
from tests.helpers.toy import hf_twin, random_segments, random_tokens, toy_config, toy_model
from tools.merging.arithmetic import ChatVector

LEAVES = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
CASES = {
    "LoRA": {"rank": 4, "alpha": 8.0},
    "rsLoRA": {"rank": 4, "alpha": 8.0, "rslora": True},
    "some linears": {"rank": 2, "alpha": 3.0, "targets": ["q_proj", "mlp.down_proj"]},
    "one linear": {"rank": 2, "alpha": 3.0, "targets": ["layers.1.self_attn.v_proj"]},
    "with the embeddings": {
        "rank": 4,
        "alpha": 8.0,
        "modules_to_save": ["embed_tokens", "lm_head"],
    },
    "with the head": {"rank": 4, "alpha": 8.0, "modules_to_save": ["lm_head"]},
}
GROWN = {"vocab_size": 64, "num_base_ids": 40, "num_padded_ids": 3}


def folder_of(tmp_path, name="base", seed=0, **shape):
    folder = tmp_path / name
    save_pretrained(toy_model(toy_config(**shape), seed=seed), folder)
    return folder


def adapted(folder, config, seed=1):
    """The model in a folder with an adapter whose every tensor is random."""
    model = load_pretrained(folder)
    add_lora(model, config)
    names = adapter_names(model)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name in names:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.1)
    return model


def save(model, folder, base):
    names = adapter_names(model)
    tensors = [(name, p) for name, p in model.named_parameters() if name in names]
    save_adapter(folder, model, tensors, base=base, base_digest=PretrainedFolder(base).digest)
    return folder


def peft_model(base, adapter, trainable=False):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        peft = pytest.importorskip("peft", reason="compares with PEFT, which is not installed")
        twin = hf_twin(load_pretrained(base))
        return peft.PeftModel.from_pretrained(twin, adapter, is_trainable=trainable)


def largest_difference(one, other):
    one, other = one.detach(), other.detach()
    return float((one - other).abs().max() / other.abs().max())


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("shape", [{}, {"tie_word_embeddings": True}, GROWN], ids=str)
def test_peft_computes_the_same_logits_gradients_and_merge(tmp_path, case, shape):
    """Ours, saved, loaded in PEFT: logits, one step's gradients, merged folders; within 1e-5."""
    options = dict(CASES[case])
    if shape.get("tie_word_embeddings") and "modules_to_save" in options:
        options["modules_to_save"] = ["embed_tokens"]
    base = folder_of(tmp_path, **shape)
    model = adapted(base, LoraConfig(**options))
    saved = save(model, tmp_path / "adapter", base)
    twin = peft_model(base, saved, trainable=True)
    tokens = random_tokens(model.config, 2, 20)
    logits, theirs = model(tokens), twin(input_ids=tokens, use_cache=False).logits
    assert largest_difference(logits, theirs) < 1e-5
    assert largest_difference(logits, load_pretrained(base)(tokens)) > 1e-2

    logits.square().mean().backward()
    theirs.square().mean().backward()
    gradients = {
        name.removeprefix("base_model.model.")
        .replace("modules_to_save.default.", "")
        .replace(".default", ""): p.grad
        for name, p in twin.named_parameters()
        if p.requires_grad
    }
    assert adapter_names(model) <= gradients.keys() | {"lm_head.weight"}
    for name, parameter in model.named_parameters():
        assert (parameter.grad is not None) == (name in adapter_names(model))
        if parameter.grad is not None:
            assert largest_difference(parameter.grad, gradients[name]) < 1e-5

    source = MergedAdapters(PretrainedFolder(base), [(AdapterFolder(saved), 1.0)])
    tensors = ((name, source.read(name, slice(None))) for name in source.shapes)
    write_folder(tmp_path / "merged", source.config, tensors)
    with torch.no_grad():
        ours = load_pretrained(tmp_path / "merged")(tokens)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            merged = twin.merge_and_unload()
        assert largest_difference(ours, merged(tokens, use_cache=False).logits) < 1e-5
        assert largest_difference(ours, logits) < 1e-5


@pytest.mark.parametrize("rslora", [False, True])
@pytest.mark.parametrize("saved", [None, ["embed_tokens", "lm_head"]])
def test_an_adapter_of_peft_is_read(tmp_path, rslora, saved):
    base = folder_of(tmp_path, **GROWN)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        peft = pytest.importorskip("peft", reason="compares with PEFT, which is not installed")
        config = peft.LoraConfig(
            r=4,
            lora_alpha=16,
            target_modules="all-linear",
            use_rslora=rslora,
            modules_to_save=saved,
            task_type="CAUSAL_LM",
        )
        twin = peft.get_peft_model(hf_twin(load_pretrained(base)), config)
        torch.manual_seed(0)
        with torch.no_grad():
            for parameter in twin.parameters():
                if parameter.requires_grad:
                    parameter.normal_(0, 0.2)
        twin.save_pretrained(tmp_path / "theirs")
    model = load_pretrained(base)
    load_adapter(model, AdapterFolder(tmp_path / "theirs"), PretrainedFolder(base))
    tokens = random_tokens(model.config, 2, 20)
    with torch.no_grad():
        theirs = twin(input_ids=tokens, use_cache=False).logits
        assert largest_difference(model(tokens), theirs) < 1e-5
    again = save(model, tmp_path / "ours", base)
    one, other = load_file(tmp_path / "theirs" / WEIGHTS), load_file(again / WEIGHTS)
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_a_fresh_adapter_changes_nothing_and_follows_from_the_seed(tmp_path):
    base = folder_of(tmp_path)
    plain, model = load_pretrained(base), load_pretrained(base)
    add_lora(model, LoraConfig(rank=4, alpha=8.0))
    tokens = random_tokens(model.config, 2, 20)
    drawn = []
    for seed in (0, 0, 1):
        source = InitialAdapter(PretrainedFolder(base), model, seed)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                parameter.copy_(source.read(name, slice(None)))
        drawn.append(model.model.layers[0].mlp.up_proj.lora_A.weight.detach().clone())
        assert torch.equal(model(tokens), plain(tokens))
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])
    assert drawn[0].abs().max() <= 32**-0.5
    assert drawn[0].std() == pytest.approx(32**-0.5 / 3**0.5, rel=0.1)


def test_targets_by_name_and_pattern(tmp_path):
    model = Mistral(toy_config())
    assert len(match_targets(model, ["all"])) == 2 * len(LEAVES)
    assert match_targets(model, ["mlp.up_proj"]) == [
        f"model.layers.{i}.mlp.up_proj" for i in (0, 1)
    ]
    assert match_targets(model, [r".*layers\.1\..*(q|k)_proj"]) == [
        f"model.layers.1.self_attn.{x}_proj" for x in "qk"
    ]
    assert match_targets(model, ["v_proj", "layers.0.self_attn.v_proj"]) == [
        f"model.layers.{i}.self_attn.v_proj" for i in (0, 1)
    ]


@pytest.mark.parametrize(
    ("targets", "message"),
    [
        (["qq_proj"], "'qq_proj' matches no linear; the linears of a layer are down_proj"),
        (["q_proj", "proj"], "'proj' matches no linear"),
        (["lm_head"], "lora.modules_to_save="),
        (["*q_proj"], "is not a valid regular expression"),
    ],
)
def test_targets_that_match_nothing(targets, message):
    model = Mistral(toy_config())
    with pytest.raises(ValueError, match=r"lora\.targets") as error:
        add_lora(model, LoraConfig(rank=2, alpha=2.0, targets=targets))
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("rank", 0),
        ("alpha", 0.0),
        ("alpha", float("nan")),
        ("dropout", 1.0),
        ("lr_ratio", -1.0),
        ("modules_to_save", ["norm"]),
        ("targets", []),  # PEFT opens no adapter without any
    ],
)
def test_bad_settings(field, value):
    with pytest.raises(ValueError, match=rf"lora\.{field}"):
        LoraConfig(**({"rank": 2, "alpha": 2.0} | {field: value}))


def test_the_head_of_a_tied_model_is_its_embedding():
    model = Mistral(toy_config(tie_word_embeddings=True))
    with pytest.raises(ValueError, match="is the embedding of this model"):
        add_lora(model, LoraConfig(rank=2, alpha=2.0, modules_to_save=["lm_head"]))


def test_dropout_depends_on_the_row_alone_and_keeps_the_mean():
    seeds = torch.tensor([3, 4, 5])
    mask = dropout_mask(seeds, 200, 300, 0.2)
    assert torch.equal(mask[1:2], dropout_mask(seeds[1:2], 200, 300, 0.2))
    assert not torch.equal(mask, dropout_mask(seeds + 9, 200, 300, 0.2))
    # 180,000 draws: four standard deviations are 0.0038.
    assert mask.float().mean() == pytest.approx(0.8, abs=0.004)
    for x in (mask[0].float(), mask[0].float().T):
        between = torch.corrcoef(x[:40])
        assert (between - torch.eye(40)).abs().max() < 0.35
    model = toy_model(toy_config())
    add_lora(model, LoraConfig(rank=4, alpha=8.0, dropout=0.5))
    for parameter in model.parameters():
        parameter.data.normal_(0, 0.2)
    tokens = random_tokens(model.config, 3, 20)
    documents = Documents.from_segments(random_segments(3, 20))
    seed_dropout(model, [1, 2, 3])
    three = model(tokens, documents=documents, labels=tokens).rows
    seed_dropout(model, [2])
    single = Documents.from_segments(random_segments(3, 20)[1:2])
    assert model(tokens[1:2], documents=single, labels=tokens[1:2]).rows[0] == pytest.approx(
        float(three[1]), rel=1e-5
    )
    seed_dropout(model, None)
    without = model(tokens, documents=documents, labels=tokens).rows
    assert not torch.allclose(without, three, rtol=1e-3)


def test_a_frozen_base_is_kept_in_its_dtype_and_the_rest_in_fp32():
    model = Mistral(toy_config())
    add_lora(model, LoraConfig(rank=2, alpha=2.0, modules_to_save=["lm_head"]), torch.bfloat16)
    for name, parameter in model.named_parameters():
        trained = name in adapter_names(model)
        assert parameter.requires_grad == trained
        assert parameter.dtype == (torch.float32 if trained else torch.bfloat16)
    assert sum(isinstance(module, LoraLinear) for module in model.modules()) == 14


def test_adapters_are_merged_with_weights(tmp_path):
    base = folder_of(tmp_path)
    config = LoraConfig(rank=3, alpha=5.0, modules_to_save=["lm_head"])
    folders = [save(adapted(base, config, s), tmp_path / f"a{s}", base) for s in (1, 2)]
    source = MergedAdapters(
        PretrainedFolder(base),
        [(AdapterFolder(folders[0]), 0.25), (AdapterFolder(folders[1]), -2.0)],
    )
    for name in source.shapes:
        expected = PretrainedFolder(base).read(name, slice(None)).clone()
        for folder, weight in zip(folders, (0.25, -2), strict=True):
            tensors = load_file(folder / WEIGHTS)
            stem = f"base_model.model.{name.removesuffix('.weight')}"
            if f"{stem}.lora_A.weight" in tensors:
                b, a = (tensors[f"{stem}.lora_{x}.weight"] for x in "BA")
                expected += weight * 5 / 3 * b @ a
            elif f"{stem}.weight" in tensors:
                original = PretrainedFolder(base).read(name, slice(None))
                expected += weight * (tensors[f"{stem}.weight"] - original)
        found = source.read(name, slice(None))
        torch.testing.assert_close(found, expected)
        torch.testing.assert_close(source.read(name, slice(3, 9)), expected[3:9])


def test_a_chat_vector_moves_the_shared_rows_only(tmp_path):
    ours = folder_of(tmp_path, "ours", 0, vocab_size=64, num_base_ids=50, num_padded_ids=4)
    chat = folder_of(tmp_path, "chat", 1, vocab_size=52)
    base = folder_of(tmp_path, "base", 2, vocab_size=50)
    folders = [PretrainedFolder(x) for x in (ours, chat, base)]
    source = ChatVector(*folders, scale=0.5)
    for name in source.shapes:
        one, two, three = (f.read(name, slice(None)) for f in folders)
        expected = one.clone()
        rows = 50 if name in ("model.embed_tokens.weight", "lm_head.weight") else len(one)
        expected[:rows] += 0.5 * (two[:rows] - three[:rows])
        torch.testing.assert_close(source.read(name, slice(None)), expected)
        torch.testing.assert_close(source.read(name, slice(5, None)), expected[5:])
        assert torch.equal(source.read(name, slice(None))[rows:], one[rows:])
    other = PretrainedFolder(folder_of(tmp_path, "other", 3, intermediate_size=64))
    with pytest.raises(ValueError, match=r"another architecture .*down_proj"):
        ChatVector(folders[0], other, folders[2], 1.0)


def test_a_chat_model_of_another_rotary_base_is_refused(tmp_path):
    ours, base = (PretrainedFolder(folder_of(tmp_path, name)) for name in ("ours", "base"))
    chat = PretrainedFolder(folder_of(tmp_path, "chat", rope_theta=1e6))
    with pytest.raises(ValueError, match=r"was not tuned from .*: rope_theta is 1000000\.0 and 1"):
        ChatVector(ours, chat, base, 1.0)


def test_a_tied_model_whose_embedding_was_trained_apart_is_merged_only(tmp_path):
    """PEFT's default: the head then stays what it was, and the two are no longer one."""
    base = folder_of(tmp_path, tie_word_embeddings=True)
    config = LoraConfig(rank=2, alpha=2.0, modules_to_save=["embed_tokens"])
    folder = save(adapted(base, config), tmp_path / "adapter", base)
    raw = json.loads((folder / CONFIG).read_text())
    assert raw["ensure_weight_tying"]
    (folder / CONFIG).write_text(json.dumps(raw | {"ensure_weight_tying": False}))
    tensors = load_file(folder / WEIGHTS)
    del tensors["base_model.model.lm_head.weight"]
    save_file(tensors, folder / WEIGHTS)
    merged = MergedAdapters(PretrainedFolder(base), [(AdapterFolder(folder), 1.0)])
    assert not merged.config.tie_word_embeddings
    with pytest.raises(ValueError, match="head of a tied model are trained independently"):
        load_adapter(load_pretrained(base), AdapterFolder(folder), PretrainedFolder(base))


def test_a_digest_tells_models_apart_that_differ_in_new_rows_only(tmp_path):
    digests = []
    for change in (0.0, 1.0):
        model = toy_model(toy_config(**GROWN))
        with torch.no_grad():
            model.lm_head.weight[60] += change  # the last id that stands for a token
        save_pretrained(model, tmp_path / str(change))
        digests.append(PretrainedFolder(tmp_path / str(change)).digest)
    assert digests[0] != digests[1]


def test_an_adapter_is_written_with_the_same_bytes(tmp_path):
    base = folder_of(tmp_path)
    model = adapted(base, LoraConfig(rank=2, alpha=2.0))
    written = {(save(model, tmp_path / f"{n}", base) / WEIGHTS).read_bytes() for n in range(8)}
    assert len(written) == 1


def broken_adapter(tmp_path, damage):
    base = folder_of(tmp_path)
    folder = save(adapted(base, LoraConfig(rank=4, alpha=8.0)), tmp_path / "adapter", base)
    config, weights = folder / CONFIG, folder / WEIGHTS
    raw, tensors = json.loads(config.read_text()), load_file(weights)
    first = next(name for name in sorted(tensors) if "lora_A" in name)
    if damage == "no config":
        config.unlink()
    elif damage == "no weights":
        weights.unlink()
    elif damage == "config cut off":
        config.write_text(config.read_text()[:30])
    elif damage == "weights cut off":
        weights.write_bytes(weights.read_bytes()[:-100])
    elif damage == "another rank":
        config.write_text(json.dumps(raw | {"r": 8}))
    elif damage == "no rank":
        config.write_text(json.dumps({k: v for k, v in raw.items() if k != "r"}))
    elif damage == "a tensor less":
        save_file({k: v for k, v in tensors.items() if k != first}, weights)
    elif damage == "a tensor of something else":
        save_file(tensors | {"base_model.model.model.norm.lora_E": torch.ones(32)}, weights)
    else:
        key, value = damage
        config.write_text(json.dumps(raw | {key: value}))
    return base, folder


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ("no config", "no adapter_config.json"),
        ("no weights", "no adapter_model.safetensors; the adapter is incomplete"),
        ("config cut off", "is not JSON"),
        ("weights cut off", "the file is damaged"),
        ("another rank", "says r=8, the tensors of .* have rank 4"),
        ("no rank", "says r=8, the tensors of .* have rank 4"),  # PEFT's default
        ("a tensor less", "which is not a complete update: a part is missing"),
        ("a tensor of something else", "norm.lora_E belongs to a kind of adapter that is not impl"),
        (("peft_type", "IA3"), "peft_type='IA3'; only LORA adapters are read"),
        (("use_dora", True), "use_dora=True, but .* has no lora_magnitude_vector"),
        (("rank_pattern", {"q_proj": 8}), "says r=8, the tensors of .*q_proj have rank 4"),
        (("bias", "some"), "bias='some': must be one of none, all, lora_only"),
        (("init_lora_weights", "pissa"), "init_lora_weights='pissa' changes the base"),
    ],
    ids=str,
)
def test_bad_adapters(tmp_path, damage, message):
    base, folder = broken_adapter(tmp_path, damage)
    model = load_pretrained(base)
    with pytest.raises(ValueError, match=message):
        load_adapter(model, AdapterFolder(folder), PretrainedFolder(base))


@pytest.mark.parametrize(
    ("shape", "seed", "message"),
    [
        ({}, 5, "was trained on other weights than"),
        ({"hidden_size": 64}, 0, "was trained on another base: .* has shape"),
        ({"num_hidden_layers": 1}, 0, "was trained on another base, or .* it changes .* not have"),
    ],
)
def test_an_adapter_of_another_base_is_refused(tmp_path, shape, seed, message):
    base = folder_of(tmp_path)
    folder = save(adapted(base, LoraConfig(rank=4, alpha=8.0)), tmp_path / "adapter", base)
    other = PretrainedFolder(folder_of(tmp_path, "other", seed, **shape))
    with pytest.raises(ValueError, match=message):
        MergedAdapters(other, [(AdapterFolder(folder), 1.0)])
    with pytest.raises(ValueError, match=message):
        load_adapter(load_pretrained(other.folder), AdapterFolder(folder), other)


def test_an_existing_folder_is_not_overwritten(tmp_path):
    base = folder_of(tmp_path)
    model = adapted(base, LoraConfig(rank=4, alpha=8.0))
    save(model, tmp_path / "adapter", base)
    before = (tmp_path / "adapter" / WEIGHTS).read_bytes()
    with pytest.raises(ValueError, match="exists"):
        save(model, tmp_path / "adapter", base)
    assert (tmp_path / "adapter" / WEIGHTS).read_bytes() == before
    shutil.rmtree(tmp_path / "adapter")
    save(model, tmp_path / "adapter", base)
