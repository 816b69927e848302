"""Blends: both ends of the line are the models themselves, and a budget of forgetting is kept."""

import json
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from data.rows.shards import Source
from pretrained.adapter import AdapterFolder
from pretrained.folder import open_folder
from pretrained.load import model_digest, open_model
from pretrained.merged import ADAPTED, MergedAdapters
from pretrained.safetensors_folder import (
    PretrainedFolder,
    load_pretrained,
    save_pretrained,
    write_folder,
)
from tests.helpers.toy import random_tokens, toy_config, toy_model
from tests.unit.model.test_lora import adapted, save
from tests.unit.tools.merging.test_export import LORA, base_folder, export
from tokenizer.expansion.candidates import read_model
from tokenizer.tokenizer import Tokenizer
from tools.merging.arithmetic import ChatVector, TaskArithmetic
from tools.merging.general_loss import GeneralLossConfig, general_loss
from tools.merging.interpolate import largest_within, next_weight
from training.evaluate import cut_text

GENERAL = ["general_en", "general_zh"]
HEAD = "lm_head.weight"


def tensors_of(folder):
    opened = PretrainedFolder(folder)
    return {name: opened.read(name, slice(None)) for name in opened.shapes}


def assert_same_bits(found, expected):
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert found[name].dtype == tensor.dtype
        bits = {2: torch.int16, 4: torch.int32}[tensor.element_size()]
        assert torch.equal(found[name].view(bits), tensor.view(bits)), name


def write(sample, folder, model, dtype=torch.float32):
    tokenizer = Tokenizer.open(sample / "tokenizer")
    options = {"tokenizer": tokenizer, "dtype": dtype, "max_shard_bytes": 300_000}
    write_folder(folder, model.config, model.named_parameters(), **options)
    return folder


def awkward_pair(sample, tmp_path, dtype=torch.float32):
    """Zeros of both signs, magnitudes that lose each other in a sum, and an untouched tensor."""
    models = [toy_model(toy_config(vocab_size=2048), seed=seed) for seed in (0, 1)]
    with torch.no_grad():
        for model, values in zip(models, ([-0.0, 1e3, 1e-30], [0.0, 1e-30, -1e3]), strict=True):
            model.lm_head.weight[0, :3] = torch.tensor(values)
        models[1].model.norm.weight.copy_(models[0].model.norm.weight)
    names = ("base", "tuned")
    return [write(sample, tmp_path / n, m, dtype) for n, m in zip(names, models, strict=True)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_ends_of_the_line_are_the_models_bit_for_bit(sample, tmp_path, dtype):
    base, tuned = awkward_pair(sample, tmp_path, dtype)
    for weight, expected in ((0.0, base), (1.0, tuned)):
        out = tmp_path / f"at-{weight}"
        options = {"blend": str(base), "blend_weight": weight, "max_shard_gib": 0.0001}
        export(folder=str(tuned), out=str(out), **options)
        assert len(list(out.glob("model-*.safetensors"))) > 2
        assert_same_bits(tensors_of(out), tensors_of(expected))


def test_the_middle_is_the_mean_and_what_was_left_alone_stays(sample, tmp_path):
    base, tuned = awkward_pair(sample, tmp_path)
    one, two = tensors_of(base), tensors_of(tuned)
    options = {"folder": str(tuned), "blend": str(base)}
    export(out=str(tmp_path / "half"), blend_weight=0.5, **options)
    assert_same_bits(tensors_of(tmp_path / "half"), {n: (one[n] + two[n]) / 2 for n in one})
    export(out=str(tmp_path / "third"), blend_weight=0.3, **options)
    found = tensors_of(tmp_path / "third")
    assert torch.equal(found["model.norm.weight"], one["model.norm.weight"])
    for name in one:
        torch.testing.assert_close(found[name], 0.7 * one[name] + 0.3 * two[name])
    record = json.loads((tmp_path / "third/blend.json").read_text())
    assert record["base"] == {"folder": str(base), "digest": PretrainedFolder(base).digest}
    digest = PretrainedFolder(tuned).digest
    assert record["tuned"] == [{"folder": str(tuned), "digest": digest, "weight": 0.3}]
    assert (tmp_path / "third/tokenizer.model").is_file()


def test_task_arithmetic_adds_weighted_differences(sample, tmp_path):
    folders = [base_folder(sample, tmp_path / f"m{seed}", seed) for seed in range(3)]
    export(
        folder=str(folders[0]),
        merge="task_arithmetic",
        tuned=[str(folder) for folder in folders[1:]],
        weights=[1.5, -0.25],
        out=str(tmp_path / "out"),
    )
    base, one, two = map(tensors_of, folders)
    for name, found in tensors_of(tmp_path / "out").items():
        expected = base[name] + 1.5 * (one[name] - base[name]) - 0.25 * (two[name] - base[name])
        torch.testing.assert_close(found, expected)
    weights = [x["weight"] for x in json.loads((tmp_path / "out/blend.json").read_text())["tuned"]]
    assert weights == [1.5, -0.25]


def test_an_adapter_is_blended_as_if_merged(sample, tmp_path):
    base = base_folder(sample, tmp_path / "base")
    adapter = save(adapted(base, LORA), tmp_path / "adapter", base)
    export(folder=str(adapter), out=str(tmp_path / "merged"))
    for name in ("adapter", "merged"):
        options = {"blend": str(base), "blend_weight": 0.4}
        export(folder=str(tmp_path / name), out=str(tmp_path / f"{name}-out"), **options)
    assert_same_bits(*(tensors_of(tmp_path / f"{name}-out") for name in ("adapter", "merged")))
    records = [
        json.loads((tmp_path / f"{name}-out/blend.json").read_text())["tuned"][0]["digest"]
        for name in ("adapter", "merged")
    ]
    assert records == [open_folder(tmp_path / name).digest for name in ("adapter", "merged")]


@pytest.fixture(scope="module")
def merged_sources(sample, tmp_path_factory):
    """Weights that are computed as they are read, of each kind."""
    folder = tmp_path_factory.mktemp("sources")
    paths = [base_folder(sample, folder / f"m{seed}", seed) for seed in range(3)]
    adapters = [
        AdapterFolder(save(adapted(paths[0], LORA, seed), folder / f"a{seed}", paths[0]))
        for seed in (1, 2)
    ]
    adapters[0].base_digest = None  # so that another base can be tried
    base, one, two = map(PretrainedFolder, paths)
    merged = MergedAdapters(base, [(adapters[0], 1.0)])
    return {
        "adapter": merged,
        "adapters": MergedAdapters(base, [(adapters[0], 0.3), (adapters[1], -1.7)]),
        "chat vector": ChatVector(one, two, base, 0.37),
        "task arithmetic": TaskArithmetic(base, [(one, 0.3), (two, 0.9)], shared_rows=2048),
        "blend of an adapter": TaskArithmetic(base, [(merged, 0.4)], shared_rows=2048),
    }


def test_rows_have_the_same_bits_whichever_others_are_read_with_them(merged_sources, monkeypatch):
    """Ranks read their own rows, a folder is written whole: the weights must not differ."""
    monkeypatch.setattr("pretrained.merged._BLOCK_ROWS", 7)
    monkeypatch.setattr("tools.merging.arithmetic._CHUNK", 500)
    for source in merged_sources.values():
        for name, (height, *_) in source.shapes.items():
            if height > 100 and name != HEAD:
                continue
            whole = source.read(name, slice(None))
            assert len(whole) == height
            rows = [slice(n, n + 1) for n in range(0, height, 5)]
            rows += [slice(6, 8), slice(3, 29), slice(14, None), slice(9, 9), slice(None, -1)]
            for part in rows:
                assert torch.equal(source.read(name, part), whole[part]), (name, part)


def test_a_digest_of_adapters_reads_no_product(merged_sources, monkeypatch):
    """And it differs with the base, with the weights of the adapters and their tensors."""
    one, two = (merged_sources[name] for name in ("adapter", "adapters"))
    ((adapter, _),) = one.adapters
    other_base = merged_sources["chat vector"]._ours
    again = [MergedAdapters(one.base, [(adapter, 1.0)]), MergedAdapters(one.base, two.adapters)]
    others = [
        MergedAdapters(other_base, [(adapter, 1.0)]),
        MergedAdapters(one.base, [(adapter, 0.5)]),
        MergedAdapters(one.base, [(two.adapters[1][0], 1.0)]),
    ]
    monkeypatch.setattr(MergedAdapters, "read", None)
    assert [folder.digest for folder in again] == [one.digest, two.digest]
    assert len({folder.digest for folder in (one, two, *others)}) == 5
    assert all(folder.digest.startswith(ADAPTED) for folder in (one, two, *others))


@pytest.mark.parametrize(
    ("key", "value", "differs"),
    [
        ("lora_alpha", 9.0, True),
        ("use_rslora", True, True),
        ("lora_dropout", 0.1, False),
        ("task_type", "SEQ_CLS", False),
    ],
)
def test_a_digest_of_adapters_knows_the_settings_that_a_merge_reads(
    sample, tmp_path, key, value, differs
):
    base = base_folder(sample, tmp_path / "base")
    path = save(adapted(base, LORA), tmp_path / "adapter", base)
    before = open_folder(path).digest
    settings = json.loads((path / "adapter_config.json").read_text())
    (path / "adapter_config.json").write_text(json.dumps(settings | {key: value}))
    assert (open_folder(path).digest != before) == differs


def test_a_network_that_is_merged_as_it_is_loaded_has_the_digest_of_what_is_stored(
    sample, tmp_path, monkeypatch
):
    """So that answers are continued on a processor that rounds the products otherwise."""
    base = base_folder(sample, tmp_path / "base")
    path = save(adapted(base, LORA), tmp_path / "adapter", base)
    found = []
    for alpha in (7, 9):
        settings = json.loads((path / "adapter_config.json").read_text())
        settings["alpha_pattern"] = {"layers.0.self_attn.q_proj": alpha}
        (path / "adapter_config.json").write_text(json.dumps(settings))
        found.append(model_digest(open_model(path, torch.float32, "cpu")[0]))
        assert found[-1] == open_folder(path).digest
    assert found[0] != found[1]
    plain = MergedAdapters.read
    monkeypatch.setattr(
        MergedAdapters, "read", lambda *args: plain(*args).nextafter(torch.tensor(9.0))
    )
    assert model_digest(open_model(path, torch.float32, "cpu")[0]) == found[1]


@pytest.mark.parametrize(
    "base_shape", [{"vocab_size": 50}, {"vocab_size": 64, "num_padded_ids": 14}], ids=str
)
def test_new_rows_are_those_of_the_tuned_model(tmp_path, base_shape):
    shapes = (base_shape, {"vocab_size": 64, "num_base_ids": 50, "num_padded_ids": 4})
    opened = []
    for seed, shape in enumerate(shapes):
        save_pretrained(toy_model(toy_config(**shape), seed=seed), tmp_path / str(seed))
        opened.append(PretrainedFolder(tmp_path / str(seed)))
    base, tuned = opened
    line = TaskArithmetic(base, [(tuned, 0.25)], shared_rows=50)
    for name in line.shapes:
        one, two = (folder.read(name, slice(None)) for folder in opened)
        rows = 50 if name in ("model.embed_tokens.weight", HEAD) else len(two)
        expected = two.clone()
        expected[:rows] = 0.75 * one[:rows] + 0.25 * two[:rows]
        found = line.read(name, slice(None))
        torch.testing.assert_close(found, expected)
        assert torch.equal(found[rows:], two[rows:])
        for part in (slice(5, None), slice(48, 53), slice(55, 60), slice(3, 3)):
            assert torch.equal(line.read(name, part), found[part])


def test_vocabularies_that_cannot_be_blended_are_refused(tmp_path):
    for name, rows in (("small", 50), ("large", 64), ("other", 50)):
        save_pretrained(toy_model(toy_config(vocab_size=rows)), tmp_path / name)
    small, large, other = (PretrainedFolder(tmp_path / n) for n in ("small", "large", "other"))
    with pytest.raises(ValueError, match=r"has 50 rows .* has 64; only a vocabulary that grew"):
        TaskArithmetic(large, [(small, 0.5)], shared_rows=50)
    with pytest.raises(ValueError, match=r"has 64 rows .* new rows can be blended from one model"):
        TaskArithmetic(small, [(other, 0.5), (large, 0.5)], shared_rows=50)


def heads(sample, tmp_path, scales):
    """Models that differ in their head alone, along which the loss is convex."""
    folders = []
    for number, scale in enumerate(scales):
        model = toy_model(toy_config(vocab_size=2048))
        with torch.no_grad():
            model.lm_head.weight.mul_(scale)
        folders.append(write(sample, tmp_path / f"head{number}", model))
    return folders


def budget(sample, base, tuned, allowed, out, **options):
    text = {"general": GENERAL, "root": str(sample), "max_bytes": 1000, "device": "cpu"}
    export(
        folder=str(tuned),
        blend=str(base),
        max_general_bits_per_byte=allowed,
        out=str(out),
        **(text | options),
    )
    return json.loads((out / "blend.json").read_text())


@pytest.mark.parametrize(
    ("scales", "allowed", "dtype"),
    [
        ((0.1, 1.0), 0.02, "stored"),
        ((0.1, 1.0), 0.3, "bfloat16"),
        ((0.1, 1.0), 0.0, "stored"),
        ((-1.0, 1.2), -0.5, "stored"),  # least between the ends, where the head vanishes
        ((1.0, 0.1), 0.0, "stored"),  # all of it improves
    ],
    ids=str,
)
def test_the_exported_folder_keeps_the_budget(sample, tmp_path, scales, allowed, dtype):
    base, tuned = heads(sample, tmp_path, scales)
    out = tmp_path / "out"
    record = budget(sample, base, tuned, allowed, out, dtype=dtype)
    assert 1 + len(record["evaluations"]) <= 6
    weight = record["tuned"][0]["weight"]
    config = GeneralLossConfig(general=GENERAL, root=str(sample), max_bytes=1000, device="cpu")
    tokenizer = Tokenizer.open(sample / "tokenizer")
    with general_loss(config) as measure:
        found, before = (
            measure("it", PretrainedFolder(folder), tokenizer, "stored") for folder in (out, base)
        )
    assert found.mean - before.mean <= allowed + 1e-12
    measured = {entry["weight"]: entry for entry in record["evaluations"]}
    if weight or dtype != "stored":
        assert measured[weight]["bits_per_byte"] == found.bits_per_byte
    assert record["base_loss"]["general_bits_per_byte"] == before.mean
    limit = before.mean + allowed
    within = [t for t, entry in measured.items() if entry["general_bits_per_byte"] <= limit]
    assert weight == max(within, default=0.0)
    assert next(iter(measured)) == 1.0
    if scales == (1.0, 0.1):
        assert (weight, len(measured)) == (1.0, 1)
    else:  # the next weight that was measured is over the budget, and not far
        over = min(t for t in measured if t > weight)
        assert over - weight == (1 / 16 if dtype == "stored" else 1 / 8)  # 0 is measured too
        assert 0 <= weight < 1


def test_transformers_reads_the_same_loss_and_logits(sample, tmp_path):
    transformers = pytest.importorskip("transformers")
    base, tuned = heads(sample, tmp_path, (0.1, 1.0))
    record = budget(sample, base, tuned, 0.3, tmp_path / "out")
    twin = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out").eval()
    model = load_pretrained(tmp_path / "out")
    tokens = random_tokens(model.config, 2, 20)
    with torch.no_grad():
        ours, theirs = model(tokens), twin(tokens).logits
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5 * float(theirs.abs().max()))
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "out")
    weight = record["tuned"][0]["weight"]
    (entry,) = (entry for entry in record["evaluations"] if entry["weight"] == weight)
    for name in GENERAL:
        nats, size = 0.0, 0
        for piece in first_pieces(Source(sample / name), 240, 1000):
            ids = tokenizer.encode(piece, add_special_tokens=False, split_special_tokens=True)
            ids = torch.tensor([1, *ids, 2])
            with torch.no_grad():
                logits = twin(ids[None]).logits[0, :-1]
            nats += float(torch.nn.functional.cross_entropy(logits, ids[1:], reduction="sum"))
            size += len(piece.encode())
        found = nats / math.log(2) / size
        assert found == pytest.approx(entry["bits_per_byte"][name], rel=1e-5)


def first_pieces(source, chunk_bytes, max_bytes):
    size = 0
    for text in source.held_out():
        for piece in cut_text(text, chunk_bytes):
            size += len(piece.encode())
            if size > max_bytes:
                return
            yield piece


def test_a_grown_vocabulary_is_measured_with_its_own_tokenizer(sample, tmp_path):
    (base,) = heads(sample, tmp_path, (0.1,))
    (tmp_path / "grown").mkdir()
    model = read_model(base / "tokenizer.model")
    piece = model.pieces.add()
    piece.piece, piece.score = "▁the▁the", -1e6
    path = tmp_path / "grown" / "tokenizer.model"
    path.write_bytes(model.SerializeToString())
    tokenizer = Tokenizer.open(path)
    assert tokenizer.vocab_size == 2049
    larger = toy_model(toy_config(vocab_size=2050, num_base_ids=2048, num_padded_ids=1), seed=1)
    tuned = tmp_path / "tuned"
    write_folder(tuned, larger.config, larger.named_parameters(), tokenizer=tokenizer)
    record = budget(sample, base, tuned, 0.3, tmp_path / "out")
    assert record["shared_rows"] == 2048
    # The lower end is not the base, which lacks the new rows, so it is measured where it matters.
    weights = [entry["weight"] for entry in record["evaluations"]]
    assert weights[:2] == [1.0, 0.0]
    assert len(weights) <= 5
    new = PretrainedFolder(tmp_path / "out").read(HEAD, slice(2048, None))
    assert torch.equal(new, larger.lm_head.weight[2048:])
    assert Tokenizer.open(tmp_path / "out").vocab_size == 2049


def test_a_budget_that_no_blend_keeps_says_what_is_best(sample, tmp_path):
    base, tuned = heads(sample, tmp_path, (-1.0, 1.2))
    message = (
        r"max_general_bits_per_byte=-50: no measured blend .* best is -\d+\.\d+ at weight 0\.\d+"
    )
    with pytest.raises(ValueError, match=message):
        budget(sample, base, tuned, -50.0, tmp_path / "out")
    assert {path.name for path in tmp_path.iterdir()} == {"head0", "head1"}


@pytest.mark.parametrize("broken", ["blend", "folder"])
@pytest.mark.parametrize(
    ("scale", "message"),
    [
        (math.nan, r"head1.*: lm_head\.weight holds values that are infinite or NaN"),
        (
            5e37,
            r"head1.*: the general loss is (nan|inf) .*check the weights",
        ),  # its logits overflow
    ],
)
def test_what_is_not_finite_is_refused(sample, tmp_path, broken, scale, message):
    folders = heads(sample, tmp_path, (0.1, scale))
    if broken == "blend":
        folders.reverse()
    with pytest.raises(ValueError, match=message):
        budget(sample, *folders, 0.1, tmp_path / "out")
    assert {path.name for path in tmp_path.iterdir()} == {"head0", "head1"}


@given(
    st.lists(st.floats(0, 5), min_size=9, max_size=9),
    st.floats(-1, 6),
    st.booleans(),
)
def test_the_search_takes_nothing_that_it_has_not_measured(values, limit, convex):
    """Any piecewise linear loss: new places inside, apart, and the answer among them."""

    def loss(place):
        if convex:
            return values[0] + values[1] * place + 5 * values[2] * (place - values[3] / 5) ** 2
        left = min(int(place * 8), 7)
        share = place * 8 - left
        return values[left] * (1 - share) + values[left + 1] * share

    measured = {place: loss(place) for place in (0.0, 1.0)}
    for _ in range(12):
        place = next_weight(measured, limit)
        if place is None:
            break
        assert 0 < place < 1
        assert min(abs(place - other) for other in measured) > 1e-4
        measured[place] = loss(place)
    found = largest_within(measured, limit)
    assert found is None or loss(found) <= limit
    assert found is not None or all(value > limit for value in measured.values())


@pytest.mark.parametrize("power", [1, 2, 3])
@pytest.mark.parametrize("budget", [0.01, 0.1, 0.5])
def test_a_rise_is_found_to_a_sixteenth_in_four_measurements(power, budget):
    measured = {0.0: 2.0, 1.0: 3.0}
    for _ in range(4):
        if (weight := next_weight(measured, 2 + budget)) is not None:
            measured[weight] = 2 + weight**power
    found = largest_within(measured, 2 + budget)
    assert found is not None
    assert 0 <= budget ** (1 / power) - found < 1 / 16


def test_both_ends_are_measured_first():
    assert next_weight({1.0: 3.0}, 2.0) == 0.0
    assert next_weight({1.0: 3.0}, 3.0) is None


BUDGET = {"blend": "base", "max_general_bits_per_byte": 0.02, "general": ["general_en"]}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"blend": "base"}, "needs either blend_weight=.* or max_general"),
        (BUDGET | {"blend_weight": 0.5}, "needs either"),
        ({"blend_weight": 0.5}, "blend_weight needs blend="),
        ({"max_general_bits_per_byte": 0.1}, "max_general_bits_per_byte needs blend="),
        ({"blend": "base", "blend_weight": 1.5}, r"blend_weight=1.5: must be in \[0, 1\]"),
        ({"blend": "base", "blend_weight": math.nan}, "blend_weight=nan"),
        (BUDGET | {"max_general_bits_per_byte": math.inf}, "=inf: must be finite"),
        (BUDGET | {"general": []}, "a budget needs general="),
        ({"general": ["general_en"]}, "a budget needs general=.* and nothing else does"),
        (BUDGET | {"general": ["general_en"] * 2}, "a source is named twice"),
        (BUDGET | {"general": ["nowhere"]}, "general=nowhere: no folder .*set root="),
        (BUDGET | {"general": ["tokenizer"]}, "general=tokenizer: "),
        (BUDGET | {"general": ["nothing_held_out"]}, "has no held-out documents"),
        (BUDGET | {"general": ["no_text"]}, "held_out.jsonl: missing"),
        (BUDGET | {"chunk_bytes": 3}, "chunk_bytes=3: must be at least 4"),
        (BUDGET | {"max_bytes": 0}, "max_bytes=0: must be at least 4"),
        (BUDGET | {"max_bytes": 5}, "held-out text of general_en is empty"),
        (BUDGET | {"device": "tpu"}, "device='tpu'"),
        (BUDGET | {"blend": "nowhere"}, "blend=.*nowhere: .*no config.json"),
        (BUDGET | {"blend": "wide"}, "another architecture"),
        (BUDGET | {"blend": "rotary"}, "was not tuned from .*rope_theta"),
        (BUDGET | {"merge": "chat_vector"}, "blend has no meaning with merge=chat_vector"),
        ({"tuned": ["base"], "weights": [1.0]}, "tuned has no meaning with merge=none"),
        ({"merge": "task_arithmetic", "weights": [1.0]}, "needs tuned"),
        ({"merge": "task_arithmetic", "tuned": ["base"]}, "needs weights"),
        (
            {"merge": "task_arithmetic", "tuned": ["base"], "weights": [1.0, 2.0]},
            "give one for each of tuned",
        ),
        (
            {"merge": "task_arithmetic", "tuned": ["base"], "weights": [1.0], "base": "base"},
            "base has no meaning with merge=task_arithmetic",
        ),
    ],
    ids=str,
)
def test_refusals(sample, tmp_path, models, options, message):
    root = source_folders(sample, tmp_path)
    places = {"nowhere", *(path.name for path in models.iterdir())}

    def place(value):
        return str(models / value) if value in places else value

    given = {"folder": "tuned", "root": str(root)} | options
    given = {key: place(v) if isinstance(v, str) else v for key, v in given.items()}
    given |= {"tuned": list(map(place, given.get("tuned", [])))}
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(ValueError, match=message):
        export(**given, out=str(tmp_path / "out"))
    assert before == sorted(tmp_path.rglob("*"))


@pytest.fixture(scope="module")
def models(sample, tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    base_folder(sample, folder / "base")
    base_folder(sample, folder / "tuned", 1)
    base_folder(sample, folder / "wide", intermediate_size=64)
    base_folder(sample, folder / "rotary", rope_theta=1e6)
    return folder


def source_folders(sample, folder):
    """The sample's sources, and copies that have held out nothing or lost what they held out."""
    root = folder / "sources"
    root.mkdir()
    for name in ("general_en", "tokenizer"):
        (root / name).symlink_to(sample / name)
    for name in ("nothing_held_out", "no_text"):
        (root / name).mkdir()
        for path in (sample / "general_en").iterdir():
            if path.name not in ("manifest.json", "held_out.jsonl"):
                (root / name / path.name).symlink_to(path)
        manifest = json.loads((sample / "general_en/manifest.json").read_text())
        if name == "nothing_held_out":
            manifest["held_out"]["documents"] = 0
        (root / name / "manifest.json").write_text(json.dumps(manifest))
    return root


def test_the_command_takes_a_signed_budget():
    from hydra import compose, initialize_config_dir

    import scripts.export  # noqa: F401 its schema
    from conf.suggest import CONF

    with initialize_config_dir(str(CONF), version_base="1.3"):
        line = ["folder=a", "out=b", "blend=c", "max_general_bits_per_byte=+0.02"]
        composed = compose("export", [*line, "general=[general_en,general_zh]"])
    assert composed.max_general_bits_per_byte == 0.02
    assert composed.general == GENERAL
