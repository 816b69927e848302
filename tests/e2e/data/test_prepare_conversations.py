"""Preparation of conversations, killed at any line, and as a command."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from tests.helpers.runs import ROOT
from tests.unit.data.prepare.test_prepare_conversations import (
    NO_CONVERSATION,
    make,  # noqa: F401 fixture
    many,
    question_and_answer,
    run,
)

HARNESS = """
import json, os, shutil, sys
from pathlib import Path
import data.prepare.writer, storage.atomic, storage.lock, data.prepare.conversations as module

os.fsync = lambda descriptor: None  # a killed process loses no page
fields = json.loads(sys.argv[1])
reference = {path.name: path.read_bytes() for path in Path(fields["out"]).iterdir()}
modules = (data.prepare.writer, storage.atomic, storage.lock, module)
traced = {each.__file__ for each in modules}

def prepare(out, lines):
    "In a process that is killed before so many lines; returns whether it lived, and its lines."
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        count = 0
        def trace(frame, event, argument):
            nonlocal count
            if frame.f_code.co_filename not in traced:
                return None
            if event == "line":
                count += 1
                if count == lines:
                    os._exit(9)
            return trace
        config = module.PrepareConversationsConfig(**fields | {"out": str(out)})
        sys.settrace(trace)
        module.prepare_conversations(config, progress=False)
        os.write(writer, str(count).encode())
        os._exit(0)
    os.close(writer)
    with open(reader) as file:
        count = file.read()
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert status in (0, 9), status
    return status == 0, int(count or 0)

def check(out):
    found = {path.name: path.read_bytes() for path in out.iterdir()}
    assert found == reference, (out, found.keys(), reference.keys())
    shutil.rmtree(out)

folder = Path(fields["out"]).parent / "killed"
_, total = prepare(folder / "never", -1)
check(folder / "never")
for lines in [*range(1, total, total // 25), *range(total - 40, total, 3)]:
    out = folder / str(lines)
    assert not prepare(out, lines)[0]
    if not out.exists():
        assert prepare(out, -1)[0]
    check(out)
    assert not out.with_name(out.name + ".tmp").exists()
"""


def test_killed_at_any_line_there_is_a_whole_folder_or_none(make):
    config = make([*many(12), {"x": 1}], held_out_fraction=0.2)
    run(config)
    ended = subprocess.run(
        [sys.executable, "-c", HARNESS, json.dumps(vars(config))],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr


def command(*overrides):
    return subprocess.run(
        [sys.executable, "-W", "error", "-m", "scripts.prepare_data", *overrides],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_command_reports(make):
    long = question_and_answer("q", "so " * 300)
    config = make([question_and_answer("Say x.", "x y z", lang="en"), {"x": 1}, long, *many(9)])
    given = [
        "kind=conversations",
        "name=sft",
        f"inputs=[{config.inputs[0]}]",
        f"tokenizer={config.tokenizer}",
        f"out={config.out}",
    ]
    ended = command(*given, "max_tokens=120", "held_out_fraction=1e-9", "show=2")
    assert ended.returncode == 0, ended.stderr
    manifest = json.loads((Path(config.out) / "manifest.json").read_text())
    for shown in (
        f"{manifest['tokens']:,}, BOS and EOS included",
        f"{manifest['supervised_tokens']:,} tokens",
        "[BOS][INST] Say x. [/INST] «x y z[EOS]»",
        f"{NO_CONVERSATION} 1 (a.json:1)",
        "passed over: lang 1",
        "longer than max_tokens                            1 (a.json:2)",
        "warning: no conversation was held out",
        "conversation 1,",
    ):
        assert shown in ended.stdout
    assert "conversation 2," not in ended.stdout


def test_the_command_warns_of_a_file_of_which_most_is_rejected(make):
    bad = [question_and_answer("q", "", images=["x"]), *({"x": n} for n in range(3))]
    config = make([*many(2), *bad], "a b.jsonl")
    other = make(many(5), "good.jsonl")
    config = replace(config, inputs=[*config.inputs, *other.inputs])
    given = [
        *("kind=conversations", "name=sft", "max_tokens=120", "held_out_fraction=0", "show=1"),
        f"inputs={json.dumps(config.inputs)}",
        f"tokenizer={config.tokenizer}",
        f"out={config.out}",
    ]
    ended = command(*given)
    assert ended.returncode == 0, ended.stderr
    last = ended.stdout.splitlines()[-1]
    assert last.startswith("warning: 4 of 6 records of ")
    assert last.endswith(
        f"a b.jsonl were rejected: 3 x {NO_CONVERSATION}, 1 x 'images' holds media; "
        "only texts are supported, or ignore='[images]'"
    )
    ended = command(*given, f"out={config.out}2", "max_rejected=0.3")
    assert ended.returncode == 1
    assert ended.stderr.splitlines()[-1].startswith(
        "error: max_rejected: 6 of 11 records were rejected"
    )
    assert not list(Path(config.out).parent.glob("out2*"))


def test_the_command_takes_columns_of_the_users(make):
    config = make([{"问题": "Say x.", "Reply text": "x y z", "tools": [1]}])
    given = [
        *("kind=conversations", "name=sft", "max_tokens=120", "held_out_fraction=0"),
        f"inputs=[{config.inputs[0]}]",
        f"tokenizer={config.tokenizer}",
        f"out={config.out}",
        "fields={prompt: '问题', answer: 'Reply text'}",
        "ignore=[tools]",
    ]
    ended = command(*given)
    assert ended.returncode == 0, ended.stderr
    assert "[BOS][INST] Say x. [/INST] «x y z[EOS]»" in ended.stdout
    assert "passed over: tools 1" in ended.stdout
    ended = command(*given, f"out={config.out}2", "fields={frage: '问题'}")
    assert ended.returncode == 1
    assert ended.stderr.startswith("error: fields: 'frage' is not a part of a record; use messages")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["kind=conversations", "name=a"], "inputs, max_tokens, out, tokenizer: must be given"),
        (["kind=conversation"], "no such option: kind=conversation; did you mean conversations"),
        (["kind=conversations", "max_token=3"], "no such option: max_token; did you mean max_tok"),
        (["kind=conversations", "append=true"], "no such option: append"),
        (["kind=conversations", "max_tokens=many"], "max_tokens=many: must be a whole number"),
    ],
)
def test_the_command_ends_with_one_message(arguments, message):
    ended = command(*arguments)
    assert ended.returncode == 1
    last = ended.stderr.splitlines()[-1]
    assert last.startswith("error: ")
    assert message in last
    assert "Traceback" not in ended.stderr
