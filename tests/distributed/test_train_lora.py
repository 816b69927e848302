"""Training an adapter: the same at any number of ranks, after any crash, and the base untouched."""

import json
import shutil
import warnings
from dataclasses import replace

import pytest
import torch
import torch.distributed.checkpoint as dcp
from safetensors.torch import load_file

from conf.build import build_run
from conf.schema import load_run
from model.adapters import adapter_names
from pretrained.adapter import CONFIG, WEIGHTS, AdapterFolder, load_adapter
from pretrained.safetensors_folder import PretrainedFolder, load_pretrained
from tests.e2e.resume.test_resume import figures
from tests.helpers.kills import run_training
from tests.helpers.ranks import run_ranks
from tests.helpers.runs import configure, evaluations, losses, starts, tiny
from tests.helpers.toy import random_tokens, run_without_hook
from tests.unit.model.test_lora import largest_difference, peft_model
from train import train, train_step
from training.optim import build_optimizer, set_learning_rates
from training.parallelize import clean_named_parameters, local_bytes, local_rows, materialize
from training.sources import open_weights
from training.step import begin_step

# Sizes that neither 2 nor 3 divides; the last three of 2,051 rows stand for no token, those from
# 1,901 on for pieces that a growth has added.
SHAPE = (
    *("model.vocab_size=2051", "model.num_padded_ids=3", "model.num_base_ids=1901"),
    *("model.hidden_size=43", "model.head_dim=10", "model.intermediate_size=67"),
)
LORA = (
    *("lora=r8", "lora.rank=5", "lora.alpha=10", "lora.dropout=0.1", "lora.rslora=true"),
    "lora.lr_ratio=4",
)
TABLES = "lora.modules_to_save=[embed_tokens,lm_head]"


@pytest.fixture(scope="module")
def base(sample, tmp_path_factory):
    """A folder with a grown vocabulary to adapt."""
    folder = tmp_path_factory.mktemp("base")
    steps = ("curriculum.stages.adaptation.tokens=1024", "evaluation.every=100", "name=base")
    config = configure("+experiment=tspt_stage1", *tiny(sample, folder), *SHAPE, *steps)
    train(config)
    return config.folder / "model"


def options(sample, base, folder, name, *more):
    """Adapt in 20 steps, a checkpoint after every fourth."""
    return [
        "+experiment=tspt_stage1",
        "model=pretrained",
        *(x for x in tiny(sample, folder) if not x.startswith("model.")),
        *(f"init_from={base}", f"name={name}", *LORA),
        "curriculum.stages.adaptation.tokens=10240",
        *("batch.micro_batch_rows=2", "evaluation.every=10", "logging.row_losses=true"),
        "checkpoint.asynchronous=false",
        *more,
    ]


def twenty_steps(world, arguments, steps=20):
    """The trained tensors after 20 steps, whole, and whether the base in memory is what it was."""
    config = configure(*arguments)
    parts = build_run(config, world)
    materialize(parts.model, parts.weights, world.device)
    optimizer = build_optimizer(parts.model, config.optim)
    from data.rows.loader import Loader

    split = {"rank": world.rank, "world_size": world.dp_size, "seed": config.seed}
    with Loader(parts.plan, parts.sources, micro_batch_rows=2, **split) as loader:
        for step in range(steps):
            plan, schedule = parts.plan, parts.config.schedule
            begin_step(step, plan, parts.model, optimizer, parts.spans, schedule)
            train_step(parts.model, optimizer, loader.step(step), parts.config, world)
    trained, untouched = {}, True
    for name, parameter in clean_named_parameters(parts.model):
        if name in adapter_names(parts.model):
            full = parameter.full_tensor() if hasattr(parameter, "full_tensor") else parameter
            trained[name] = full.detach().clone()
        else:
            stored = parts.initial.base.read(name, local_rows(parameter)).to(parts.dtype)
            untouched &= torch.equal(local_bytes(parameter.detach()), local_bytes(stored))
    return trained, untouched


def test_one_two_and_three_ranks_train_the_same_adapter(sample, base, tmp_path):
    # A larger eps: Adam would divide elements of almost no gradient by as little, and show their
    # rounding as a difference of weights.
    more = ("parallel.checkpointing=selective", TABLES, "optim.eps=1e-5")
    before = {path: path.read_bytes() for path in base.iterdir()}
    arguments = options(sample, base, tmp_path, "run", *more)
    _assert_equal([run_ranks(twenty_steps, ranks, arguments) for ranks in (1, 2, 3)])
    assert before == {path: path.read_bytes() for path in base.iterdir()}


def _assert_equal(results):
    """Compare the trained tensors of some numbers of ranks; the base is untouched on every rank."""
    assert all(untouched for ranks in results for _, untouched in ranks)
    (expected, _), worst = results[0][0], 0.0
    assert all(tensor.abs().max() > 0 for tensor in expected.values())
    for ranks in results[1:]:
        for trained, _ in ranks:
            assert trained.keys() == expected.keys()
            for name, tensor in trained.items():
                difference = (tensor - expected[name]).abs().max() / expected[name].abs().max()
                worst = max(worst, float(difference))
    print(f"largest difference relative to the largest weight {worst:.1e}")
    assert worst < 1e-4


def test_a_base_in_bfloat16_is_frozen_bit_for_bit(sample, base, tmp_path):
    arguments = options(sample, base, tmp_path, "run", "parallel.dtype=bfloat16", TABLES)
    ((trained, untouched),) = run_ranks(twenty_steps, 1, arguments)
    assert untouched
    assert all(tensor.dtype == torch.float32 for tensor in trained.values())


@pytest.fixture(scope="module")
def straight(sample, base, tmp_path_factory):
    """Uninterrupted runs of 1 and 2 ranks."""
    folder = tmp_path_factory.mktemp("straight")
    for ranks in (1, 2):
        assert run_training(options(sample, base, folder, f"{ranks}", TABLES), ranks) == 0
    return folder


@pytest.mark.parametrize("ranks", [1, 2])
def test_a_killed_run_continues_bit_for_bit(sample, base, straight, tmp_path, ranks):
    """Inside accumulation, between gradient and update, inside the last export."""
    again = options(sample, base, tmp_path, "run", TABLES)
    for kill in (
        ("torch:Tensor.backward", 21, ranks - 1),
        ("torch.optim:AdamW.step", 6, ranks - 1),
        ("training.checkpoint.export:save_adapter", 1, 0),
    ):
        assert run_training(again, ranks, kill) == -9
    assert not (tmp_path / "run" / "adapter").exists()
    assert run_training(again, ranks) == 0
    run, expected = tmp_path / "run", straight / f"{ranks}"
    # One rank has twice the micro-batches in a step, so its first kill comes earlier.
    assert starts(run) == ([0, 4, 8, 20] if ranks == 1 else [0, 8, 12, 20])
    assert figures(run) == figures(expected)
    assert (run / "adapter" / WEIGHTS).read_bytes() == (expected / "adapter" / WEIGHTS).read_bytes()


def test_what_a_run_leaves(sample, base, straight):
    run = straight / "1"
    assert not (run / "model").exists()
    assert {path.name for path in (run / "adapter").iterdir()} >= {
        CONFIG,
        WEIGHTS,
        "tokenizer.json",
    }
    adapter = AdapterFolder(run / "adapter")
    assert adapter.base == str(base.absolute())
    assert adapter.base_digest == PretrainedFolder(base).digest
    config = json.loads((run / "adapter" / CONFIG).read_text())
    assert config["target_modules"] == sorted(
        [f"{x}_proj" for x in ("q", "k", "v", "o", "gate", "up", "down")]
    )
    assert config["modules_to_save"] == ["embed_tokens", "lm_head"]
    # A checkpoint holds what is trained and its moments, not the base.
    reader = dcp.FileSystemReader(run / "checkpoints/step-00000020")
    names = {
        name.removeprefix("base_model.model.") for name in load_file(run / "adapter" / WEIGHTS)
    }
    moments = {f"optimizer.{name}.{x}" for name in names for x in ("step", "exp_avg", "exp_avg_sq")}
    expected = {"step"} | {f"model.{name}" for name in names} | moments
    assert reader.read_metadata().state_dict_metadata.keys() == expected


def test_padded_rows_never_train(base, straight):
    for name in ("model.embed_tokens.weight", "lm_head.weight"):
        before = PretrainedFolder(base).read(name, slice(None))
        after = load_file(straight / "1/adapter" / WEIGHTS)[f"base_model.model.{name}"]
        assert torch.equal(before[2048:], after[2048:])
        assert (before[1901:2048] != after[1901:2048]).any()


def test_peft_opens_what_a_run_leaves(base, straight):
    """A grown vocabulary whose rows were trained beside the updates: equal logits, also merged."""
    twin = peft_model(base, straight / "1/adapter")
    model = load_pretrained(base)
    load_adapter(model, AdapterFolder(straight / "1/adapter"), PretrainedFolder(base))
    tokens = random_tokens(model.config, 2, 40)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = model(tokens)
        theirs = twin(input_ids=tokens, use_cache=False).logits
        assert largest_difference(theirs, expected) < 1e-5
        merged = twin.merge_and_unload()(tokens, use_cache=False).logits
        assert largest_difference(merged, expected) < 1e-5


def test_a_run_goes_on_from_an_adapter_merged(sample, base, straight, tmp_path):
    """Full training from a run of LoRA starts where that has ended."""
    source = open_weights(str(straight / "1"))
    name = "model.layers.1.mlp.up_proj.weight"
    a, b = (
        AdapterFolder(straight / "1/adapter").read(
            f"model.layers.1.mlp.up_proj.lora_{x}.weight", slice(None)
        )
        for x in "AB"
    )
    expected = PretrainedFolder(base).read(name, slice(None)) + 10 / 5**0.5 * b @ a
    torch.testing.assert_close(source.read(name, slice(None)), expected)
    more = ("lora=none", f"init_from={straight / '1'}", "curriculum.stages.adaptation.tokens=512")
    arguments = [x for x in options(sample, base, tmp_path, "next") if not x.startswith("lora")]
    config = configure(*arguments, *more[1:])
    train(config)
    before, after = evaluations(straight / "1")[20], evaluations(config.folder)[0]
    for name in before:
        assert after[name]["loss_nats"] == pytest.approx(before[name]["loss_nats"], rel=1e-5)


def test_what_is_saved_after_an_evaluation_is_not_what_was_gathered(sample, base, tmp_path):
    """One device leaves a settled base to itself and keeps the gathered adapters for backward."""
    arguments = options(sample, base, tmp_path, "bf16", "parallel.dtype=bfloat16")
    config = configure(*arguments, "curriculum.stages.adaptation.tokens=2048", "evaluation.every=2")
    train(config)
    tensors = load_file(config.folder / "adapter" / WEIGHTS)
    factors = [x for name, x in tensors.items() if ".lora_" in name]
    assert factors
    assert all(x.dtype == torch.float32 for x in factors)
    assert any((x != x.bfloat16().float()).any() for x in factors)  # a gathered copy is rounded


def test_lora_plus_gives_b_its_own_rate(sample, base, tmp_path):
    def rates(world, arguments):
        parts = build_run(configure(*arguments), world)
        optimizer = build_optimizer(parts.model, parts.config.optim)
        set_learning_rates(optimizer, 1e-3, parts.plan.stages[0].config.lr_multipliers)
        names = {id(p): name for name, p in clean_named_parameters(parts.model)}
        return {names[id(p)]: g["lr"] for g in optimizer.param_groups for p in g["params"]}

    from training.distributed import start_world

    with start_world("cpu") as world:
        found = rates(world, options(sample, base, tmp_path, "run", TABLES))
    for name, rate in found.items():
        assert rate == pytest.approx(4e-3 if ".lora_B." in name else 1e-3)


def test_refusals(sample, base, straight, tmp_path):
    cases = {
        ("curriculum.stages.adaptation.trains=embeddings",): r"with lora embedding and head are",
        ("lora.targets=[q_prj]",): r"lora\.targets: 'q_prj' matches no linear",
        (f"init_from={straight / '1'}",): r"lora\.modules_to_save=\[\], but the adapter that init",
        (
            f"init_from={straight / '1'}",
            TABLES,
            "lora.rank=8",
        ): r"lora\.rank=8, .* has 5; set lora=con",
        (f"init_from={straight / '1'}", TABLES, "lora.alpha=5"): r"lora\.alpha=5.*, .* has 10",
        (
            f"init_from={straight / '1'}",
            TABLES,
            "lora.rslora=false",
        ): r"lora\.rslora=False, .* True",
        (
            f"init_from={straight / '1'}",
            TABLES,
            "lora.targets=[q_proj]",
        ): r"lora\.targets=\['q_proj",
        (
            "lora=continued",
            "lora.rank=null",
            "lora.alpha=null",
        ): "init_from is none; choose lora=r8",
        (f"init_from={tmp_path}",): "init_from",
    }
    for more, message in cases.items():
        with pytest.raises(ValueError, match=message):
            train(configure(*options(sample, base, tmp_path, "run", *more)))
    assert not (tmp_path / "run").exists()
    with pytest.raises(ValueError, match="init_from is not given"):
        configure("+experiment=tspt_stage1", "lora=r8")


def test_another_base_under_a_begun_run_is_refused(sample, base, tmp_path):
    arguments = options(sample, base, tmp_path, "run")
    assert run_training(arguments, 1, ("train:train_step", 7, 0)) == -9
    other = configure(
        "+experiment=tspt_stage1",
        *tiny(sample, tmp_path),
        *SHAPE,
        "seed=5",
        "curriculum.stages.adaptation.tokens=512",
        "evaluation.every=100",
        "name=other",
    )
    train(other)
    moved = replace(configure(*arguments), init_from=str(other.folder / "model"))
    with pytest.raises(ValueError, match=r"^init_from changed since"):
        train(moved)
    shutil.copytree(base, tmp_path / "elsewhere")  # the same base may lie where it likes
    seven = ("train:train_step", 1, 0)
    assert run_training([*arguments, f"init_from={tmp_path / 'elsewhere'}"], 1, seven) == -9
    environment = tmp_path / "run" / "environment.json"
    recorded = json.loads(environment.read_text())
    recorded["data_fingerprints"]["init_from"] = PretrainedFolder(other.folder / "model").digest
    environment.write_text(json.dumps(recorded))
    with pytest.raises(ValueError, match=r"init_from.* changed since"):
        train(configure(*arguments))
    assert max(losses(tmp_path / "run")) == 4  # where the start elsewhere went on from


def continuing(sample, folder, name, adapter, *more):
    """Train an adapter further, in 10 steps."""
    arguments = options(sample, adapter, folder, name)
    return [
        *(x for x in arguments if not x.startswith("lora")),
        *("lora=continued", "curriculum.stages.adaptation.tokens=5120", *more),
    ]


def test_an_adapter_is_trained_further(sample, base, straight, tmp_path):
    """It begins where it has ended, and PEFT opens what it becomes, on the same base."""
    before = {path: path.read_bytes() for path in (straight / "1/adapter").iterdir()}
    config = configure(*continuing(sample, tmp_path, "further", straight / "1"))
    train(config)
    run = config.folder
    end, start = evaluations(straight / "1")[20], evaluations(run)[0]
    assert end.keys() == start.keys()
    for name in end:
        assert start[name]["loss_nats"] == pytest.approx(end[name]["loss_nats"], rel=1e-5)
    one, other = (AdapterFolder(folder / "adapter") for folder in (straight / "1", run))
    assert other.base == one.base
    assert other.base_digest == PretrainedFolder(base).digest
    written = [json.loads((x.folder / CONFIG).read_text()) for x in (one, other)]
    assert written[1] == written[0] | {"lora_dropout": 0.0}
    tensors = [load_file(x.folder / WEIGHTS) for x in (one, other)]
    assert tensors[0].keys() == tensors[1].keys()
    assert all((x != tensors[1][name]).any() for name, x in tensors[0].items())
    assert before == {path: path.read_bytes() for path in (straight / "1/adapter").iterdir()}
    settings = load_run(run).lora
    assert (settings.rank, settings.alpha, settings.rslora) == (5, 10.0, True)
    assert settings.modules_to_save == ["embed_tokens", "lm_head"]

    twin = peft_model(base, run / "adapter")
    tokens = random_tokens(PretrainedFolder(base).config, 2, 40)
    model = load_pretrained(base)
    load_adapter(model, other, PretrainedFolder(base))
    with torch.no_grad():
        theirs = twin(input_ids=tokens, use_cache=False).logits
        assert largest_difference(model(tokens), theirs) < 1e-5


def test_one_and_two_ranks_train_the_same_adapter_further(sample, straight, tmp_path):
    adapter = straight / "1/adapter"
    before = {path: path.read_bytes() for path in adapter.iterdir()}
    arguments = continuing(sample, tmp_path, "further", straight / "1", "optim.eps=1e-5")
    _assert_equal([run_ranks(twenty_steps, ranks, arguments, 10) for ranks in (1, 2)])
    assert before == {path: path.read_bytes() for path in adapter.iterdir()}


def test_further_training_continues_bit_for_bit_after_a_kill(sample, straight, tmp_path):
    arguments = continuing(sample, tmp_path, "killed", straight / "1")
    assert run_training(arguments, 1, ("torch.optim:AdamW.step", 6, 0)) == -9
    other = continuing(sample, tmp_path, "killed", straight / "2")
    with pytest.raises(ValueError, match=r"^init_from \(adapter\) changed since"):
        train(configure(*other))
    base = AdapterFolder(straight / "1/adapter").base
    leaves = ",".join(sorted(f"{x}_proj" for x in ("q", "k", "v", "o", "gate", "up", "down")))
    equal = ("lora.dropout=0", "lora.lr_ratio=1", f"lora.targets=[{leaves}]", TABLES)
    steps = "curriculum.stages.adaptation.tokens=5120"
    with pytest.raises(ValueError, match=r"^init_from \(adapter\) changed since"):
        train(configure(*options(sample, base, tmp_path, "killed", *equal, steps)))
    assert run_training(arguments, 1) == 0
    whole = continuing(sample, tmp_path, "whole", straight / "1")
    assert run_training(whole, 1) == 0
    assert figures(tmp_path / "killed") == figures(tmp_path / "whole")
    one, other = (tmp_path / name / "adapter" / WEIGHTS for name in ("killed", "whole"))
    assert one.read_bytes() == other.read_bytes()


@pytest.fixture(scope="module")
def theirs(base, tmp_path_factory):
    """Adapters that PEFT has written, by name."""
    from tests.unit.pretrained.test_adapters_of_peft import peft_writes

    folder = tmp_path_factory.mktemp("theirs")
    q = {"target_modules": ["q_proj", "v_proj"]}
    kinds = {
        "plain": q | {"lora_dropout": 0.1},
        "head": q | {"modules_to_save": ["lm_head"], "use_rslora": True},
        "DoRA": q | {"use_dora": True},
        "ranks": q | {"rank_pattern": {"q_proj": 2}},
        "norms": q | {"modules_to_save": ["norm"]},
        "tables saved": q | {"save": {"save_embedding_layers": True}},
        "embedding": {"target_modules": ["q_proj", "embed_tokens"]},
    }
    for name, how in kinds.items():
        peft_writes(base, folder / name, **how)
    return folder


@pytest.mark.parametrize("kind", ["plain", "head"])
def test_an_adapter_of_peft_is_trained_further(sample, base, theirs, tmp_path, kind):
    """With its own linears and rank, whatever a run would adapt by default."""

    def first_logits(world, arguments):
        parts = build_run(configure(*arguments), world)
        materialize(parts.model, parts.weights, world.device)
        tokens = random_tokens(parts.model.config, 2, 40)
        with torch.no_grad():
            return parts.model(tokens), parts.config.lora, adapter_names(parts.model)

    from training.distributed import start_world

    with start_world("cpu") as world:
        arguments = continuing(sample, tmp_path, kind, theirs / kind)
        logits, settings, names = first_logits(world, arguments)
    expected = peft_model(base, theirs / kind)
    tokens = random_tokens(PretrainedFolder(base).config, 2, 40)
    with torch.no_grad():
        assert largest_difference(logits, expected(input_ids=tokens, use_cache=False).logits) < 1e-5
    assert (settings.rank, settings.targets) == (4, ["q_proj", "v_proj"])
    assert settings.modules_to_save == (["lm_head"] if kind == "head" else [])
    stored = {n.removeprefix("base_model.model.") for n in load_file(theirs / kind / WEIGHTS)}
    assert names == stored


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("DoRA", "use_dora=true; the training of such an adapter cannot be continued. Merge it"),
        ("ranks", "rank_pattern or alpha_pattern; the training"),
        ("norms", r"norm\.weight is trained whole; the training"),
        ("tables saved", "weight is stored, and modules_to_save does not name it; the training"),
        ("embedding", r"embed_tokens\.weight is trained by an update; the training"),
    ],
)
def test_adapters_that_are_not_trained_further(sample, theirs, tmp_path, kind, message):
    with pytest.raises(ValueError, match=message):
        train(configure(*continuing(sample, tmp_path, "run", theirs / kind)))
    assert not (tmp_path / "run").exists()


def losses_compiled_or_not(arguments):
    """Print the losses of a few steps, compiled and not; outside the shape checks of pytest."""
    found = []
    for compiled in ("false", "true"):
        config = configure(*arguments, f"parallel.compile={compiled}", f"name=compile-{compiled}")
        train(config)
        found.append([loss for loss, _ in losses(config.folder).values()])
    print(json.dumps(found))


@pytest.mark.slow
def test_a_compiled_run_computes_the_same(sample, base, tmp_path):
    """With dropout and recomputation; minutes of compiling on a CPU."""
    more = ("curriculum.stages.adaptation.tokens=1536", "parallel.checkpointing=full")
    arguments = [x for x in options(sample, base, tmp_path, "x", *more) if x != "name=x"]
    one, other = json.loads(run_without_hook(losses_compiled_or_not, arguments).splitlines()[-1])
    assert one == pytest.approx(other, rel=1e-5)
