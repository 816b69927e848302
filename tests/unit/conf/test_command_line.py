"""Command lines as people type them: what is taken as typed, and what is answered instead."""

import importlib
import os
import shlex
import sys
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir

from conf.command import command
from conf.grammar import field_of
from conf.help import help_text
from conf.suggest import APPENDED, CONF, check_overrides, is_group, split_flags
from conf.words import FIELDS, NOTES
from inference.generation.chat import ChatConfig
from tests.helpers.commands import NAMES, register_all

STAGE1 = "+experiment=tspt_stage1"


@pytest.fixture(autouse=True, scope="module")
def _registered():
    register_all()


def read(name, *typed):
    """What Hydra itself composes from a command line that was read by us."""
    overrides = split_flags(check_overrides(name, typed)).words
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose(name, overrides)


def refused(name, *typed):
    """What is said of a command line, in one line."""
    with pytest.raises(ValueError, match=r".") as error:
        check_overrides(name, typed)
    said = str(error.value)
    assert "\n" not in said
    for inner in ("Lexer", "hydra.cc", "EOF", "ListConfig", "full_key"):
        assert inner not in said
    return said


AS_TYPED = [
    *("试验", "数据/语料 1/训练 (1)", "../模型=v1/基座", "../w/b,c(1)", "../my models/base a"),
    *("modèle/épreuve", "a#b", "a&b;c!d", "x=y=z", "{a: b}", "[draft] notes", "it's", 'say "hi"'),
    *(
        "C:\\Users\\me\\base",
        "\\\\server\\share",
        "trailing\\",
        "a\\'b",
        "'q",
        "001",
        "1e3",
        "true",
    ),
    *("$HOME/x", "a${b", "${nothing}/x", "\\${nothing}", "100%", "@x:y?z|w*", " led by a blank"),
    *(
        "choice(a,b)",
        "range(1,3)",
        "~user-that-is-not/x",
        "a~b",
        "-1",
        "--cfg",
        "+x",
        "日本語、中文。",
    ),
]


@pytest.mark.parametrize("text", AS_TYPED)
def test_a_path_is_taken_as_it_is_typed(text):
    found = read("compare", f"a={text}", "b=x", f"out={text}")
    assert (found.a, found.out) == (text, text)


@pytest.mark.parametrize(
    "text", [*AS_TYPED, "~/x", "${folder}", "${oc.env:HOME}", "a\nb", "", "\\("]
)
def test_nothing_in_a_prompt_has_a_meaning(text):
    assert read("generate", "folder=x", f"prompt={text}").prompt == text


def test_texts_that_end_an_answer_are_taken_as_typed():
    for typed, stop in (("\n", ["\n"]), ("[\n\n]", ["\n\n"]), ("[</s>,~/]", ["</s>", "~/"])):
        assert read("generate", "folder=x", f"stop={typed}").stop == stop


def test_what_hydra_reads_stays():
    train = read("train", STAGE1, "init_from=null", "name=${experiment}-s${seed}", "seed=3")
    assert train.init_from is None
    assert train.name == "tspt_stage1-s3"
    assert read("compare", "a='a, b'", 'b="it\'s"').b == "it's"
    assert read("compare", "a='a, b'", "b=x").a == "a, b"
    assert read("compare", r"a=b\ c\,d", "b=x").a == "b c,d"
    assert read("compare", "a=${oc.env:HOME}/x", "b=${a}").b == f"{os.environ['HOME']}/x"
    assert read("train", "data.general=${data.domain}").data.general == read("train").data.domain


def test_the_home_folder_is_meant_by_a_tilde():
    home = str(Path.home())
    for typed in ("init_from=~/m", "init_from='~/m'", 'init_from="~/m"'):
        assert read("train", typed).init_from == f"{home}/m"
    inputs = read("prepare_data", "inputs=[~/a.jsonl,'~/b c.jsonl',c~/d]").inputs
    assert inputs == [f"{home}/a.jsonl", f"{home}/b c.jsonl", "c~/d"]


@pytest.mark.parametrize(
    ("typed", "elements"),
    [
        ("one.jsonl", ["one.jsonl"]),
        ("my corpus 语料/a.jsonl", ["my corpus 语料/a.jsonl"]),
        ("[数据/a b.jsonl,c(1).jsonl]", ["数据/a b.jsonl", "c(1).jsonl"]),
        ("['my data/a=b,c.jsonl', \"d,e\" ]", ["my data/a=b,c.jsonl", "d,e"]),
        ("[a{1,2}.jsonl, b]", ["a{1,2}.jsonl", "b"]),
        ("[it's.jsonl, what's new]", ["it's.jsonl", "what's new"]),
        ("[a(1.jsonl,b)2.jsonl,c(]", ["a(1.jsonl", "b)2.jsonl", "c("]),
        ("[]", []),
    ],
)
def test_elements_of_a_list_are_taken_as_typed(typed, elements):
    assert read("prepare_data", f"inputs={typed}").inputs == elements


def test_one_value_is_a_list_of_one():
    assert read("train", "lora=r8", "lora.targets=q_proj").lora.targets == ["q_proj"]
    pattern = r".*layers\.[0-1]\..*_proj"
    assert read("train", "lora=r8", f"lora.targets=[{pattern},k_proj]").lora.targets == [
        pattern,
        "k_proj",
    ]
    assert read("evaluate", "tasks=mmlu").tasks == ["mmlu"]
    assert read("plan", "gpus=8").gpus == [8]
    assert read("train", "curriculum.run=adaptation").curriculum.run == ["adaptation"]
    assert read("report", "curves=[[a b,c],[d]]").curves == [["a b", "c"], ["d"]]


def test_values_of_a_mapping_are_taken_as_typed():
    typed = "answers={a: 数据/a b.jsonl, b: 'x, y.jsonl', c: C:\\z}"
    found = read("judge", typed, "answers.d=数据(2)")
    assert found.answers == {"a": "数据/a b.jsonl", "b": "x, y.jsonl", "c": "C:\\z", "d": "数据(2)"}
    assert read("evaluate", "shots_per_task={geobench: 0}").shots_per_task == {"geobench": 0}
    assert read("judge", "body={stop: [你好], top_p: 0.5}").body == {"stop": ["你好"], "top_p": 0.5}
    assert read("train", "+data.sources.mine=我的 源").data.sources.mine == "我的 源"


def test_a_field_of_any_type_takes_a_path_or_paths():
    assert read("report", "runs=运行 1/study").runs == "运行 1/study"
    assert read("report", "runs=[数据/a,b c]").runs == ["数据/a", "b c"]


def test_commas_separate_the_points_of_a_sweep():
    assert "seed=0,1,2" in check_overrides("train", ["seed=0,1,2", "-m"])
    assert "seed=range(0,3)" in check_overrides("train", ["--multirun", "seed=range(0,3)"])
    assert "name=choice(a,b)" in check_overrides("train", ["-m", "name=choice(a,b)"])
    study = check_overrides("train", ["-m", "+experiment=tspt_study", "arm=base,tspt"])
    assert "arm=base,tspt" in study
    swept = check_overrides(
        "train", ["-m", "init_from=runs/试验 a,runs/b", "lora=r8", "lora.targets=[a],[b,c]"]
    )
    assert "init_from='runs/试验 a','runs/b'" in swept
    assert "lora.targets=['a'],['b','c']" in swept
    assert read("generate", "-m", "folder=x", "prompt=a, b").prompt == "a, b"


@pytest.mark.parametrize(
    ("name", "typed", "answer"),
    [
        (
            "train",
            "seed=0,1 name=same",
            "name=same: several runs of the sweep would write runs/same; "
            "leave name out or name='same-${seed}'",
        ),
        ("train", "seed=0,1 optim.lr=1e-3,2e-3 name=x-${seed}", "would write runs/x-0; leave name"),
        ("train", "seed=0,1 name=a,b,a", "would write runs/a; leave name out or name='a-${seed}'"),
        ("train", "model=toy,small name=same", "would write runs/same; leave name out"),
        ("evaluate", "shots=0,5 folder=a tasks=[mmlu] out=x", "write x; out='x-${shots}'"),
        (
            "prepare_data",
            "tokenizer=a,b name=n out=o inputs=[f]",
            "would write o/n; name='n-${tokenizer}'",
        ),
    ],
)
def test_a_sweep_whose_runs_share_a_folder_is_refused_before_the_first(name, typed, answer):
    assert answer in refused(name, "-m", *typed.split())


@pytest.mark.parametrize(
    ("name", "typed"),
    [
        ("train", "seed=0,1 name=x-${seed}"),
        ("train", "seed=0,1"),
        ("train", "seed=0 name=same"),
        ("train", "seed=0,1 name=same runs_folder=r-${seed}"),
        ("train", "model=toy,small name=x-${hydra:runtime.choices.model}"),
        ("evaluate", "shots=0,5 folder=a tasks=[mmlu] out=x-${shots}"),
        ("prepare_data", "name=a,b out=o inputs=[f] tokenizer=t"),
    ],
)
def test_a_sweep_whose_runs_have_folders_of_their_own_passes(name, typed):
    assert check_overrides(name, ["-m", *typed.split()])[-1] == "-m"


@pytest.mark.parametrize(
    ("name", "typed", "answer"),
    [
        ("train", ["seed=0,1"], "python ... -m seed=0,1"),
        ("train", ["model=toy,small"], "python ... -m model=toy,small"),
        ("evaluate", ["tasks=mmlu,ceval"], "type tasks='[mmlu,ceval]' for 2 values"),
        ("prepare_data", ["inputs=a.jsonl, b.jsonl"], "inputs='[a.jsonl,b.jsonl]'"),
        ("prepare_data", ["inputs=[a.jsonl,", "b.jsonl]"], "inputs='[a.jsonl, b.jsonl]'"),
        ("prepare_data", ["inputs=[a.jsonl"], "without its closing bracket"),
        ("prepare_data", ["inputs=[a,,b]"], "an element is empty; type inputs='[a,b]'"),
        ("plan", ["gpus=8,16"], "type gpus='[8,16]' for 2 values"),
        ("train", ["optim.lr=abc"], "optim.lr=abc: must be a number"),
        ("generate", ["folder=", "prompt=x"], "folder=: empty; type folder=<value>, or leave fold"),
        ("evaluate", ["benchmarks=''"], "benchmarks=: empty; type benchmarks=<value>, or leave"),
        (
            "train",
            ["init_from="],
            "init_from=: empty; type init_from=<value>, or leave init_from o",
        ),
        ("train", ["data.sources.geo_en= "], "data.sources.geo_en=: empty"),
        ("prepare_data", ["tokenizer="], "tokenizer=: empty"),
        ("judge", ["out="], "out=: empty"),
        (
            "train",
            ["curriculum.stages.adaptation.weights=general:1"],
            "type curriculum.stages.adaptation.weights='{general: 1}'",
        ),
        (
            "train",
            ["curriculum.stages.adaptation.weights=general:.9, geo_en : 1e-1"],
            "type curriculum.stages.adaptation.weights='{general: .9, geo_en: 1e-1}'",
        ),
        ("train", ["data.general=geo_en:1"], "type data.general='{geo_en: 1}'"),
        ("evaluate", ["shots_per_task=mmlu:0"], "type shots_per_task='{mmlu: 0}'"),
        ("train", ["optim.lr="], "optim.lr=: must be a number"),
        ("train", ["seed=1e3"], "must be a whole number; write 1000"),
        ("train", ["seed=1;2"], "seed=1;2: must be a whole number"),
        ("train", ["parallel.compile=maybe"], "must be true or false"),
        ("train", ["model.sliding_window=None"], "null for none"),
        ("train", ["optim=adamw"], "set one of them: optim.lr, optim.beta1"),
        ("train", ["curriculum.stages.adaptation=5"], "curriculum.stages.adaptation.tokens"),
        ("judge", ["answers=a.jsonl"], "answers='{name: value}'"),
        ("judge", ["answers={a b.jsonl}"], "is not `name: value`"),
        ("judge", ["answers={基座: a.jsonl}"], "the name '基座'"),
        ("train", ["optim.lr"], "optim.lr: no value; type optim.lr=... (now 0.003)"),
        ("train", ["optim.lr", "=", "3e-4"], "optim.lr=3e-4"),
        ("train", ["optim.lr", "=3e-4"], "optim.lr=3e-4"),
        ("train", ["optim.lr=", "3e-4"], "optim.lr=3e-4"),
        ("train", [STAGE1, "--lr", "2e-5"], "Type optim.lr=2e-5"),
        ("train", ["--learning-rate=2e-5"], "Type optim.lr=2e-5"),
        ("chat", ["--folder", "runs/x"], "type folder=runs/x"),
        ("chat", ["runs/x"], "folder=runs/x"),
        ("chat", ["模型 a/x"], "folder='模型 a/x'"),
        ("generate", ["folder=x", "prompt=What", "is", "loess"], "prompt='What is loess'"),
        ("generate", ["folder=my", "model", "prompt=x"], "folder='my model'"),
        ("train", ["模型=x"], "no such option: 模型"),
        ("train", ["experiment=tspt_stage1"], "type +experiment=tspt_stage1"),
        ("train", ["+experiment=[a"], "no such option: experiment=[a; there are"),
        ("train", ["+model=small"], "type model=small"),
        ("train", ["+optim.lr=1"], "type optim.lr=1"),
        ("train", ["data.sources.mine=a b"], "type +data.sources.mine='a b'"),
        ("evaluate", ["folder=x", "data=b c"], "Type benchmarks='b c'"),
        ("train", ["tasks.data=x"], "Type tasks.benchmarks=x"),
        ("evaluate", [STAGE1], "no such option: experiment"),
        ("plan", ["data.vocab_size=5"], "model.vocab_size=5"),
    ],
)
def test_what_is_unclear_is_answered_with_what_to_type(name, typed, answer):
    assert answer in refused(name, *typed)


@pytest.mark.parametrize(
    "typed",
    ["optim.lrr=1", "arm.foo=1", "experiment.foo=1", "optim.lr.x=1", "lora.foo=1", "foo={a: 1}"],
)
@pytest.mark.parametrize("sign", ["", "+", "++", "~"])
def test_what_does_not_exist_is_refused_with_every_sign(sign, typed):
    typed = typed.partition("=")[0] if sign == "~" else typed
    assert typed.partition("=")[0] in refused("train", "lora=r8", f"{sign}{typed}")


def test_what_exists_or_is_new_in_a_mapping_passes_with_its_sign():
    assert read("train", "++optim.lr=1").optim.lr == 1
    assert "geo_en" not in read("train", "~data.sources.geo_en").data.sources
    assert read("train", "+data.general.moon=1").data.general.moon == 1
    for appended in APPENDED["train"]:
        assert is_group(appended)
    assert read("train", STAGE1, "+arm=tspt").experiment == "tspt"


@pytest.mark.parametrize(
    ("name", "typed", "meant"),
    [
        ("train", "learning_rate=2e-5", "optim.lr=2e-5"),
        ("train", "optim.learning_rate=2e-5", "optim.lr=2e-5"),
        ("train", "training.lr=2e-5", "optim.lr=2e-5"),
        ("train", "lora_r=8", "lora.rank=8"),
        ("train", "cutoff_len=512", "batch.row_length=512"),
        ("prepare_data", "kind=conversations cutoff_len=512", "max_tokens=512"),
        ("train", "save_steps=10", "checkpoint.every=10"),
        ("train", "model_name_or_path=a/b", "init_from=a/b"),
        ("chat", "model_name_or_path=a/b", "folder=a/b"),
        ("train", "num_train_epochs=3", "curriculum.stages.<stage>.tokens"),
        ("train", "epochs=3", "curriculum.stages.<stage>.tokens"),
        ("train", "max_steps=3", "curriculum.stages.<stage>.tokens"),
        ("train", "batch_size=8", "batch.tokens_per_step"),
        ("train", "per_device_train_batch_size=8", "batch.micro_batch_rows"),
        ("train", "gradient_accumulation_steps=8", "batch.tokens_per_step"),
        ("train", "warmup=100", "schedule.warmup_fraction"),
        ("train", "warmup_steps=100", "schedule.warmup_fraction"),
        ("train", "warmup_ratio=0.1", "schedule.warmup_fraction=0.1"),
        ("train", "bf16=true", "parallel.dtype=bfloat16"),
        ("evaluate", "num_fewshot=5", "shots=5"),
        ("generate", "max_tokens=5", "max_new_tokens=5"),
    ],
)
def test_words_of_other_tools_are_answered_with_ours(name, typed, meant):
    assert meant in refused(name, *typed.split())


@pytest.mark.parametrize(
    ("name", "typed", "answer"),
    [
        ("train", "optim.betas=[0.9,0.95]", "betas; say optim.beta1=... optim.beta2=..."),
        ("train", "betas=[0.9,0.95]", "betas; say optim.beta1=... optim.beta2=..."),
        ("evaluate", "seed=3", "seed; did you mean demonstration_seed? Type demonstration_seed=3"),
        ("evaluate", "batch_size=8", "batch_size; --help shows the options"),
        ("evaluate", "max_tokens=8", "max_tokens; --help shows the options"),
        ("evaluate", "tokens=8", "tokens; --help shows the options"),
        ("evaluate", "eval_batch_size=8", "eval_batch_size; the size of a forward pass is a num"),
        ("train", "optim.momentum=0.9", "did you mean optim.beta1? Type optim.beta1=0.9"),
        ("train", "parallel.foo=1", "parallel.foo; --help shows the options"),
        ("train", "checkpoint.every_steps=1", "did you mean checkpoint.every? Type checkpoint.ev"),
        ("train", "row_lenght=64", "did you mean batch.row_length? Type batch.row_length=64"),
        ("train", "optim.seed=1", "did you mean seed? Type seed=1"),
    ],
)
def test_a_key_is_suggested_for_its_meaning_or_none(name, typed, answer):
    assert answer in refused(name, typed)


def test_every_word_leads_to_a_field_that_exists():
    lines = [(name,) for name in NAMES]
    lines += [("train", "lora=r8"), ("prepare_data", "kind=conversations")]
    trees = [read(*line) for line in lines]
    wanted = {name for names in FIELDS.values() for name in names}
    wanted |= {name for name, _ in NOTES.values()}
    assert not {name for name in wanted if not any(field_of(tree, name) for tree in trees)}
    assert not FIELDS.keys() & NOTES.keys()


@pytest.mark.parametrize(
    ("name", "says", "never"),
    [
        ("chat", ["USAGE", "folder=...", "HF folder, finished run or adapter"], ["arm=", "model="]),
        (
            "train",
            [STAGE1.partition("=")[0], "tspt_stage1", "init_from=null", "model=toy"],
            ["  kind="],
        ),
        ("evaluate", ["benchmarks=null", "limit=null"], ["data=", "Switches"]),
    ],
)
def test_help_shows_what_applies(name, says, never):
    shown = help_text(name, "USAGE")
    assert all(text in shown for text in says)
    assert not any(text in shown for text in never)


def test_texts_that_may_be_empty_are_taken():
    assert read("chat", "folder=x", "system=").system == ""
    typed = ("curriculum.stages.specialization.replay.of=", "train")
    assert read(typed[1], typed[0]).curriculum.stages.specialization.replay.of == ""


@pytest.mark.parametrize("name", ["generate", "evaluate", "judge", "export"])
def test_what_is_missing_is_said_behind_the_usage(name, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", [name])
    module = importlib.import_module(f"scripts.{name}")
    with pytest.raises(
        SystemExit,
        match=r"^error: [a-z, ]*out[a-z, ]*: must be given$|^error: folder: must be given$",
    ):
        module.main()
    assert capsys.readouterr().err == f"{module.__doc__.strip()}\n\n"


@pytest.mark.parametrize("flag", ["--help", "-h"])
def test_help_composes_nothing_and_runs_nothing(flag, monkeypatch, capsys):
    def main(_):
        raise AssertionError("it ran")

    monkeypatch.setattr(sys, "argv", ["x", "folder=a", flag])
    command("chat", ChatConfig)(main)()
    printed = capsys.readouterr().out
    assert (__doc__ or "").strip() in printed
    assert "powered by Hydra" not in printed


def test_options_of_hydra_are_told_from_words():
    line = split_flags(["-m", "a=1", "--cfg", "job", "--info", "b=2", "--lr", "-i", "config", "x"])
    assert line.flags == ["-m", "--cfg", "job", "--info", "-i", "config"]
    assert line.words == ["a=1", "b=2", "--lr", "x"]
    assert line.sweeps
    assert shlex.join(line.words) == "a=1 b=2 --lr x"
