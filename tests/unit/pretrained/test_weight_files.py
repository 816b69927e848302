"""Safetensors of foreign folders: the tensors that transformers reads, or a refusal by name."""

import json
import os

import pytest
import torch
from safetensors.torch import load_file, save_file

from pretrained.safetensors_folder import PretrainedFolder, load_pretrained, write_folder
from tests.helpers.folders import (
    LLAMA,
    MISTRAL,
    get_json,
    hf_folder,
    is_equal,
    put_json,
    random_weights,
    shard,
)

EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"
INDEX = "model.safetensors.index.json"
TIED = LLAMA | {"tie_word_embeddings": True}
INV_FREQ = "model.layers.0.self_attn.rotary_emb.inv_freq"


def sharded(folder, raw=MISTRAL, tensors=None):
    """A folder with two shards and no single file."""
    tensors = random_weights(raw) if tensors is None else tensors
    hf_folder(folder, raw, tensors=tensors)
    (folder / "model.safetensors").unlink()
    shard(folder, tensors)
    return folder


def edit_index(folder, edit):
    index = get_json(folder / INDEX)
    edit(index["weight_map"])
    put_json(folder / INDEX, index)


def test_a_single_file_wins_over_complete_shards(tmp_path):
    folder = hf_folder(tmp_path / "model")
    shard(folder, random_weights(MISTRAL, seed=9))
    assert is_equal(folder)


def test_a_stale_index_beside_a_single_file_is_no_obstacle(tmp_path):
    folder = hf_folder(tmp_path / "model")
    put_json(folder / INDEX, {"weight_map": {"model.ghost": "gone.safetensors"}})
    assert is_equal(folder)


def test_shards_are_read_where_there_is_no_single_file(tmp_path):
    assert is_equal(sharded(tmp_path / "model"))


def test_an_index_without_metadata_is_enough(tmp_path):
    folder = sharded(tmp_path / "model")
    twin = hf_folder(tmp_path / "twin")
    put_json(folder / INDEX, {"weight_map": get_json(folder / INDEX)["weight_map"]})
    assert is_equal(folder, twin)


def test_links_are_followed_as_the_cache_of_the_hub_needs(tmp_path):
    folder = hf_folder(tmp_path / "model")
    (folder / "model.safetensors").rename(tmp_path / "blob")
    (folder / "model.safetensors").symlink_to(tmp_path / "blob")
    assert is_equal(folder)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_every_floating_dtype_is_read(tmp_path, dtype):
    tensors = {name: x.to(dtype) for name, x in random_weights(MISTRAL).items()}
    tensors["model.norm.weight"] = tensors["model.norm.weight"].float()
    folder = hf_folder(tmp_path / "model", tensors=tensors)
    assert is_equal(folder)
    assert PretrainedFolder(folder).dtype(EMBEDDING) == dtype


def test_stored_rotary_frequencies_are_ignored(tmp_path):
    tensors = random_weights(LLAMA)
    tensors[INV_FREQ] = torch.full((8,), torch.nan)
    assert is_equal(hf_folder(tmp_path / "single", LLAMA, tensors=tensors))
    assert is_equal(sharded(tmp_path / "shards", LLAMA, tensors))


def head_and_embedding(folder, *, embedding=True, head=True, differ=False):
    tensors = random_weights(TIED)
    if head:
        tensors[HEAD] = tensors[EMBEDDING].clone()
    if differ:
        tensors[HEAD][71, 3] += 1e-3
    if not embedding:
        del tensors[EMBEDDING]
    return hf_folder(folder, TIED, tensors=tensors)


@pytest.mark.parametrize("stored", [{}, {"head": False}, {"embedding": False}], ids=str)
def test_a_tied_head_may_be_stored_too_or_alone(tmp_path, stored):
    folder = head_and_embedding(tmp_path / "model", **stored)
    assert is_equal(folder)
    once = PretrainedFolder(head_and_embedding(tmp_path / "once", head=False))
    source = PretrainedFolder(folder)
    assert source.shapes == once.shapes
    assert source.digest == once.digest
    tensors = ((name, source.read(name, slice(None))) for name in source.shapes)
    write_folder(tmp_path / "written", source.config, tensors)
    assert HEAD not in load_file(tmp_path / "written" / "model.safetensors")
    assert is_equal(tmp_path / "written", folder)


def test_a_tied_head_that_differs_is_refused_for_transformers_unties_it(tmp_path):
    folder = head_and_embedding(tmp_path / "model", differ=True)
    with pytest.raises(
        ValueError, match=r"tie_word_embeddings is true, but lm_head\.weight is stored"
    ):
        load_pretrained(folder)
    put_json(folder / "config.json", TIED | {"tie_word_embeddings": False})  # the remedy
    assert is_equal(folder)


def test_a_tied_head_of_another_shape_is_refused(tmp_path):
    tensors = random_weights(TIED) | {HEAD: torch.zeros(98, 64)}
    with pytest.raises(ValueError, match=r"lm_head.weight has shape \(98, 64\)"):
        PretrainedFolder(hf_folder(tmp_path / "model", TIED, tensors=tensors))


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("name", ["model.layers.1.mlp.up_proj.weight", "model.norm.weight", HEAD])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_a_value_that_is_not_finite_is_refused_where_it_is_read(tmp_path, name, value, dtype):
    tensors = {key: x.to(dtype) for key, x in random_weights(MISTRAL).items()}
    tensors[name].view(-1)[17] = value
    folder = hf_folder(tmp_path / "model", tensors=tensors)
    PretrainedFolder(folder)  # opening reads no tensor
    with pytest.raises(ValueError, match=f"model.safetensors: {name} holds values that are inf"):
        load_pretrained(folder)


def renamed(rename):
    def damage(folder):
        tensors = load_file(folder / "model.safetensors")
        save_file({rename(n): x for n, x in tensors.items()}, folder / "model.safetensors")

    return damage


def converted(name, convert):
    def damage(folder):
        tensors = load_file(folder / "model.safetensors")
        tensors[name] = convert(tensors[name])
        save_file(tensors, folder / "model.safetensors")

    return damage


def added(name):
    def damage(folder):
        tensors = load_file(folder / "model.safetensors") | {name: torch.zeros(64)}
        save_file(tensors, folder / "model.safetensors")

    return damage


def without(name, **more):
    def damage(folder):
        tensors = load_file(folder / "model.safetensors")
        del tensors[name]
        save_file(tensors | more, folder / "model.safetensors")

    return damage


UP = "model.layers.0.mlp.up_proj.weight"


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (without(HEAD), "missing lm_head.weight$"),
        (
            without(HEAD, **{"score.weight": torch.ones(2, 64)}),
            "unexpected score.weight .a classif",
        ),
        (without(UP), f"missing {UP}$"),
        (renamed(lambda n: f"module.{n}"), "names hold 'module.', as a network wrapped for data"),
        (renamed(lambda n: f"_orig_mod.{n}"), "names hold '_orig_mod.', as a compiled network"),
        (
            renamed(lambda n: n.replace("layers.", "layers._checkpoint_wrapped_module.")),
            "'_checkpoint_wrapped_module.'",
        ),
        (renamed(lambda n: f"base_model.model.{n}"), "a PEFT model that was not merged"),
        (renamed(lambda n: f"language_model.{n}"), "the text part of a vision model"),
        (renamed(lambda n: n.removeprefix("model.")), "names lack 'model.', as the bare network"),
        (
            renamed(lambda n: n.replace(EMBEDDING, "tok_embeddings.weight")),
            "the publisher's own format",
        ),
        (converted(UP, lambda x: (x * 10).to(torch.int8)), f"{UP} is stored as I8; only F64"),
        (converted(UP, lambda x: x > 0), f"{UP} is stored as BOOL"),
        (converted(UP, lambda x: x.to(torch.float8_e4m3fn)), f"{UP} is stored as F8_E4M3"),
        (converted(UP, lambda x: x.to(torch.complex64)), f"{UP} is stored as C64"),
        (converted(UP, lambda x: x[:95].clone()), rf"{UP} has shape \(95, 64\)"),
        (converted(UP, lambda x: x.sum()), rf"{UP} has shape \(\)"),
        (added("model.layers.0.self_attn.q_proj.bias"), "unexpected .*q_proj.bias$"),
    ],
)
def test_tensors_that_do_not_fit_are_refused_by_name(tmp_path, damage, message):
    folder = hf_folder(tmp_path / "model")
    damage(folder)
    with pytest.raises(ValueError, match=message) as error:
        PretrainedFolder(folder)
    assert str(error.value).startswith(str(folder))


@pytest.mark.parametrize(
    ("file", "message"),
    [
        ("../outside.safetensors", "is in '../outside.safetensors', which is not the name"),
        ("/etc/hosts", "is in '/etc/hosts'"),
        ("..", "is in '..'"),
        ("sub/model.safetensors", "not the name of a safetensors file in this folder"),
        ("a\0.safetensors", "not the name of a safetensors file"),
        ("pytorch_model-00001-of-00002.bin", "not the name of a safetensors file"),
        (7, "is in 7"),
        (None, "is in None"),
        ("gone.safetensors", "gone.safetensors: the file is missing"),
        ("pipe.safetensors", "pipe.safetensors: the file is missing, or no regular file"),
        ("folder.safetensors", "no regular file"),
    ],
)
def test_an_index_that_leads_elsewhere_is_refused(tmp_path, file, message):
    folder = sharded(tmp_path / "model")
    (folder / "model-00001-of-00002.safetensors").rename(tmp_path / "outside.safetensors")
    os.mkfifo(folder / "pipe.safetensors")
    (folder / "folder.safetensors").mkdir()
    edit_index(folder, lambda names: names.update({HEAD: file}))
    with pytest.raises(ValueError, match=message):
        PretrainedFolder(folder)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("null", "not a JSON object"),
        ("[1]", "not a JSON object"),
        ("{}", "weight_map=None is not an object"),
        ('{"weight_map": ["a"]}', "weight_map=.* is not an object"),
        ('{"weight_map": {"a": "b.safetensors", "a": "c.safetensors"}}', "'a' occurs twice"),
        ("[" * 100_000, "nested too deeply"),
        ("{", "is not JSON"),
    ],
)
def test_an_index_that_is_none_is_refused(tmp_path, content, message):
    folder = sharded(tmp_path / "model")
    (folder / INDEX).write_text(content)
    with pytest.raises(ValueError, match=message) as error:
        PretrainedFolder(folder)
    assert str(error.value).startswith(str(folder / INDEX))


def test_an_index_that_promises_what_a_file_lacks_is_refused(tmp_path):
    folder = sharded(tmp_path / "model")
    first, second = (f"model-0000{n}-of-00002.safetensors" for n in (1, 2))
    names = get_json(folder / INDEX)["weight_map"]
    other = second if names[HEAD] == first else first
    edit_index(folder, lambda names: names.update({HEAD: other}))
    with pytest.raises(ValueError, match=f"{other}: .* promises {HEAD}, the file lacks it"):
        PretrainedFolder(folder)


def test_an_index_of_many_files_is_refused_before_they_are_opened(tmp_path):
    folder = sharded(tmp_path / "model")
    many = {f"ghost.{n}": f"{n}.safetensors" for n in range(50_000)}
    edit_index(folder, lambda names: names.update(many))
    with pytest.raises(ValueError, match=r"unexpected ghost\.0; .*and 49988 more"):
        PretrainedFolder(folder)


def test_a_tensor_in_two_shards_is_refused_for_readers_differ(tmp_path):
    folder = sharded(tmp_path / "model")
    path = folder / "model-00002-of-00002.safetensors"
    if HEAD in (tensors := load_file(path)):
        path = folder / "model-00001-of-00002.safetensors"
        tensors = load_file(path)
    save_file(tensors | {HEAD: torch.zeros(97, 64)}, path)
    with pytest.raises(ValueError, match=f"{HEAD} is stored twice, in model-0000"):
        PretrainedFolder(folder)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\xef\xbb\xbf{}", "byte order mark"),
        (json.dumps(MISTRAL).encode("utf-16"), "is not UTF-8"),
        (b"null", "holds None, not a JSON object"),
        (b"[1]", "not a JSON object"),
        (b"", "is not JSON"),
        (b"[" * 200_000, "nested too deeply"),
        (b'{"a": ' + b"9" * 5000 + b"}", "is not JSON"),
        (
            json.dumps(MISTRAL).encode()[:-1] + b', "vocab_size": 98}',
            "'vocab_size' occurs twice",
        ),
    ],
    ids=str,
)
def test_a_config_that_is_none_is_refused(tmp_path, content, message):
    folder = hf_folder(tmp_path / "model")
    (folder / "config.json").write_bytes(content)
    with pytest.raises(ValueError, match=message) as error:
        PretrainedFolder(folder)
    assert str(error.value).startswith(str(folder / "config.json"))
    assert len(str(error.value)) < 500 + len(str(folder))


def test_a_refused_folder_leaves_nothing_behind(tmp_path):
    tensors = random_weights(MISTRAL)
    tensors["model.norm.weight"][5] = torch.nan
    source = PretrainedFolder(hf_folder(tmp_path / "model", tensors=tensors))
    read = ((name, source.read(name, slice(None))) for name in source.shapes)
    with pytest.raises(ValueError, match=r"model\.norm\.weight holds values"):
        write_folder(tmp_path / "out", source.config, read)
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
