"""The rules of the house that no type checker knows."""

import ast
import importlib
from pathlib import Path

import pytest

from conf.command import COMMANDS
from conf.schema import Config
from tests.helpers.commands import NAMES, register_all

ROOT = Path(__file__).resolve().parents[2]
LIBRARY = [
    path
    for package in (
        "model",
        "kernels",
        "tokenizer",
        "data",
        "training",
        "evaluation",
        "storage",
        "pretrained",
        "inference",
        "tools",
        "experiments",
        "conf",
        "scripts",
    )
    for path in sorted((ROOT / package).rglob("*.py"))
]

register_all()
CONFIGS = sorted({one for kinds in COMMANDS.values() for one in kinds}, key=lambda x: x.__name__)


def imported_modules(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("package", ["model", "kernels", "inference/generation/cache"])
def test_the_network_knows_nothing_of_ranks(package):
    """import-linter refuses subpackages of external packages, so this contract is a test."""
    for path in (ROOT / package).rglob("*.py"):
        assert not [name for name in imported_modules(path) if name.startswith("torch.distributed")]


def test_kernels_package_stays_a_docstring():
    """transformers imports a top-level `kernels` to look for a version."""
    assert len(ast.parse((ROOT / "kernels" / "__init__.py").read_text()).body) == 1


EXCEPTIONS: dict[str, dict[str, str]] = {
    "files that import more than 20 first-party modules": {},
    "functions of more than 60 lines": {
        "experiments/benchmarks/saving.py:measure": "waits to be split",
        "kernels/lora_swiglu.py:_backward": "waits to be split",
    },
    "files of more than 500 lines": {},
    "folders of more than 15 files": {
        "scripts": "waits for commands to be joined",
    },
}
"""What may break a rule of size, with the reason. The lists only become shorter."""


def test_files_functions_and_folders_keep_the_rules_of_size(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / ".ci"))
    offenders = importlib.import_module("house").offenders(ROOT)
    new = {rule: sorted(set(found) - set(EXCEPTIONS[rule])) for rule, found in offenders.items()}
    assert not any(new.values()), f"split these: {new}"
    kept = {rule: sorted(set(EXCEPTIONS[rule]) - set(found)) for rule, found in offenders.items()}
    assert not any(kept.values()), f"remove these from EXCEPTIONS: {kept}"


def test_each_rule_of_size_finds_what_breaks_it(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(str(ROOT / ".ci"))
    offenders = importlib.import_module("house").offenders
    for name in ("many", "few"):
        (tmp_path / name).mkdir()
        for number in range(16 if name == "many" else 15):
            (tmp_path / name / f"m{number}.py").write_text("x = 1\n")
    lines = {60: "    x = 1\n" * 59, 61: "    x = 1\n" * 60}
    (tmp_path / "few" / "m0.py").write_text("".join(f"def f{n}():\n{lines[n]}" for n in lines))
    imports = "".join(f"import many.m{number}\n" for number in range(16))
    (tmp_path / "few" / "m1.py").write_text(imports + "from few import m2, m3\n")
    more = "".join(f"from few.m{number} import x\n" for number in range(5))
    (tmp_path / "few" / "m2.py").write_text(imports + more)
    (tmp_path / "few" / "m3.py").write_text("x = 1\n" * 501)
    (tmp_path / "train.py").write_text("def train():\n" + "    x = 1\n" * 99)
    assert dict(zip(EXCEPTIONS, offenders(tmp_path).values(), strict=True)) == {
        "files that import more than 20 first-party modules": ["few/m2.py"],
        "functions of more than 60 lines": ["few/m0.py:f61"],
        "files of more than 500 lines": ["few/m3.py"],
        "folders of more than 15 files": ["many"],
    }


@pytest.mark.parametrize(
    "root",
    CONFIGS,
)
def test_every_attribute_of_a_config_is_a_field(root):
    """An attribute without an annotation would silently not be configurable."""
    waiting, seen = [root], set()
    while waiting:
        kind = waiting.pop()
        if kind in seen:
            continue
        seen.add(kind)
        fields = kind.__dataclass_fields__
        for name, value in vars(kind).items():
            public = not name.startswith("_") and not callable(value)
            assert not public or name in fields or isinstance(value, property), (kind, name)
        for field in fields.values():
            for part in getattr(field.type, "__args__", (field.type,)):
                if hasattr(part, "__dataclass_fields__"):
                    waiting.append(part)
    assert len(seen) >= 1
    if root is Config:
        assert len(seen) >= 10


def test_every_field_of_the_configuration_is_read_somewhere():
    """An option that nobody reads is a promise that nobody keeps."""
    text = "\n".join(path.read_text() for path in [*LIBRARY, ROOT / "train.py"])
    nodes = ast.walk(ast.parse(text))
    attributes = {node.attr for node in nodes if isinstance(node, ast.Attribute)}
    names = set()
    waiting = [*CONFIGS]
    while waiting:
        for field in waiting.pop().__dataclass_fields__.values():
            names.add(field.name)
            parts = getattr(field.type, "__args__", (field.type,))
            waiting += [part for part in parts if hasattr(part, "__dataclass_fields__")]
    assert not names - attributes


def test_every_command_is_registered_under_the_name_of_its_script():
    assert COMMANDS.keys() == set(NAMES)
    assert len(CONFIGS) == len(NAMES) + 1  # prepare_data has two kinds
