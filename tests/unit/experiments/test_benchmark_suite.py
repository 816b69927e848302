"""The benchmarks measure what they say, in turns, of equal sides; what cannot be had is said so.

Sizes are tiny: nothing here is about speed. But for one test the sides are measured in this
process, which a fake stands for where only the bookkeeping is looked at.
"""

import re
from dataclasses import replace
from importlib.util import find_spec

import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from conf.suggest import CONF
from experiments.benchmarks.__main__ import check_suite_overrides
from experiments.benchmarks.attention import documents_of
from experiments.benchmarks.harness import common
from experiments.benchmarks.harness.launcher import launch
from experiments.benchmarks.harness.runner import run_suite
from experiments.benchmarks.harness.suites import (
    OPERATIONS,
    SUITES,
    TINY,
    Part,
    chosen_parts,
    gpu_parts,
    toy_parts,
)
from experiments.benchmarks.harness.table import markdown
from experiments.benchmarks.harness.workloads import WORKS, Attention, Job, Rows, Training
from experiments.benchmarks.measure import measure

ENVIRONMENT = {
    "git_commit": "0123456789abcdef",
    "git_dirty": False,
    "versions": {"torch": "2"},
    "processor": "some processor",
    "cuda_device": None,
    "python": "3",
    "threads": 1,
}
PART = Part("some", Rows(documents=1, length=1, rows=1), ("ours", "peer"))


def here(job):
    """`launch` without a process of its own."""
    try:
        return measure(job)
    except ValueError as error:
        return {"not_measured": str(error)}


def scripted(*figures, **more):
    """A `launch` that answers with these figures in turn."""
    waiting = iter(figures)
    return lambda job: {"figures": next(waiting), "ceilings": {}, "machine": {}} | more


def run(parts, tmp_path, launch, *, rounds=1, environment=ENVIRONMENT):
    options = {"rounds": rounds, "environment": environment, "command": "some command"}
    return run_suite(
        parts, out=tmp_path / "out.json", launch=launch, say=lambda line: None, **options
    )


# PEFT asks transformers something by an old name.
@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")
@pytest.mark.parametrize(
    ("lora_rank", "dtype", "masters"),
    [
        (None, "float32", False),
        (None, "bfloat16", False),
        (None, "bfloat16", True),
        (2, "bfloat16", False),
        (2, "bfloat16", True),
    ],
)
def test_both_sides_keep_weights_in_the_same_precision(lora_rank, dtype, masters):
    shape = {"shape": TINY, "rows": 1, "length": 16, "steps": 1}
    work = Training(**shape, dtype=dtype, masters=masters, lora_rank=lora_rank)
    ours, theirs = (measure(Job(work, side, 1)) for side in ("ours", "peer"))
    trained = "float32" if masters else dtype
    expected = {"trained": [trained], "moments": [trained], "frozen": [dtype] if lora_rank else []}
    assert ours["precision"] == theirs["precision"] == expected
    losses = [side["figures"]["first_loss_nats"] for side in (ours, theirs)]
    assert losses[0] == pytest.approx(losses[1], rel=2e-3)


def test_unequal_precision_is_no_measurement(tmp_path):
    def launch(job):
        kept = {"ours": "bfloat16", "peer": "float32"}[job.side]
        return scripted({"rate_per_second": 1.0}, precision={"trained": [kept]})(job)

    found = run([PART], tmp_path, launch)["parts"]["some"]
    assert "precision" in found["sides"]["peer"]["not_measured"]
    assert found["figures"].keys() == {"ours"}
    assert not found["ratios"]


def test_ratio_and_share_are_those_of_the_medians(tmp_path):
    rates = (1.0, 2.0, 9.0, 1.0, 4.0, 5.0)  # ours 1, 9, 4; theirs 2, 1, 5
    launch = scripted(
        *({"rate_per_second": rate, "peak_gib": 1 / rate} for rate in rates),
        ceilings={"rate_per_second": 16.0},
        machine={"copy_gb_per_second": 3.0},
    )
    goals = {"rate_per_second": 2.5, "peak_gib": 0.6}
    part = Part("some", PART.work, PART.sides, goals)
    content = run([part], tmp_path, launch, rounds=3)
    found = content["parts"]["some"]
    rate = found["figures"]["ours"]["rate_per_second"]
    assert rate == {"median": 4.0, "low": 1.0, "high": 9.0, "share": 0.25}
    assert found["ratios"]["peer"]["rate_per_second"] == 2.0
    assert found["ratios"]["peer"]["peak_gib"] == pytest.approx(0.5)
    table = markdown(content, ["some"])
    assert "4 (1 to 9), 25% | 2 (1 to 5), 12% | 2.00 (goal 2.5, **missed**)" in table
    assert "0.50 (goal 0.6)" in table  # of memory, less is better


@pytest.mark.parametrize("package", ["peft", "transformers"])
def test_a_missing_package_is_said_and_nothing_invented(tmp_path, monkeypatch, package):
    monkeypatch.setattr(common, "find_spec", lambda name: None if name == package else name)
    (part,) = chosen_parts("toy", ["lora_32"])
    sides = ("ours", "peer")  # not compiled: pytest's shape checks cannot be traced
    part = Part(part.name, part.work, sides, {"tokens_per_second": 1.4})
    content = run([part], tmp_path, here)
    found = content["parts"]["lora_32"]
    assert found["figures"].keys() == {"ours"}
    assert not found["ratios"]
    table = markdown(content, ["lora_32"])
    assert f"- lora_32: peer: {package} is not installed (pip install -e '.[dev]')" in table
    assert re.search(r"tokens_per_second \| [^|]+ \| not measured \| - \(goal 1.4\) \|", table), (
        table
    )


def test_without_a_gpu_its_suite_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    parts = gpu_parts()
    content = run(parts, tmp_path, here)
    for part in parts:
        sides = content["parts"][part.name]["sides"]
        assert sides.keys() == {*part.sides}
        assert all("needs a CUDA device" in side["not_measured"] for side in sides.values())
    table = markdown(content, [part.name for part in parts])
    assert all(f"| {part.name} | all | not measured |" in table for part in parts)


def test_what_is_known_is_not_measured_again(tmp_path):
    parts = [PART, Part("other", PART.work, ("ours",))]
    calls = []

    def launch(job):
        if calls == ["ours", "peer"]:
            raise KeyboardInterrupt
        calls.append(job.side)
        return scripted({"rate_per_second": float(len(calls))})(job)

    with pytest.raises(KeyboardInterrupt):
        run(parts, tmp_path, launch)
    calls.append("interrupted")
    content = run(parts, tmp_path, launch)
    assert calls == ["ours", "peer", "interrupted", "ours"]  # only the part that was not finished
    assert content == run(parts, tmp_path, launch)
    assert content["parts"]["some"]["figures"]["ours"]["rate_per_second"]["median"] == 1.0
    dirty = ENVIRONMENT | {"git_dirty": True}
    run(parts, tmp_path, launch, environment=dirty)
    assert len(calls) == 4
    run(parts, tmp_path, launch, rounds=2)
    assert len(calls) == 4 + 2 * 3
    run(parts, tmp_path, launch, rounds=2, environment=ENVIRONMENT | {"git_commit": "f"})
    assert len(calls) == 4 + 2 * 3 + 2 * 3


@pytest.mark.parametrize("content", ["", "[]", '{"parts": {}}', '{"environment": 1, "parts": {}}'])
def test_a_file_of_something_else_is_left_alone(tmp_path, content):
    (tmp_path / "out.json").write_text(content)
    with pytest.raises(ValueError, match="not a file of this command"):
        run([PART], tmp_path, scripted())
    assert (tmp_path / "out.json").read_text() == content


def configured(*overrides):
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return OmegaConf.to_object(compose("benchmark", list(overrides)))


@pytest.mark.parametrize(
    ("overrides", "complaint"),
    [
        (["suite=cup"], "suite='cup': one of cpu, gpu, toy"),
        (["suite=cpu", "only=[rows, lora]"], "no part lora in cpu; it has train_1024_float32"),
        (["suite=toy", "rounds=0"], "rounds=0"),
        (["steps=0"], "steps=0"),
        (["rounds=2"], "belong to a suite"),
        (["only=[rows]"], "belong to a suite"),
        (["out=x.json"], "belong to a suite"),
    ],
)
def test_bad_input_is_refused_before_any_work(overrides, complaint):
    with pytest.raises(ValueError, match=re.escape(complaint)):
        configured(*overrides)


def test_a_suite_takes_no_shapes():
    check_suite_overrides(["suite=cpu", "only=[rows]", "rounds=2", "out=x"])
    for override in ("batch.row_length=64", "model=toy", "+model.head_dim=8", "device=cpu"):
        with pytest.raises(ValueError, match="leave out suite="):
            check_suite_overrides(["suite=cpu", override])


def test_every_measurement_survives_being_told_to_another_process():
    jobs = [
        Job(part.work, side, 2)
        for suite in SUITES
        for part in chosen_parts(suite, [])
        for side in part.sides
    ]
    assert {type(job.work) for job in jobs} == {*WORKS.values()}
    assert [Job.from_json(job.to_json()) for job in jobs] == jobs
    for suite in SUITES:
        names = [part.name for part in chosen_parts(suite, [])]
        assert len(names) == len(set(names))


@pytest.mark.parametrize("text", ["", "{}", "[1]", '{"work": {"kind": "Sleep"}, "side": "ours"}'])
def test_a_process_refuses_what_is_no_measurement(text):
    with pytest.raises(ValueError, match="describes no measurement"):
        Job.from_json(text)


def test_what_the_gpu_suite_runs_also_runs_small_on_a_cpu():
    kinds = {type(part.work) for part in gpu_parts()}
    small = [part for part in toy_parts() if type(part.work) in kinds]
    assert {type(part.work) for part in small} == kinds
    checked = 0
    for part in small:
        sides = {"Attention": ("banded", "sdpa"), "Kernel": ("eager",), "Loss": ("ours", "plain")}
        for side in sides.get(type(part.work).__name__, ()):
            found = measure(Job(part.work, side, 1))
            assert found["ceilings"].keys() <= found["figures"].keys()
            for name, value in found["figures"].items():
                if name.endswith("error"):
                    assert value < 1e-5
                    checked += 1
    assert checked == 2 * 2 * 2 + len(OPERATIONS)


def test_saving_leaves_nothing_behind(tmp_path):
    (part,) = chosen_parts("toy", ["saving"])
    found = measure(Job(replace(part.work, place=str(tmp_path)), "ours", 1))
    assert found["figures"].keys() == found["ceilings"].keys()
    assert min(*found["figures"].values(), *found["ceilings"].values()) > 0
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("length", [8, 48, 4096])
def test_packed_rows_hold_documents_of_many_lengths(length):
    sizes = {"window": 8, "heads": 2, "key_heads": 1, "head_size": 8, "dtype": "float32"}
    whole, packed = (
        documents_of(Attention(length=length, packed=packed, **sizes)) for packed in (False, True)
    )
    assert whole.max_seqlen == length
    assert packed.max_seqlen <= length * 128 / 255 + 1
    assert int(packed.cu_seqlens[-1]) == length


# tests/e2e/kernels/test_kernels.py has the kernels; this is the way they are measured.
@pytest.mark.slow
@pytest.mark.skipif(find_spec("triton") is None, reason="needs triton: pip install 'triton>=3.6'")
def test_kernels_are_checked_by_the_interpreter_where_there_is_no_gpu():
    (part,) = chosen_parts("toy", ["kernel_swiglu"])
    assert launch(Job(part.work, "ours", 1))["figures"]["error"] < 1e-5
