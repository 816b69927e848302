"""Adapters as PEFT writes them: they compute what PEFT computes, or are refused by the true reason.

PEFT writes every adapter here, and the logits of its `PeftModel` decide. On a tied model its
merge_and_unload adds an update of the embedding or of the head to the table that both share, and
then computes something else than the adapter did.
"""

import json
import shutil
import warnings

import pytest
import torch
from safetensors.torch import load_file, save_file

from pretrained.adapter import WEIGHTS, AdapterFolder, load_adapter
from pretrained.adapter_config import CONFIG
from pretrained.adapter_tensors import PICKLED
from pretrained.folder import open_folder
from pretrained.merged import MergedAdapters
from pretrained.safetensors_folder import PretrainedFolder, load_network, load_pretrained
from tests.helpers.toy import toy_config, toy_model
from tests.unit.model.test_lora import largest_difference
from training.sources import open_weights

IDS = torch.arange(3, 30)[None]
ROWS, GROWN_ROWS = 64, 72
QV = {"target_modules": ["q_proj", "v_proj"]}
TABLES = {"modules_to_save": ["embed_tokens", "lm_head"]}
ON_TABLES = {"target_modules": ["q_proj", "embed_tokens", "lm_head"]}
AS_UNSLOTH = r"(?:.*?(?:model).*?(?:layers).*?).*?(?:self_attn|mlp).*?(?:q_proj|o_proj|up_proj).*?"
# What LoraConfig and, under `save`, save_pretrained are given.
PLAIN = {
    "every linear": {},
    "rsLoRA": {"use_rslora": True},
    "without o_proj": {"exclude_modules": ["o_proj"]},
    "without a pattern": {"exclude_modules": r".*layers\.1\..*"},
    "one layer": QV | {"layers_to_transform": [0]},
    "a layer by pattern": QV | {"layers_to_transform": 1, "layers_pattern": "layers"},
    "a regular expression": {"target_modules": AS_UNSLOTH},
    "gaussian start": {"init_lora_weights": "gaussian"},
    "orthogonal start": {"init_lora_weights": "orthogonal"},
    "biases of which there are none": {"bias": "lora_only"},
    "all biases of which there are none": {"bias": "all"},
    "transposed, which linears are not": {"fan_in_fan_out": True},
    "embedding and head whole": QV | TABLES,
    "the head whole": QV | {"modules_to_save": ["lm_head"]},
    "tables saved": QV | {"save": {"save_embedding_layers": True}},
    "whole and saved twice": QV | TABLES | {"save": {"save_embedding_layers": True}},
    "whole, so not adapted": {
        "target_modules": ["q_proj", "lm_head"],
        "modules_to_save": ["lm_head"],
    },
}
MERGED = {
    "rank by module": {"rank_pattern": {"q_proj": 8, "v_proj": 2}},
    "rank by layer": {"rank_pattern": {r"layers\.1\..*_proj": 3}},
    "rank by whole name, rsLoRA": {
        "rank_pattern": {"^model.layers.0.self_attn.q_proj$": 6},
        "use_rslora": True,
    },
    "alpha by module": {"alpha_pattern": {"q_proj": 16, "down_proj": 1.5}},
    "rank and alpha, rsLoRA": {
        "rank_pattern": {"q_proj": 8},
        "alpha_pattern": {"mlp.*": 3},
        "use_rslora": True,
    },
    "negative alpha": {"lora_alpha": -8},
    "DoRA": {"use_dora": True},
    "DoRA, rsLoRA, rank by module": {
        "use_dora": True,
        "use_rslora": True,
        "rank_pattern": {"k_proj": 2},
    },
    "DoRA on embedding and head": ON_TABLES | {"use_dora": True},
    "LoRA on the embedding": {"target_modules": ["q_proj", "embed_tokens"]},
    "LoRA on the embedding, transposed": {
        "target_modules": ["q_proj", "embed_tokens"],
        "fan_in_fan_out": True,
    },
    "LoRA on the head": {"target_modules": ["q_proj", "lm_head"]},
    "LoRA on both": ON_TABLES,
    "the last norm": QV | {"modules_to_save": ["model.norm"]},
    "every norm": QV | {"modules_to_save": ["norm"]},
    "norms of the layers": QV
    | {"modules_to_save": ["input_layernorm", "post_attention_layernorm"]},
    "a feed-forward whole": QV | {"modules_to_save": ["layers.1.mlp"]},
    "rows of the embedding": QV | {"trainable_token_indices": [7, 3]},
    "rows of both": QV | {"trainable_token_indices": {"embed_tokens": [3, 9], "lm_head": [5]}},
    "MiCA": {"init_lora_weights": "mica"} | ON_TABLES,
}
TIED = {
    "LoRA on the embedding": {"target_modules": ["q_proj", "embed_tokens"]},
    "LoRA on the head": {"target_modules": ["q_proj", "lm_head"]},
    "LoRA on both": ON_TABLES,
    "LoRA on both as one": ON_TABLES | {"ensure_weight_tying": True},
    "DoRA on both as one": ON_TABLES | {"ensure_weight_tying": True, "use_dora": True},
    "LoRA on the embedding for both": {
        "target_modules": ["q_proj", "embed_tokens"],
        "ensure_weight_tying": True,
    },
    "DoRA on the embedding for both": {
        "target_modules": ["q_proj", "embed_tokens"],
        "ensure_weight_tying": True,
        "use_dora": True,
    },
    "DoRA on the head for both": {
        "target_modules": ["q_proj", "lm_head"],
        "ensure_weight_tying": True,
        "use_dora": True,
    },
    "DoRA on the embedding": {"target_modules": ["q_proj", "embed_tokens"], "use_dora": True},
    "the embedding whole": QV | {"modules_to_save": ["embed_tokens"]},
    "the embedding whole for both": QV
    | {"modules_to_save": ["embed_tokens"], "ensure_weight_tying": True},
    "the head whole": QV | {"modules_to_save": ["lm_head"]},
    "both whole": QV | TABLES,
    "tables saved": QV | {"save": {"save_embedding_layers": True}},
    "rows": QV | {"trainable_token_indices": [5, 6]},
    "the same rows of both": QV
    | {"trainable_token_indices": {"embed_tokens": [3, 9], "lm_head": [3, 9]}},
    "other rows of both": QV
    | {"trainable_token_indices": {"embed_tokens": [3, 9], "lm_head": [5]}},
    "norms": QV | {"modules_to_save": ["norm"]},
}
STAY_TIED = {
    *("LoRA on both as one", "LoRA on the embedding for both", "the embedding whole for both"),
    *("tables saved", "rows", "the same rows of both", "norms"),
}
# On a base whose vocabulary was resized before training: whether the adapter holds all that a base
# of the former size lacks.
RESIZED = {
    "layers alone": (QV, True),
    "both whole": (QV | TABLES, True),
    "the embedding whole": (QV | {"modules_to_save": ["embed_tokens"]}, True),
    "LoRA on both": (ON_TABLES, True),
    "LoRA on the embedding": ({"target_modules": ["q_proj", "embed_tokens"]}, False),
    "DoRA on the embedding": (
        {"target_modules": ["q_proj", "embed_tokens"], "use_dora": True},
        False,
    ),
    "new rows": (QV | {"trainable_token_indices": [ROWS + 6, ROWS + 7]}, True),
}


@pytest.fixture(scope="module")
def bases(tmp_path_factory):
    """A toy base, and one whose head is its embedding, as transformers writes them."""
    from tests.helpers.toy import hf_twin

    folder = tmp_path_factory.mktemp("bases")
    for name, tied in (("apart", False), ("tied", True)):
        shape = toy_config(vocab_size=ROWS, sliding_window=None, tie_word_embeddings=tied)
        hf_twin(toy_model(shape)).save_pretrained(folder / name)
    return folder


def hf_model(folder):
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)


@torch.no_grad()
def logits_of(model):
    return model.eval()(input_ids=IDS, use_cache=False).logits


def peft_writes(base, folder, *, rows=None, save=None, **how):
    """Let PEFT write an adapter whose every trained tensor is random; return its logits."""
    peft = pytest.importorskip("peft", reason="compares with PEFT, which is not installed")
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = hf_model(base)
        if rows is not None:
            model.resize_token_embeddings(rows, mean_resizing=False)
            model.save_pretrained(folder.with_name("grown"))
        options = {"r": 4, "lora_alpha": 8, "target_modules": "all-linear"} | how
        twin = peft.get_peft_model(model, peft.LoraConfig(task_type="CAUSAL_LM", **options))
        with torch.no_grad():
            for parameter in twin.parameters():
                if parameter.requires_grad:
                    parameter += 0.1 * torch.randn_like(parameter)
        twin.save_pretrained(folder, **(save or {}))
        reloaded = peft.PeftModel.from_pretrained(
            hf_model(folder.with_name("grown") if rows else base), folder
        )
    expected = logits_of(twin)
    assert torch.equal(logits_of(reloaded), expected)
    before = logits_of(hf_model(base))
    assert largest_difference(expected[..., : before.shape[-1]], before) > 1e-2
    return expected


@torch.no_grad()
def merged_logits(base, folder):
    return load_network(MergedAdapters(PretrainedFolder(base), [(AdapterFolder(folder), 1.0)]))(IDS)


def edit(folder, **changes):
    path = folder / CONFIG
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize("case", PLAIN)
def test_an_adapter_that_the_network_holds(bases, tmp_path, case):
    """Merged, and unmerged as chat and server use it."""
    base, folder = bases / "apart", tmp_path / "adapter"
    expected = peft_writes(base, folder, **PLAIN[case])
    adapter = AdapterFolder(folder)
    assert adapter.obstacle(PretrainedFolder(base).config) is None
    model = load_pretrained(base)
    load_adapter(model, adapter, PretrainedFolder(base))
    with torch.no_grad():
        assert largest_difference(model(IDS), expected) < 1e-5
    assert largest_difference(merged_logits(base, folder), expected) < 1e-5


@pytest.mark.parametrize("case", MERGED)
def test_an_adapter_that_is_merged_only(bases, tmp_path, case):
    base, folder = bases / "apart", tmp_path / "adapter"
    expected = peft_writes(base, folder, **MERGED[case])
    assert largest_difference(merged_logits(base, folder), expected) < 1e-5
    model, opened = load_pretrained(base), AdapterFolder(folder)
    with pytest.raises(ValueError, match=r"such an adapter can only be merged \(python -m scripts"):
        load_adapter(model, opened, PretrainedFolder(base))


def test_targets_that_are_null_are_those_of_peft(bases, tmp_path):
    """PEFT adapts q_proj and v_proj then, and passes other tensors over."""
    folder = tmp_path / "adapter"
    peft_writes(bases / "apart", folder, target_modules="all-linear")
    path = folder / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"target_modules": None}))
    with pytest.raises(ValueError, match=r"does not name .target_modules.*passes it over"):
        merged_logits(bases / "apart", folder)
    peft_writes(bases / "apart", folder, **QV)
    expected = json.loads(path.read_text())
    assert set(expected["target_modules"]) == {"q_proj", "v_proj"}
    before = merged_logits(bases / "apart", folder)
    path.write_text(json.dumps(expected | {"target_modules": None}))
    assert torch.equal(merged_logits(bases / "apart", folder), before)


def test_rows_of_one_tied_table_and_another_change_of_the_other_are_refused(bases, tmp_path):
    how = {"target_modules": ["q_proj", "lm_head"], "trainable_token_indices": [3, 5]}
    peft_writes(bases / "tied", tmp_path / "adapter", **how)
    with pytest.raises(ValueError, match=r"trains rows of one table .* ties the two"):
        merged_logits(bases / "tied", tmp_path / "adapter")


@pytest.mark.parametrize("case", TIED)
def test_an_adapter_of_a_tied_model(bases, tmp_path, case):
    base, folder = bases / "tied", tmp_path / "adapter"
    expected = peft_writes(base, folder, **TIED[case])
    source = MergedAdapters(PretrainedFolder(base), [(AdapterFolder(folder), 1.0)])
    assert source.config.tie_word_embeddings == (case in STAY_TIED)
    assert largest_difference(merged_logits(base, folder), expected) < 1e-5


@pytest.mark.parametrize("tied", [False, True], ids=["apart", "tied"])
@pytest.mark.parametrize("case", RESIZED)
def test_an_adapter_of_a_resized_vocabulary(bases, tmp_path, case, tied):
    """On the resized base; on the former one if nothing is missing, else that is refused."""
    base, folder = bases / ("tied" if tied else "apart"), tmp_path / "adapter"
    how, complete = RESIZED[case]
    expected = peft_writes(base, folder, rows=GROWN_ROWS, **how)
    assert expected.shape[-1] == GROWN_ROWS
    assert largest_difference(merged_logits(tmp_path / "grown", folder), expected) < 1e-5
    if complete or tied:  # whose only table lies in the adapter
        assert largest_difference(merged_logits(base, folder), expected) < 1e-5
        return
    with pytest.raises(ValueError, match=r"has 72 rows of the vocabulary against 64 of .*base="):
        merged_logits(base, folder)


def test_what_a_later_peft_or_another_tool_writes(bases, tmp_path):
    """Keys that are not switched on, whoever has invented them."""
    expected = peft_writes(bases / "apart", tmp_path / "adapter")
    off = {"some_option": None, "another": False, "a_list": [], "a_mapping": {}, "a_text": ""}
    edit(tmp_path / "adapter", peft_version="0.99.0", megatron_core="megatron.core", **off)
    assert largest_difference(merged_logits(bases / "apart", tmp_path / "adapter"), expected) < 1e-5


def test_states_of_training_are_passed_over(bases, tmp_path):
    lora = pytest.importorskip("peft.tuners.lora.config", reason="compares with PEFT")
    for name in ("VeloraConfig", "MontecloraConfig"):
        if not hasattr(lora, name):
            continue  # of a PEFT that has no such kind
        options = {f"{name.removesuffix('Config').lower()}_config": getattr(lora, name)()}
        expected = peft_writes(bases / "apart", tmp_path / name, **options)
        assert any(
            "lora_velora" in x or "sampler" in x for x in load_file(tmp_path / name / WEIGHTS)
        )
        assert largest_difference(merged_logits(bases / "apart", tmp_path / name), expected) < 1e-5


def test_a_converted_pissa_adapter(bases, tmp_path):
    """PEFT's way to make an adapter of the base as it was: twice the rank."""
    peft = pytest.importorskip("peft", reason="compares with PEFT, which is not installed")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        settings = peft.LoraConfig(r=4, lora_alpha=8, init_lora_weights="pissa", **QV)
        twin = peft.get_peft_model(hf_model(bases / "apart"), settings)
        twin.peft_config["default"].init_lora_weights = True
        twin.save_pretrained(tmp_path / "start")
        with torch.no_grad():
            for parameter in twin.parameters():
                if parameter.requires_grad:
                    parameter += 0.1 * torch.randn_like(parameter)
        expected = logits_of(twin)
        twin.peft_config["default"].init_lora_weights = "pissa"
        twin.save_pretrained(tmp_path / "as it is")
        twin.save_pretrained(
            tmp_path / "converted",
            path_initial_model_for_weight_conversion=str(tmp_path / "start"),
        )
    assert (
        largest_difference(merged_logits(bases / "apart", tmp_path / "converted"), expected) < 1e-5
    )
    with pytest.raises(
        ValueError, match=r"init_lora_weights='pissa' changes the base .*convert it"
    ):
        AdapterFolder(tmp_path / "as it is")


@pytest.fixture(scope="module")
def plain(bases, tmp_path_factory):
    """A sound adapter of PEFT, to be changed in a copy."""
    folder = tmp_path_factory.mktemp("plain") / "adapter"
    peft_writes(bases / "apart", folder, **QV)
    return folder


ASKED = [
    ("peft_type", "VERA"),
    ("peft_type", "IA3"),
    ("peft_type", "ADALORA"),
    ("peft_type", "LOHA"),
    ("peft_type", "PROMPT_TUNING"),
    ("peft_type", "XLORA"),
    ("init_lora_weights", "pissa_niter_4"),
    ("init_lora_weights", "olora"),
    ("init_lora_weights", "OLoRA"),
    ("init_lora_weights", "corda"),
    ("init_lora_weights", "loftq"),
    ("init_lora_weights", "lora_ga"),
    ("init_lora_weights", "a_later_way"),
    ("layer_replication", [[0, 2], [1, 2]]),
    ("lora_bias", True),
    ("megatron_config", {"num_layers": 2}),
    ("kasa_config", {"beta": 1e-4}),
    ("use_qalora", True),
    ("use_bdlora", {"nblocks": 2}),
    ("arrow_config", {"top_k": 2}),
    ("alora_invocation_tokens", [5, 6]),
    ("target_parameters", ["mlp.experts.gate_up_proj"]),
    ("a_later_option", True),
    ("a_later_number", 0.5),
    ("a_later_way", "new"),
]


@pytest.mark.parametrize(("key", "value"), ASKED, ids=str)
def test_what_is_not_implemented_is_refused_by_name(plain, bases, tmp_path, key, value):
    folder = shutil.copytree(plain, tmp_path / "adapter")
    edit(folder, **{key: value})
    with pytest.raises(ValueError, match=key) as error:
        open_folder(folder, bases / "apart")
    assert repr(value) in str(error.value)
    assert "damaged" not in str(error.value)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("r", "4", "r='4': must be a rank from 1 on"),
        ("r", 0, "r=0: must be a rank from 1 on"),
        ("lora_alpha", None, "lora_alpha=None: must be a finite number"),
        ("use_dora", "yes", "use_dora='yes': must be true or false"),
        ("use_dora", True, "use_dora=True, but .*q_proj has no lora_magnitude_vector"),
        ("rank_pattern", {"q_proj": 8}, r"says r=8, the tensors of .*q_proj have rank 4"),
        ("rank_pattern", {"(q_proj": 8}, "rank_pattern: .* is not a valid regular expression"),
        (
            "target_modules",
            ["q_proj"],
            "update of .*v_proj, which adapter_config.json does not name",
        ),
        ("exclude_modules", ["v_proj"], "update of .*v_proj, which adapter_config.json does not"),
        (
            "layers_to_transform",
            [1],
            r"update of .*layers\.0\..*, which adapter_config.json does not",
        ),
        ("target_modules", "*", "target_modules: .* is not a valid regular expression"),
    ],
    ids=str,
)
def test_a_file_that_contradicts_the_tensors(plain, tmp_path, key, value, message):
    folder = shutil.copytree(plain, tmp_path / "adapter")
    edit(folder, **{key: value})
    with pytest.raises(ValueError, match=message):
        AdapterFolder(folder)


def changed(plain, folder, change):
    """A copy with other tensors."""
    shutil.copytree(plain, folder)
    tensors = load_file(folder / WEIGHTS)
    change(tensors)
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, folder / WEIGHTS)
    return folder


LAYER = "base_model.model.model.layers.0.self_attn"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (f"{LAYER}.q_proj.lora_diag", "lora_diag belongs to a kind of adapter that is not implem"),
        (
            f"{LAYER}.q_proj.lora_B.bias",
            "bias belongs to a kind of adapter that is not implemented",
        ),
        (f"{LAYER}.q_proj.weight", "has .*weight of .*q_proj, which is not a complete update"),
        (f"{LAYER}.o_proj.original_module.weight", "is not a complete update: a part is missing"),
        (f"{LAYER}.q_proj.lora_magnitude_vector", "q_proj has a lora_magnitude_vector"),
        ("model.norm.weight", r"does not begin with base_model\.model\."),
        ("base_model.model.score.weight", "it changes score.weight, which .* does not have"),
        (
            "base_model.model.model.norm.weight",
            r"model.norm.weight has shape \(4,\), the base means",
        ),
    ],
)
def test_tensors_that_no_update_has(plain, bases, tmp_path, name, message):
    folder = changed(plain, tmp_path / "a", lambda tensors: tensors.update({name: torch.ones(4)}))
    with pytest.raises(ValueError, match=message) as error:
        open_folder(folder, bases / "apart")
    assert "damaged" not in str(error.value)


@pytest.mark.parametrize("value", [float("nan"), float("-inf")])
def test_values_that_are_not_finite(plain, bases, tmp_path, value):
    def spoil(tensors):
        tensors[f"{LAYER}.q_proj.lora_B.weight"][3, 1] = value

    folder = changed(plain, tmp_path / "a", spoil)
    source = open_folder(folder, bases / "apart")
    with pytest.raises(ValueError, match=r"q_proj\.lora_B\.weight holds values that are infinite"):
        source.read("model.layers.0.self_attn.q_proj.weight", slice(None))


def test_tensors_of_integers(plain, tmp_path):
    name = f"{LAYER}.q_proj.lora_B.weight"
    folder = changed(plain, tmp_path / "a", lambda x: x.update({name: x[name].to(torch.uint8)}))
    with pytest.raises(ValueError, match=r"q_proj\.lora_B\.weight is stored in U8; only F64, F32"):
        AdapterFolder(folder)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_an_adapter_in_16_bits(plain, bases, tmp_path, dtype):
    """Its factors are multiplied in fp32, as PEFT does."""
    names = load_file(plain / WEIGHTS).keys()
    folder = changed(plain, tmp_path / "a", lambda x: x.update({n: x[n].to(dtype) for n in names}))
    peft = pytest.importorskip("peft", reason="compares with PEFT, which is not installed")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        twin = peft.PeftModel.from_pretrained(hf_model(bases / "apart"), folder)
    assert largest_difference(merged_logits(bases / "apart", folder), logits_of(twin)) < 1e-5


@pytest.mark.parametrize("given", ["default", "other"])
def test_factors_with_the_name_of_their_adapter(plain, bases, tmp_path, given):
    """PEFT reads the name `default`, and passes over factors with another name."""

    def rename(tensors):
        for name in list(tensors):
            if ".lora_" in name:
                tensors[f"{name.removesuffix('weight')}{given}.weight"] = tensors.pop(name)

    folder = changed(plain, tmp_path / "a", rename)
    edit(folder, init_lora_weights=True)  # B begins with zeros, which a read file replaces
    peft = pytest.importorskip("peft", reason="compares with PEFT, which is not installed")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        twin = peft.PeftModel.from_pretrained(hf_model(bases / "apart"), folder)
        base = logits_of(hf_model(bases / "apart"))
    if given == "default":
        assert largest_difference(logits_of(twin), base) > 1e-3
        assert largest_difference(merged_logits(bases / "apart", folder), logits_of(twin)) < 1e-5
    else:
        assert torch.equal(logits_of(twin), base)
        with pytest.raises(ValueError, match=r"lora_A\.other\.weight has the name of an adapter"):
            AdapterFolder(folder)


def test_factors_that_are_there_twice(plain, tmp_path):
    def add(tensors):
        name = f"{LAYER}.q_proj.lora_A.weight"
        tensors[f"{LAYER}.q_proj.lora_A.default.weight"] = tensors[name] + 1

    folder = changed(plain, tmp_path / "a", add)
    with pytest.raises(ValueError, match=r"q_proj\.lora_A\.weight is there twice"):
        AdapterFolder(folder)


@pytest.mark.parametrize(
    "name",
    ["lora_embedding_B.mine", "lora_magnitude_vector.default.weight", "modules_to_save.a.weight"],
)
def test_other_names_of_tensors_in_memory(plain, tmp_path, name):
    added = {f"{LAYER}.q_proj.{name}": torch.ones(4)}
    folder = changed(plain, tmp_path / "a", lambda tensors: tensors.update(added))
    with pytest.raises(ValueError, match=f"has the name of an adapter .{name.split('.')[1]}., as"):
        AdapterFolder(folder)


def test_half_an_update(plain, tmp_path):
    folder = changed(plain, tmp_path / "a", lambda x: x.pop(f"{LAYER}.q_proj.lora_B.weight"))
    with pytest.raises(ValueError, match=r"has lora_A.weight of .*q_proj, which is not a complete"):
        AdapterFolder(folder)


def test_ids_beyond_the_vocabulary(bases, tmp_path):
    peft_writes(bases / "apart", tmp_path / "a", **QV, trainable_token_indices=[3, 4])
    edit(tmp_path / "a", trainable_token_indices=[3, ROWS])
    with pytest.raises(ValueError, match="names id 64, and the vocabulary has 64 rows"):
        open_folder(tmp_path / "a")
    edit(tmp_path / "a", trainable_token_indices=[3, 4, 5])
    with pytest.raises(
        ValueError, match=r"has 3 ids for model\.embed_tokens, and there are 2 rows"
    ):
        open_folder(tmp_path / "a")
    edit(tmp_path / "a", trainable_token_indices={"lm_head": [3, 4]})
    with pytest.raises(ValueError, match="has no trainable_token_indices"):
        open_folder(tmp_path / "a")


def test_a_pickled_file_is_named_with_the_way_to_convert_it(plain, bases, tmp_path, monkeypatch):
    folder = shutil.copytree(plain, tmp_path / "adapter")
    expected = load_file(folder / WEIGHTS)
    torch.save(expected, folder / PICKLED)
    (folder / WEIGHTS).unlink()
    with pytest.raises(ValueError, match=r"adapter_model\.bin, and only .* convert it") as error:
        open_folder(folder)
    assert "damaged" not in str(error.value)
    code = str(error.value).partition('python -c "')[2].removesuffix('"')
    monkeypatch.chdir(folder)
    exec(code)  # as the message says
    assert torch.equal(
        load_file(folder / WEIGHTS)[f"{LAYER}.q_proj.lora_A.weight"],
        expected[f"{LAYER}.q_proj.lora_A.weight"],
    )
    open_folder(folder)


def test_adapters_with_names(plain, bases, tmp_path):
    """PEFT saves each that is not the default one in a folder of its name."""
    peft = pytest.importorskip("peft", reason="compares with PEFT, which is not installed")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        settings = peft.LoraConfig(r=4, lora_alpha=8, **QV)
        twin = peft.get_peft_model(hf_model(bases / "apart"), settings, adapter_name="rivers")
        twin.add_adapter("soils", settings)
        twin.save_pretrained(tmp_path / "both")
    for call in (open_folder, open_weights, AdapterFolder):
        with pytest.raises(ValueError, match="but adapters in rivers, soils; give one of these"):
            call(str(tmp_path / "both"))
    open_folder(tmp_path / "both" / "soils")


def test_a_base_that_is_elsewhere(plain, bases, tmp_path):
    folder = shutil.copytree(plain, tmp_path / "adapter")
    for name in (None, "unsloth/mistral-7b-bnb-4bit"):
        edit(folder, base_model_name_or_path=name)
        with pytest.raises(ValueError, match="base=<HF folder>"):
            open_folder(folder)
        assert open_folder(folder, bases / "apart").config.vocab_size == ROWS


def test_weights_of_several_adapters(bases, tmp_path):
    """The sum of weighted differences, whatever the kind of each adapter."""
    base = PretrainedFolder(bases / "apart")
    kinds = [MERGED["DoRA"], QV | TABLES, MERGED["LoRA on both"], MERGED["rows of both"]]
    weights = [0.5, -1.0, 0.25, 2.0]
    for number, how in enumerate(kinds):
        peft_writes(base.folder, tmp_path / str(number), **how)
    opened = [AdapterFolder(tmp_path / str(number)) for number in range(len(kinds))]
    singles = [MergedAdapters(base, [(adapter, 1.0)]) for adapter in opened]
    source = MergedAdapters(base, list(zip(opened, weights, strict=True)))
    for name in source.shapes:
        before = base.read(name, slice(None)).double()
        expected = before.clone()
        for single, weight in zip(singles, weights, strict=True):
            expected += weight * (single.read(name, slice(None)).double() - before)
        found = source.read(name, slice(None))
        torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-5)
        assert torch.equal(source.read(name, slice(5, 9)), found[5:9])


def test_rows_that_only_one_adapter_has_are_its_own(bases, tmp_path):
    base = PretrainedFolder(bases / "apart")
    peft_writes(base.folder, tmp_path / "new", rows=GROWN_ROWS, **QV, **TABLES)
    peft_writes(base.folder, tmp_path / "old", **QV)
    new, old = AdapterFolder(tmp_path / "new"), AdapterFolder(tmp_path / "old")
    half, whole = (MergedAdapters(base, [(new, weight)]) for weight in (0.5, 1.0))
    for name in ("model.embed_tokens.weight", "lm_head.weight"):
        found, trained = (source.read(name, slice(None)) for source in (half, whole))
        torch.testing.assert_close(
            found[:ROWS], (trained[:ROWS] + base.read(name, slice(None))) / 2
        )
        assert torch.equal(found[ROWS:], trained[ROWS:])
        assert torch.equal(half.read(name, slice(60, 70)), found[60:70])
    with pytest.raises(ValueError, match=r"vocabularies of 64 and 72 rows; .*merged alone"):
        MergedAdapters(base, [(new, 0.5), (old, 0.5)])
