"""Everything that conf/ offers composes, and what it does not offer is answered helpfully."""

import importlib
from dataclasses import replace

import pytest
import torch
from hydra import compose, initialize_config_dir

from conf.schema import check_same_run, load_run, register, to_yaml
from conf.suggest import CONF, check_overrides, choices
from data.rows.curriculum_config import TRAINS
from model.transformer import Mistral
from tests.helpers.commands import NAMES, module_of
from tests.helpers.runs import ROOT, configure

PLACES = ("data.root=x", "data.tokenizer=x")


@pytest.fixture(autouse=True)
def _registered():
    register()


def options(group):
    return sorted(path.stem for path in (CONF / group).glob("*.yaml"))


@pytest.mark.parametrize("experiment", options("experiment"))
@pytest.mark.parametrize("data", options("data"))
def test_every_experiment_composes_with_every_data_set(experiment, data):
    config = configure(f"+experiment={experiment}", f"data={data}", "init_from=x", *PLACES)
    assert config.experiment == experiment
    assert config.folder.name.startswith(f"{experiment}-")
    assert to_yaml(config)


@pytest.mark.parametrize("model", sorted({*options("model")} - {"pretrained"}))
def test_every_model_builds(model):
    config = configure("+experiment=tspt_stage1", f"model={model}")
    with torch.device("meta"):
        network = Mistral(config.model)
    assert sum(p.numel() for p in network.parameters()) > 0
    assert config.batch.row_length > config.model.sliding_window


@pytest.mark.parametrize("curriculum", options("curriculum"))
def test_every_curriculum_composes(curriculum):
    config = configure(f"curriculum={curriculum}")
    numbers = {"tspt_grown": 4, "sft": 1, "sft_published": 1, "base": 1, "domain_only": 1}
    assert len(config.curriculum.stages) == numbers.get(curriculum, 2)


def test_mistral_7b_has_its_published_size():
    config = configure("model=mistral_7b", "data=bilingual", *PLACES)
    with torch.device("meta"):
        network = Mistral(config.model)
    assert sum(p.numel() for p in network.parameters()) == 7_241_732_096
    assert config.batch.row_length == 8192


def test_a_grown_vocabulary_thaws_step_by_step():
    config = configure("+experiment=tspt_stage1_grown", "init_from=x", *PLACES)
    stages = config.curriculum.stages
    assert [stages[name].trains for name in config.curriculum.run] == list(TRAINS)
    assert config.model is None
    assert config.plan().stages[-1].name == "adaptation"


@pytest.mark.parametrize("curriculum", ["tspt", "tspt_published", "tspt_grown"])
def test_tspt_has_its_published_proportions(curriculum):
    stages = configure(f"curriculum={curriculum}").curriculum.stages
    first, second = stages["adaptation"], stages["specialization"]
    replayed = second.tokens * second.replay.share
    assert first.tokens / (second.tokens - replayed) == pytest.approx(5.5 / 1.5, rel=0.01)
    assert replayed / first.tokens == pytest.approx(0.33 / 5.5, rel=0.01)
    assert second.replay.of == "adaptation"


@pytest.mark.parametrize(
    ("argument", "answer"),
    [
        ("optim.lrr=1", "optim.lrr; did you mean optim.lr"),
        ("optimm.lr=1", "optimm.lr; did you mean optim.lr"),
        ("row_length=1", "row_length; did you mean batch.row_length"),
        ("curriculum.stages.adaptatoin.tokens=1", "did you mean curriculum.stages.adaptation.to"),
        ("model=toi", "model=toi; did you mean toy"),
        ("+experiment=tspt_stage_1", "did you mean tspt_stage1; there are"),
        ("curiculum=tspt", "curiculum; did you mean curriculum"),
        ("sede=0,1,2", "sede; did you mean seed"),
    ],
)
def test_a_typo_is_answered_with_the_nearest_key(argument, answer):
    with pytest.raises(ValueError, match=r"no such option") as error:
        check_overrides("train", [argument])
    assert answer in str(error.value).replace("?", "")


@pytest.mark.parametrize(
    "arguments",
    [
        ["+experiment=tspt_stage1", "seed=0,1,2", "-m"],
        ["model=toy,small", "model.sliding_window=null", "-m"],
        ["model=pretrained", "init_from=x"],
        ["+data.sources.mine=x"],
        ["curriculum.stages.specialization.replay.share=0.3"],
        ["--cfg", "job"],
    ],
)
def test_what_exists_passes(arguments):
    check_overrides("train", arguments)
    check_overrides("train", arguments)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("resume=maybe", "resume='maybe'"),
        ("model=pretrained", "takes its shape from init_from"),
        ("batch.tokens_per_step=1000", "not a multiple of"),
        ("batch.row_length=1", "batch.row_length=1"),
        ("curriculum.stages.adaptation.tokens=0", "adaptation.tokens"),
        ("+curriculum.stages.adaptation.weights.moon=1", "moon: not a source or mixture"),
        ("+data.general.moon=1", "data.general.moon: no such source"),
        ("model.sliding_window=0", "model.sliding_window=0"),
        ("checkpoint.keep_last=0", "checkpoint.keep_last=0"),
        ("checkpoint.export_dtype=int8", "checkpoint.export_dtype"),
        ("logging.wandb=maybe", "logging.wandb"),
        ("logging.every=0", "logging.every=0"),
        ("logging.peak_tflops=-1", "logging.peak_tflops"),
        ("curriculum.stages.adaptation.trains=none", "adaptation.trains: 'none'"),
        ("curriculum.stages.adaptation.lr_multipliers.head=0", "adaptation.lr_multipliers.head: 0"),
        ("model.num_base_ids=0", "model.num_base_ids=0"),
        ("optim.lr=0", "optim.lr=0"),
        ("optim.beta2=1", "optim.beta2"),
        ("optim.weight_decay=-1", "optim.weight_decay"),
    ],
)
def test_bad_values_are_refused_with_field_and_value(override, message):
    with pytest.raises(ValueError, match=r".") as error:
        configure(override)
    assert message in str(error.value)


def test_missing_values_are_named(monkeypatch):
    monkeypatch.setattr("sys.argv", ["train.py", "data=bilingual"])
    with pytest.raises(SystemExit, match=r"^error: data\.root, data\.tokenizer: must be given$"):
        importlib.import_module("train").main()


def test_a_later_stage_needs_the_weights_of_the_earlier():
    with pytest.raises(ValueError, match="specialization, which follows adaptation"):
        configure("+experiment=tspt_stage2")


def test_the_name_depends_on_what_is_computed_and_not_on_how():
    base = configure("+experiment=tspt_stage1")
    assert configure("+experiment=tspt_stage1", "seed=1").folder != base.folder
    for launch in ("logging.every=7", "device=cpu", "resume=never"):
        assert configure("+experiment=tspt_stage1", launch).folder == base.folder
    assert configure("name=mine").folder.name == "mine"


def test_a_run_is_not_continued_with_other_settings(tmp_path):
    path = tmp_path / "config.yaml"
    config = configure()
    check_same_run(path, config)  # nothing there yet
    path.write_text(to_yaml(config))
    check_same_run(path, config)
    check_same_run(path, replace(config, resume="required", device="cpu"))
    with pytest.raises(ValueError, match="seed: 0 -> 3"):
        check_same_run(path, replace(config, seed=3))


def test_a_run_of_an_older_version_is_continued_with_what_it_did(tmp_path):
    path = tmp_path / "config.yaml"
    config = configure()
    older = to_yaml(config).replace("  moment_dtype: float32\n", "")
    assert older != to_yaml(config)
    path.write_text(older)
    check_same_run(path, config)
    rounded = replace(config, optim=replace(config.optim, moment_dtype="bfloat16"))
    with pytest.raises(ValueError, match=r"optim.moment_dtype: float32 -> bfloat16"):
        check_same_run(path, rounded)


def test_an_older_run_is_opened_by_the_names_it_was_written_with(tmp_path):
    older = to_yaml(configure("tasks.benchmarks=exams", "name=old"))
    assert "  benchmarks: exams" in older
    (tmp_path / "config.yaml").write_text(older.replace("  benchmarks: exams", "  data: exams"))
    assert load_run(tmp_path).tasks.benchmarks == "exams"


GROUPS = sorted(path.name for path in CONF.iterdir() if any(path.glob("*.yaml")))


@pytest.mark.parametrize("name", NAMES)
def test_no_field_has_the_name_of_a_group_that_its_command_does_not_use(name):
    """Hydra would take such a field for the group, and no command line could set it."""
    importlib.import_module(module_of(name))
    with initialize_config_dir(str(CONF), version_base="1.3"):
        composed = compose(name, return_hydra_config=True)
    used = set(composed.hydra.runtime.choices)
    if name == "train":
        used.add("experiment")  # the field is the name of what +experiment= has chosen
    assert used & set(GROUPS) or name not in ("train", "plan", "benchmark", "prepare_data")
    assert not (set(GROUPS) - used) & set(composed)


def test_readme_and_training_page_name_only_what_exists():
    pages = (ROOT / "README.md", ROOT / "docs" / "howto" / "train.md")
    text = "\n".join(page.read_text(encoding="utf-8") for page in pages)
    for line in text.splitlines():
        for word in line.replace("`", " ").split():
            if word.startswith("+experiment="):
                assert word.removeprefix("+experiment=") in choices("experiment")
    keys = [
        word
        for cell in text.split("`")
        for word in cell.split()
        if "=" in word and word[0].isalpha() and not word.startswith(("name", "inputs", "out"))
    ]
    shown = [word for word in keys if "<" not in word and "." in word.split("=")[0]]
    assert len(shown) >= 8
    register()
    check_overrides("train", ["lora=r8", *shown])  # which lora.* belong to


def test_a_part_of_what_is_not_there_is_answered_with_how_to_get_it():
    register()
    message = r"lora\.rank: lora is null here; .*\(lora=continued, none, r64, r8\)"
    with pytest.raises(ValueError, match=message):
        check_overrides("train", ["+experiment=tspt_stage1", "lora.rank=4"])
    check_overrides("train", ["+experiment=tspt_stage1", "lora=r8", "lora.rank=4"])
