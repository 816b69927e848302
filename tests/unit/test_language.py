"""The ratchet over the house's English: no folder gets more matches of the ban list."""

import importlib.util
import json
from pathlib import Path
from types import ModuleType

import pytest

HERE = Path(__file__).resolve()


@pytest.fixture(scope="module")
def language() -> ModuleType:
    """The module .ci/language.py, which no package contains."""
    path = next(p / ".ci" / "language.py" for p in HERE.parents if (p / ".ci").is_dir())
    spec = importlib.util.spec_from_file_location("language", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_no_count_rises(language: ModuleType) -> None:
    """Remedy: rewrite the new sentences; if text only moved, `python .ci/language.py --write`."""
    matches = list(language.find(language.ROOT))
    rose, _ = language.differences(language.count(matches), json.loads(language.COUNTS.read_text()))
    places = [
        f"{match.path}:{match.line}: {match.text}"
        for match in matches
        if any(line.startswith(f"{match.folder}, {match.name}:") for line in rose)
    ]
    assert not rose, "\n".join([*rose, *places, "see .ci/language.py"])


def test_no_banned_opening_and_no_banned_word_in_a_message(language: ModuleType) -> None:
    """The goals of the language: they hold in every folder."""
    names = (language.OPENING, language.MESSAGES)
    found = [match for match in language.find(language.ROOT) if match.name in names]
    assert not [f"{match.path}:{match.line}: {match.text}" for match in found]


def test_every_kind_of_text_is_counted_once(language: ModuleType, tmp_path: Path) -> None:
    """Docstrings, comments, constants, messages and Markdown; tests and data are left out."""
    text = (
        '"""What this does."""\n'
        "# A thing of\n"
        "# its own.\n"
        'NAME = "begun"\n'
        'SAID = f"{NAME} is no {NAME}"\n'
        "class A:\n"
        "    x: int = 0\n"
        '    """Which x, likewise."""\n'
        "def f():\n"
        '    raise ValueError(f"{NAME} is no {1}, " "mend it")\n'
    )
    for name in ("model/a.py", "tests/a.py", ".ci/a.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    for name in ("README.md", "docs/a.md", "docs/log/b.md"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("It stands for much.\nBut it stands\nhere, apart from that.")
    found = list(language.find(tmp_path))
    assert language.count(found) == {
        ".": {"stand": 1},
        "docs": {"stand": 1},
        "model": dict.fromkeys(("begun", "is no", "likewise", "of its own"), 1)
        | {"messages": 2, "opening": 2},
    }
    assert [m.line for m in found if m.name == "stand"] == [2, 2]


def test_text_of_the_sample_is_data(language: ModuleType, tmp_path: Path) -> None:
    """Constants of data/sample are not prose; docstrings and comments there are."""
    folder = tmp_path / "data" / "sample"
    folder.mkdir(parents=True)
    (folder / "a.py").write_text('"""How."""\n\n\nX = f("begun")  # anew\n')
    (folder / "b.py").write_text('X = """\nWhat is learnt\nanew\n"""\n')
    assert language.count(list(language.find(tmp_path))) == {"data": {"anew": 1, "opening": 1}}


def test_rises_and_falls_are_told_from_each_other(language: ModuleType) -> None:
    """A pattern or a folder that is absent has the count 0."""
    rose, fell = language.differences(
        {"a": {"anew": 2}, "b": {"mend": 1}}, {"a": {"anew": 1, "mend": 1}, "c": {"beside": 2}}
    )
    assert rose == ["a, anew: 1 -> 2", "b, mend: 0 -> 1"]
    assert fell == ["a, mend: 1 -> 0", "c, beside: 2 -> 0"]
