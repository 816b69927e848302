"""study.sh does the whole study, in an order in which every input exists when it is needed."""

import json
import os
import subprocess
import sys
from itertools import product
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

import scripts.report  # noqa: F401 registers its schema
from conf.suggest import CONF
from evaluation.study.report import ReportConfig
from experiments.studies.tspt.tests import ARM_FOLDER
from tests.helpers.runs import ROOT, configure

ARMS = {path.stem for path in ARM_FOLDER.glob("*.yaml")}
FAKE = """#!{python} -SE
import json, os, sys
arguments = sys.argv[1:]
with open(os.environ["CALLS"], "a") as calls:
    calls.write(json.dumps(arguments) + "\\n")
out = dict(each.split("=", 1) for each in arguments if "=" in each).get("out")
left = {{"scripts.expand_tokenizer": "tokenizer.model", "scripts.prepare_data": "manifest.json"}}
if arguments[1] in left:
    os.makedirs(out)
    open(os.path.join(out, left[arguments[1]]), "w").close()
"""


@pytest.fixture(scope="module")
def calls(tmp_path_factory):
    """Arguments of python in two executions; a fake python only creates the output files."""
    root = tmp_path_factory.mktemp("script")
    python = root / "bin" / "python"
    python.parent.mkdir()
    python.write_text(FAKE.format(python=sys.executable))
    python.chmod(0o755)
    own = {"PATH": f"{python.parent}:{os.environ['PATH']}", "SEEDS": "0,1,2", "FEW": "1,0"}
    own |= {"RUNS": str(root / "runs"), "SAMPLE": str(root / "sample"), "SCALE": "0.5"}
    found = []
    for execution in ("first", "second"):
        record = root / execution
        subprocess.run(
            ["bash", "experiments/studies/tspt/study.sh", "curriculum.scale=0.125"],
            cwd=ROOT,
            env=os.environ | own | {"CALLS": str(record)},
            check=True,
        )
        found.append([json.loads(line) for line in record.read_text().splitlines()])
    return found


def values(call):
    return dict(each.split("=", 1) for each in call if "=" in each)


def jobs(call):
    """Arm and seed of each run of a sweep, in its order: the last override changes fastest."""
    swept = {key: values(call)[key].split(",") for key in values(call) if key in ("seed", "arm")}
    for chosen in product(*swept.values()):
        found = dict(zip(swept, chosen, strict=True))
        yield found["arm"], int(found["seed"])


def configured(call, arm):
    """An arm of a sweep, with a seed that stands for all."""
    rest = [each for each in call[2:] if each.split("=")[0] not in ("seed", "arm")]
    return configure(*rest, f"arm={arm}", "seed=77")


def test_everything_is_there_before_it_is_needed(calls):
    there, arms, prepared, checked = set(), {}, set(), set()
    for call in calls[0]:
        given = values(call)
        match call[:2]:
            case ["train.py", "-m"]:
                configs = {arm: configured(call, arm) for arm in dict(jobs(call))}
                for arm, config in configs.items():
                    grown = arm.startswith("grown")
                    root = Path(config.data.root)
                    assert root.name == ("sample_grown" if grown else "sample")
                    assert config.data.tokenizer == f"{root}/tokenizer"
                    assert config.data.sample_scale == (None if grown else 0.5)
                    if grown:
                        read = {str(root / at) for at in config.data.sources.values()}
                        assert read == prepared == checked
                        assert config.data.vocab_size == 4096
                    assert config.curriculum.scale == 0.125
                for arm, seed in jobs(call):
                    start, folder = configs[arm].init_from, str(configs[arm].folder)
                    assert start is None or start.replace("-s77", f"-s{seed}") in there
                    there.add(folder.replace("-s77", f"-s{seed}"))
                    arms.setdefault(arm, set()).add(seed)
            case ["-m", "scripts.expand_tokenizer"]:
                assert given["base"] in there
                assert given["target_vocab_size"] == "4096"
                there.add(given["out"])
            case ["-m", "scripts.prepare_data"]:
                assert (Path(given["tokenizer"]) / "tokenizer.model").exists()
                name = given["name"]
                assert f"/corpus/{name}.jsonl" in given["inputs"]
                assert f"/held_out/{name}.jsonl" not in given["decontaminate_against"]
                assert given["decontaminate_against"].count("/held_out/") == 4
                prepared.add(given["out"])
            case ["-m", "scripts.check_sources"]:
                checked |= set(given["sources"].strip("[]").split(","))
    assert set(arms) == ARMS
    assert {arm for arm, seeds in arms.items() if seeds == {0, 1, 2}} >= {"base", "tspt"}
    names = [Path(call[0]).name if call[0] != "-m" else call[1] for call in calls[0]]
    assert names[-3:] == ["scripts.measure", "scripts.report", "experiments.studies.tspt.contrasts"]
    report = composed_report(calls[0][-2])
    few = {arm for arm, seeds in arms.items() if seeds == {0, 1}}
    assert report.arm_seeds == {arm: [1, 0] for arm in few}
    assert report.grown_from == {"grown-s0": "base-s0", "grown-s1": "base-s1"}


def composed_report(call):
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = OmegaConf.to_object(compose("report", call[2:]))
    assert isinstance(config, ReportConfig)
    assert {arm for curve in config.curves for arm in curve} <= ARMS
    return config


def test_a_second_time_nothing_is_grown_or_prepared_again(calls):
    first, second = calls
    made = ("scripts.expand_tokenizer", "scripts.prepare_data")
    assert sum(call[1] in made for call in first) == 2 + 5
    assert second == [call for call in first if call[1] not in made]
