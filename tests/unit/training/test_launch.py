"""How a process finds out that it is alone, and how a command ends that is stopped or refused."""

import errno
import json
import os
import re
import shutil
import signal

import pytest
from omegaconf import OmegaConf

from conf.command import plain_errors
from conf.hub import download_hint
from data.records.readers import find_inputs
from data.sample.build import build_sample
from tests.helpers.sizes import SAMPLE_SCALE
from training.distributed import Launch, read_launch, start_world
from training.run.open import describe_stop

TWO = {"RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "h", "MASTER_PORT": "1"}


@pytest.mark.parametrize(
    ("environment", "launch"),
    [
        ({}, Launch()),
        ({"WORLD_SIZE": "8"}, Launch(ignored=("WORLD_SIZE=8",))),
        ({"RANK": "", "WORLD_SIZE": "8"}, Launch(ignored=("WORLD_SIZE=8",))),
        ({"WORLD_SIZE": "1", "LOCAL_WORLD_SIZE": "4"}, Launch(ignored=("LOCAL_WORLD_SIZE=4",))),
        ({"LOCAL_RANK": "", "WORLD_SIZE": " ", "RANK": ""}, Launch()),
        ({"LOCAL_RANK": "1"}, Launch(local_rank=1)),
        ({"RANK": "0", "WORLD_SIZE": "1"}, Launch()),
        ({**TWO, "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2"}, Launch(1, 2, 1, 2)),
        ({**TWO, "LOCAL_RANK": ""}, Launch(1, 2)),
    ],
)
def test_what_a_launcher_says_is_read(environment, launch):
    assert read_launch(environment) == launch


@pytest.mark.parametrize(
    ("environment", "named"),
    [
        ({"LOCAL_RANK": "x"}, "LOCAL_RANK='x'"),
        ({"WORLD_SIZE": "two"}, "WORLD_SIZE='two'"),
        ({"LOCAL_WORLD_SIZE": "1.5"}, "LOCAL_WORLD_SIZE='1.5'"),
        ({"RANK": "-1", "WORLD_SIZE": "2"}, "RANK='-1'"),
        ({"RANK": "0"}, "RANK=0 with no WORLD_SIZE"),
        ({"RANK": "0", "WORLD_SIZE": ""}, "RANK=0 with no WORLD_SIZE"),
        ({"RANK": "2", "WORLD_SIZE": "2"}, "RANK=2 with WORLD_SIZE=2"),
        ({**TWO, "MASTER_ADDR": ""}, "without MASTER_ADDR"),
        ({**TWO, "MASTER_PORT": ""}, "without MASTER_PORT"),
        ({**TWO, "MASTER_PORT": "http"}, "MASTER_PORT='http'"),
    ],
)
def test_a_wrong_variable_is_named(environment, named):
    with pytest.raises(ValueError, match=r".") as error:
        read_launch(environment)
    assert named in str(error.value)


@pytest.mark.parametrize("given", [{"WORLD_SIZE": "2"}, {"RANK": "0", "WORLD_SIZE": "1"}])
def test_one_process_waits_for_nobody(given, monkeypatch, capsys):
    for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    with start_world("cpu") as world:
        assert (world.rank, world.dp_size) == (0, 1)
        assert world.sum([2.0]) == [2.0]
    said = capsys.readouterr().err
    assert ("WORLD_SIZE=2 without RANK: ignored" in said) == ("RANK" not in given)


def ended(error, capsys):
    """(exit code, stderr) of a command that ends with an error."""
    with pytest.raises(SystemExit) as stopped, plain_errors("stopped; go on"):
        raise error
    code = stopped.value.code
    return (1, code) if isinstance(code, str) else (code, capsys.readouterr().err)


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (ValueError("a=1: too small"), 1, "error: a=1: too small"),
        (KeyboardInterrupt(), 130, "stopped; go on\n"),
        (KeyboardInterrupt("stopped at step 3"), 130, "stopped at step 3\n"),
        (FileNotFoundError(2, "No such file", "x/y"), 1, "error: x/y: No such file"),
        (PermissionError(13, "Permission denied", "x"), 1, "error: x: Permission denied"),
        (IsADirectoryError(21, "Is a directory", "x"), 1, "error: x: Is a directory"),
        (OSError(errno.EROFS, "Read-only file system", "x"), 1, "error: x: Read-only file system"),
        (OSError(errno.ENOSPC, "No space left on device"), 1, "error: No space left on device"),
        (OSError(18, "Cross-device link", "a", None, "b"), 1, "error: a -> b: Cross-device link"),
    ],
)
def test_what_ends_a_command_is_said_in_one_line(error, code, said, capsys):
    before = signal.getsignal(signal.SIGINT)
    try:
        assert ended(error, capsys) == (code, said)
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_reader_that_goes_away_is_no_news(capfd, monkeypatch):
    monkeypatch.setattr(os, "dup2", lambda *_: None)
    assert ended(BrokenPipeError(32, "Broken pipe"), capfd) == (1, "")


def test_a_fault_of_ours_keeps_its_traceback():
    with pytest.raises(TypeError), plain_errors():
        raise TypeError("ours")


def test_a_stopped_run_says_what_continues_it(tmp_path):
    begin = f"the same command continues {tmp_path} at step 0"
    assert describe_stop(tmp_path) == f"stopped at step 0; {begin}"
    rows = [{"step": 0, "eval": {}}, {"step": 7, "loss_nats": 1.0}]
    text = "".join(json.dumps(row) + "\n" for row in rows) + '{"step": 8, "los'
    (tmp_path / "metrics.jsonl").write_text(text)
    assert describe_stop(tmp_path) == f"stopped at step 7; {begin}"
    (tmp_path / "checkpoints/step-00000004").mkdir(parents=True)
    (tmp_path / "checkpoints/step-00000006.tmp").mkdir()
    assert "after step 4, its newest checkpoint" in describe_stop(tmp_path)


HUBS = [
    ("mistralai/Mistral-7B-v0.1", "hf download mistralai/Mistral-7B-v0.1 --local-dir Mistral-7B"),
    ("Qwen/Qwen2.5", "hf download Qwen/Qwen2.5 --local-dir Qwen2.5"),
    ("hf://org/model", "hf download org/model --local-dir model"),
    ("hf://datasets/org/set", "hf download org/set --repo-type dataset --local-dir set"),
    ("https://huggingface.co/org/model/tree/main", "hf download org/model --local-dir model"),
]


@pytest.mark.parametrize(("value", "line"), HUBS)
def test_a_name_of_a_hub_is_answered_with_the_download(value, line, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for tree in ({"folder": value}, {"data": {"tokenizer": value}}, {"adapters": ["a", value]}):
        composed = OmegaConf.create(tree)
        assert line in download_hint(f"{value}: no config.json", composed)
        assert download_hint("another field: too small", composed) == ""


@pytest.mark.parametrize(
    "value", ["corpus/a.jsonl", "runs/x", "a/b/c", "../x/y", "here", "~/m", "/a/b"]
)
def test_what_may_be_a_path_is_no_name_of_a_hub(value, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    assert download_hint(f"{value}: not there", OmegaConf.create({"folder": value})) == ""


def test_a_folder_of_texts_is_answered_with_its_files(tmp_path):
    below = tmp_path / "my data"
    (below / "deep").mkdir(parents=True)
    (below / "deep/a.jsonl.gz").touch()
    for folder, typed in ((below / "deep", "/deep/*.jsonl.gz"), (below, "my data/**/*.jsonl.gz")):
        with pytest.raises(ValueError, match=re.escape(f"{typed}]'")) as error:
            find_inputs([str(folder)], "text")
        assert "is a folder" in str(error.value)
    (tmp_path / "empty").mkdir()
    with pytest.raises(
        ValueError, match=r"is a folder; this folder contains no file whose name ends in"
    ):
        find_inputs([str(tmp_path / "empty")], "text")


def test_a_complete_sample_is_opened_without_writing(sample, tmp_path):
    root = shutil.copytree(sample, tmp_path / "sample")
    (root / ".lock").unlink()
    before = {path: path.stat().st_mtime_ns for path in root.rglob("*")}
    build_sample(root, scale=SAMPLE_SCALE)
    assert {path: path.stat().st_mtime_ns for path in root.rglob("*")} == before
    with pytest.raises(ValueError, match=r"sample\.json describes another sample"):
        build_sample(root, scale=2 * SAMPLE_SCALE)


def test_a_sample_that_cannot_be_written_names_the_field(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match=r"data\.root=.*cannot be written there .*data.root="):
        build_sample(tmp_path / "file/sample", scale=1.0)
