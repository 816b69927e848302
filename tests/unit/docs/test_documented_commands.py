"""Every command line that the documentation shows is one that the program takes."""

import importlib
import re
import shlex
import sys
from typing import NamedTuple

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from conf.suggest import CONF, check_overrides, split_flags
from tests.helpers.commands import module_of
from tests.helpers.runs import ROOT

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.M | re.S)
SPAN = re.compile(r"(?<!`)`([^`]+)`(?!`)")
START = re.compile(
    r"(?:python3?|torchrun)\b.*?(?:train\.py|-m\s+(?:scripts|experiments|tests)(?:\.\w+)+)(?=\s|$)"
)
SEPARATORS = ("&&", "||", ";", "|", "&", "done", ">", ">>", "2>&1")
LOOP_VALUES = {"seed": "0"}
"""What a variable of a loop is taken to be."""


class Shown(NamedTuple):
    """A command line of a page."""

    page: str
    program: str
    arguments: tuple[str, ...]

    def __str__(self):
        return f"{self.page}: {self.program} {shlex.join(self.arguments)}"


def lines_of(text):
    """Lines of a page that may hold a command: of its shell blocks, and its spans of code."""
    for language, block in FENCE.findall(text):
        if language in ("", "sh", "bash", "shell", "console"):
            values = dict(LOOP_VALUES)
            for line in joined(block):
                for name, value in re.findall(r'(?:^|\s)(\w+)="([^"]*)"', line):
                    values.setdefault(name, expanded(value, values))
                yield expanded(line, values)
    for span in SPAN.findall(FENCE.sub("", text)):
        yield " ".join(span.split())


def expanded(text, values):
    """A text with the shell's variables; those that nobody has set are placeholders."""
    return re.sub(r"\$\{?(\w+)\}?", lambda found: values.get(found[1], "<x>"), text)


def joined(block):
    """Lines of a shell block; what a backslash or an open quotation mark continues is one line."""
    whole = ""
    for line in block.replace("\\\n", " ").splitlines():
        whole = f"{whole} {line}" if whole else line
        if whole.count('"') % 2 == 0 and whole.count("'") % 2 == 0:
            yield whole
            whole = ""
    assert not whole.strip() or "'" in whole, whole


def commands_in(page):
    for line in lines_of(page.read_text(encoding="utf-8")):
        line = re.sub(r"<[^<>]*>", "x", line)
        for found in START.finditer(line):
            program = found[0].split()[-1]
            lexer = shlex.shlex(line[found.end() :], posix=True, punctuation_chars=";&|")
            lexer.whitespace_split = True
            arguments = []
            for word in lexer:
                if word.strip(";&|") == "" or word in SEPARATORS:
                    break
                if word != "...":
                    arguments.append(word)
            yield Shown(page.name, program, tuple(arguments))


COMMANDS = sorted({shown for page in PAGES for shown in commands_in(page)})


def name_of(program):
    names = {"train.py": "train", "experiments.benchmarks": "benchmark"}
    return names.get(program) or program.rpartition(".")[2]


def test_commands_are_found():
    """In blocks, over several lines, in loops, tables and running text."""
    programs = {shown.program for shown in COMMANDS}
    assert len(COMMANDS) > 60
    assert {"train.py", "scripts.evaluate", "scripts.prepare_data", "scripts.chat"} <= programs
    shown = [str(command) for command in COMMANDS]
    assert any("curriculum=tspt_published" in line and "init_from" in line for line in shown)
    assert any(line.endswith("+experiment=tspt_stage1 seed=0") for line in shown)
    assert any("benchmarks=benchmarks" in line for line in shown)


@pytest.mark.parametrize("shown", COMMANDS, ids=str)
def test_a_command_of_the_documentation_is_taken(shown):
    is_suite = shown.program == "experiments.benchmarks"
    if shown.program.split(".")[0] in ("experiments", "tests") and not is_suite:
        assert (ROOT / f"{shown.program.replace('.', '/')}.py").is_file()
        return
    name = name_of(shown.program)
    importlib.import_module(module_of(name))
    read = split_flags(check_overrides(name, shown.arguments))
    if read.sweeps:
        return
    with initialize_config_dir(str(CONF), version_base="1.3"):
        composed = compose(name, read.words)
    is_whole = not OmegaConf.missing_keys(composed) and "..." not in str(shown)
    if is_whole:
        OmegaConf.to_object(composed)


def takes_seconds(shown):
    is_plan = shown.program == "scripts.plan" and "simulate=true" not in shown.arguments
    return is_plan or bool({"--cfg", "--help"} & set(shown.arguments))


IN_SECONDS = [shown for shown in COMMANDS if takes_seconds(shown)]


@pytest.mark.parametrize("shown", IN_SECONDS, ids=str)
def test_what_takes_seconds_is_run(shown, monkeypatch, capsys):
    module = importlib.import_module(module_of(name_of(shown.program)))
    assert len(IN_SECONDS) >= 4
    monkeypatch.setattr(sys, "argv", [shown.program, *shown.arguments])
    module.main()
    assert len(capsys.readouterr().out.splitlines()) > 5
