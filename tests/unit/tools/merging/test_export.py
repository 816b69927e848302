"""Folders merged into one: what others open computes what the parts said, and little is held."""

import json

import pytest
import torch
from safetensors import safe_open

from model.lora.layer import LoraConfig
from pretrained.adapter import AdapterFolder, load_adapter
from pretrained.load import open_model
from pretrained.safetensors_folder import PretrainedFolder, load_pretrained, write_folder
from tests.helpers.toy import random_tokens, toy_config, toy_model
from tests.unit.model.test_lora import adapted, save
from tokenizer.tokenizer import Tokenizer
from tools.merging.export import ExportConfig, export_folder

LORA = LoraConfig(rank=4, alpha=8.0, modules_to_save=["embed_tokens"])


def base_folder(sample, folder, seed=0, dtype=torch.float32, vocab_size=2048, **shape):
    config = toy_config(vocab_size=vocab_size, **shape)
    tokenizer = Tokenizer.open(sample / "tokenizer")
    model = toy_model(config, seed=seed)
    options = {"tokenizer": tokenizer, "dtype": dtype, "max_shard_bytes": 300_000}
    write_folder(folder, config, model.named_parameters(), **options)
    return folder


def export(**options):
    export_folder(ExportConfig(**options), progress=False)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_merged_folder_computes_what_the_adapter_does(sample, tmp_path, dtype):
    base = base_folder(sample, tmp_path / "base", dtype=dtype)
    adapter = save(adapted(base, LORA), tmp_path / "adapter", base)
    (adapter / "chat_template.jinja").write_text("{{ messages }}")
    export(folder=str(adapter), out=str(tmp_path / "out"), max_shard_gib=0.0001)
    model = load_pretrained(base, dtype=torch.float32)
    load_adapter(model, AdapterFolder(adapter), PretrainedFolder(base))
    merged = PretrainedFolder(tmp_path / "out")
    assert {merged.dtype(name) for name in merged.shapes} == {dtype}
    for name, module in model.named_modules():
        if hasattr(module, "lora_A"):
            # In fp32, and rounded once.
            exact = module.weight + module.scale * module.lora_B.weight @ module.lora_A.weight
            found = merged.read(f"{name}.weight", slice(None))
            torch.testing.assert_close(found, exact.detach().to(dtype), rtol=1e-6, atol=1e-6)
    tokens = random_tokens(model.config, 2, 20)
    if dtype == torch.float32:
        one, other = load_pretrained(tmp_path / "out")(tokens), model(tokens)
        torch.testing.assert_close(
            one, other, rtol=0, atol=1e-5 * float(other.detach().abs().max())
        )
    out = tmp_path / "out"
    names = {path.name for path in out.iterdir()}
    assert {"tokenizer.model", "tokenizer.json", "config.json", "chat_template.jinja"} <= names
    assert len(list((tmp_path / "out").glob("model-*.safetensors"))) > 2
    assert (
        json.loads((tmp_path / "out" / "generation_config.json").read_text())["eos_token_id"] == 2
    )


def test_a_copy_in_another_dtype(sample, tmp_path):
    base = base_folder(sample, tmp_path / "base")
    export(folder=str(base), out=str(tmp_path / "out"), dtype="bfloat16")
    with safe_open(tmp_path / "out" / "model.safetensors", "pt") as file:
        for name in file.keys():  # noqa: SIM118
            expected = PretrainedFolder(base).read(name, slice(None)).bfloat16()
            assert torch.equal(file.get_tensor(name), expected)


def test_a_chat_vector_folder(sample, tmp_path):
    ours = base_folder(sample, tmp_path / "ours", 0)
    chat = base_folder(sample, tmp_path / "chat", 1)
    base = base_folder(sample, tmp_path / "base", 2)
    options = {"folder": str(ours), "chat": str(chat), "base": str(base), "scale": 0.5}
    export(merge="chat_vector", out=str(tmp_path / "out"), **options)
    one, two, three, found = (
        PretrainedFolder(tmp_path / x) for x in ("ours", "chat", "base", "out")
    )
    for name in found.shapes:
        a, b, c = (folder.read(name, slice(None)) for folder in (one, two, three))
        torch.testing.assert_close(found.read(name, slice(None)), a + 0.5 * (b - c))
    other = tmp_path / "other"
    other.mkdir()
    model = Tokenizer.open(sample / "tokenizer")
    export(folder=str(ours), out=str(other / "copy"))
    from tokenizer.expansion.candidates import read_model

    changed = read_model(other / "copy" / "tokenizer.model")
    changed.pieces[1000].piece, changed.pieces[1001].piece = (
        changed.pieces[i].piece for i in (1001, 1000)
    )
    (other / "copy" / "tokenizer.model").write_bytes(changed.SerializeToString())
    (other / "copy" / "tokenizer.json").unlink()  # of the pieces before the change
    options |= {"chat": str(other / "copy"), "out": str(tmp_path / "refused")}
    with pytest.raises(ValueError, match=rf"id 1000 is '{model.piece(1000)}' and "):
        export(merge="chat_vector", **options)
    assert not (tmp_path / "refused").exists()


def test_two_adapters(sample, tmp_path):
    base = base_folder(sample, tmp_path / "base")
    folders = [save(adapted(base, LORA, s), tmp_path / f"a{s}", base) for s in (1, 2)]
    export(
        folder=str(base),
        merge="adapters",
        adapters=[str(folder) for folder in folders],
        weights=[0.5, 0.25],
        out=str(tmp_path / "out"),
    )
    name = "model.layers.1.mlp.down_proj"
    expected = PretrainedFolder(base).read(f"{name}.weight", slice(None)).clone()
    for folder, weight in zip(folders, (0.5, 0.25), strict=True):
        a, b = (AdapterFolder(folder).read(f"{name}.lora_{x}.weight", slice(None)) for x in "AB")
        expected += weight * 2 * b @ a
    found = PretrainedFolder(tmp_path / "out").read(f"{name}.weight", slice(None))
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"folder": "nowhere"}, "no config.json"),
        ({"out": "base"}, "out=.* exists"),
        ({"merge": "sum"}, "merge='sum': one of"),
        ({"dtype": "int8"}, "dtype='int8'"),
        ({"merge": "adapters"}, "needs adapters"),
        (
            {"merge": "adapters", "adapters": ["adapter"], "weights": [1.0, 2.0]},
            "give one for each of adapters",
        ),
        ({"merge": "adapters", "adapters": ["base"], "weights": [1.0]}, "no adapter_config.json"),
        (
            {"merge": "adapters", "adapters": ["adapter"], "weights": [1.0], "folder": "other"},
            "was trained on other weights",
        ),
        ({"adapters": ["adapter"], "weights": [1.0]}, "has no meaning with merge=none"),
        ({"merge": "chat_vector", "chat": "other"}, "needs base"),
        ({"merge": "chat_vector", "chat": "wide", "base": "base"}, "another architecture"),
        ({"merge": "chat_vector", "chat": "adapter", "base": "base"}, "is an adapter; merge it"),
        ({"scale": float("inf")}, "must be finite"),
        ({"max_shard_gib": 0.0}, "must be positive"),
        ({"folder": "adapter", "base": "other"}, "was trained on other weights"),
        ({"folder": "adapter", "base": "nowhere"}, "but that path has no model"),
    ],
    ids=str,
)
def test_refusals(sample, tmp_path, monkeypatch, options, message):
    monkeypatch.chdir(tmp_path)
    base = base_folder(sample, tmp_path / "base")
    base_folder(sample, tmp_path / "other", 1)
    base_folder(sample, tmp_path / "wide", intermediate_size=64)
    save(adapted(base, LORA), tmp_path / "adapter", base)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with pytest.raises(ValueError, match=message):
        export(**({"folder": "base", "out": "out"} | options))
    assert before == {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    ("how", "rows"),
    [
        ({"use_dora": True}, None),
        ({"target_modules": ["q_proj", "embed_tokens"]}, None),
        ({"modules_to_save": ["embed_tokens", "lm_head"]}, 2056),
    ],
    ids=str,
)
def test_kinds_of_adapters_become_folders_that_transformers_opens(sample, tmp_path, how, rows):
    """And chat opens the adapter itself, merged while it is loaded."""
    from tests.unit.pretrained.test_adapters_of_peft import IDS, hf_model, logits_of, peft_writes

    shape = {"sliding_window": None, "tie_word_embeddings": rows is None}
    base = base_folder(sample, tmp_path / "base", **shape)
    expected = peft_writes(base, tmp_path / "adapter", rows=rows, **how)
    export(folder=str(tmp_path / "adapter"), out=str(tmp_path / "out"))
    limit = 1e-5 * float(expected.abs().max())
    found = logits_of(hf_model(tmp_path / "out"))
    torch.testing.assert_close(found, expected, rtol=0, atol=limit)
    model, _ = open_model(tmp_path / "adapter", torch.float32, "cpu")
    with torch.no_grad():
        torch.testing.assert_close(model(IDS), expected, rtol=0, atol=limit)
    export(
        folder=str(base),
        merge="adapters",
        adapters=[str(tmp_path / "adapter")],
        weights=[0.5],
        out=str(tmp_path / "half"),
    )
    options = {"blend": str(base), "blend_weight": 0.5}
    if "target_modules" in how:  # which unties the head
        with pytest.raises(ValueError, match="has another architecture than"):
            export(folder=str(tmp_path / "adapter"), out=str(tmp_path / "blend"), **options)
        return
    export(folder=str(tmp_path / "adapter"), out=str(tmp_path / "blend"), **options)
    one, other = (PretrainedFolder(tmp_path / name) for name in ("half", "blend"))
    for name in one.shapes:
        torch.testing.assert_close(one.read(name, slice(None)), other.read(name, slice(None)))


def test_a_tokenizer_that_does_not_fit_the_base_of_an_adapter_is_left_out(sample, tmp_path, capsys):
    """PEFT trains on such a base as it is. The base alone, or an adapter that brings the tokenizer,
    is refused."""
    from tests.unit.pretrained.test_adapters_of_peft import hf_model, logits_of, peft_writes

    base = base_folder(sample, tmp_path / "base", vocab_size=2040, sliding_window=None)
    expected = peft_writes(base, tmp_path / "adapter", target_modules=["q_proj"])
    with pytest.raises(ValueError, match="has 2048 pieces, the model 2040 rows"):
        export(folder=str(base), out=str(tmp_path / "copy"))
    out = tmp_path / "out"
    export_folder(ExportConfig(folder=str(tmp_path / "adapter"), out=str(out)))
    found = logits_of(hf_model(out))
    assert (found - expected).abs().max() < 1e-5 * expected.abs().max()
    assert not list(out.glob("tokenizer*"))
    assert "written without a tokenizer" in capsys.readouterr().out
    for path in base.glob("tokenizer*"):
        path.rename(tmp_path / "adapter" / path.name)
    with pytest.raises(ValueError, match="has 2048 pieces, the model 2040 rows"):
        export(folder=str(tmp_path / "adapter"), out=str(tmp_path / "again"))


def test_the_command(sample, tmp_path):
    import scripts.export  # noqa: F401 its schema
    from conf.suggest import check_overrides

    check_overrides("export", ["folder=a", "out=b", "merge=adapters"])
    with pytest.raises(ValueError, match="merge"):
        check_overrides("export", ["merg=adapters"])
