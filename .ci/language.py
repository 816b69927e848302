"""The ban list of the house's English, and a ratchet over it.

    python .ci/language.py                      # compare the counts with .ci/language_counts.json
    python .ci/language.py --places [FOLDER]    # print every match with its file and line
    python .ci/language.py --write              # write the counts of this checkout back

Counted are docstrings, comments, string constants and *.md, per folder of the root and per pattern.
Matches in messages (raised errors, printed lines) count as `messages` only. A higher count than the
committed one fails here and in tests/unit/test_language.py. A lower one fails here alone: write
it back. Text that moved to another folder is written back too. Not counted: tests, .ci, docs/log
and the texts of the embedded sample.
"""

import argparse
import ast
import io
import json
import re
import sys
import tokenize
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
COUNTS = ROOT / ".ci" / "language_counts.json"
IGNORED = {".git", ".venv", "build", "runs", "multirun", "prepared", "outputs", "__pycache__"}
NOT_COUNTED = ("tests/", ".ci/", "docs/log/", ".github/")
SAMPLE = "data/sample/"
TEXT_SHARE = 0.95
MESSAGES, OPENING = "messages", "opening"

OPENINGS = re.compile(r"^(What|Whether|Where|How|Which|Why|When)\b")
WORDS = {
    "mend": r"\bmend(s|ed)?\b",
    "anew": r"\banew\b",
    "beside": r"\bbeside\b",
    "begun": r"\bbegun\b",
    "go on": r"\bgo(es)? on\b",
    "stand": r"\bstands? (?!for\b)",
    "is no": r"(?<![Tt]here\s)\b(is|are) no [a-z]",  # "there is no" is plain English
    "vouch": r"\bvouch",
    "learnt": r"\blearnt\b",
    "likewise": r"\blikewise\b",
    "alike": r"\balike\b",
    "apart": r"\bapart\b(?! from)",
    "but for": r"\bbut for\b",
    "of its own": r"\bof (its|their) own\b",
    "asked for": r"\basked for\b",
    "so many": r"\bso many\b",
    "nothing tells": r"\bnothing tells\b",
    "file tells": r"\b(file|folder|log|config|disk|digest)s? (tells?|says?|knows?)\b",
    "lie in": r"\blies? (in|on|beside|where)\b",
}
BANNED = re.compile("|".join(WORDS.values()))

Counts = dict[str, dict[str, int]]
"""Folder of the root (`.` for its files) -> pattern -> matches; zeros are left out."""


class Text(NamedTuple):
    """A piece of prose: `kind` is docstring, comment, constant, message or markdown."""

    kind: str
    line: int
    text: str


class Match(NamedTuple):
    """A match of the ban list; `name` is its key in `WORDS`, `opening` or `messages`."""

    path: str
    line: int
    name: str
    text: str

    @property
    def folder(self) -> str:
        """Folder of the root that is counted."""
        return self.path.split("/")[0] if "/" in self.path else "."


def is_text(tree: ast.Module, lines: int) -> bool:
    """Decide if a file is text in the form of Python: string literals fill nearly all lines."""
    covered = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            covered.update(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    return lines > 0 and len(covered) / lines >= TEXT_SHARE


def docstring_nodes(tree: ast.Module) -> Iterator[ast.Constant]:
    """Docstrings of modules, classes and functions, and of attributes."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        for place, statement in enumerate(node.body):
            after_field = place and isinstance(node.body[place - 1], ast.AnnAssign | ast.Assign)
            if (
                (place == 0 or after_field)
                and isinstance(statement, ast.Expr)
                and isinstance(statement.value, ast.Constant)
                and isinstance(statement.value.value, str)
            ):
                yield statement.value


def message_calls(tree: ast.Module) -> Iterator[ast.Call]:
    """Calls that show their arguments to the user: raised errors and printed lines."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call):
            yield node.exc
        elif isinstance(node, ast.Call):
            name = getattr(node.func, "id", getattr(node.func, "attr", ""))
            if name in ("print", "say", "write", "warn", "_reject"):
                yield node


def strings(node: ast.AST) -> Iterator[ast.Constant]:
    """String constants below a node, those of f-strings included."""
    for child in ast.walk(node):
        if isinstance(child, ast.Constant) and isinstance(child.value, str):
            yield child


def docstrings(tree: ast.Module) -> Iterator[str]:
    """Texts of the docstrings of a file."""
    return (str(node.value).strip() for node in docstring_nodes(tree))


def messages(tree: ast.Module) -> Iterator[str]:
    """Texts of raised errors and printed lines."""
    for call in message_calls(tree):
        if parts := [c.value for argument in call.args for c in strings(argument)]:
            yield " ".join(map(str, parts))


def comments(content: str) -> Iterator[Text]:
    """Comments of a file; those on lines that follow each other are one text."""
    line, parts = 0, []
    for token in tokenize.generate_tokens(io.StringIO(content).readline):
        if token.type == tokenize.COMMENT:
            if parts and token.start[0] != line + len(parts):
                yield Text("comment", line, " ".join(parts))
                parts = []
            line = line if parts else token.start[0]
            parts.append(token.string.lstrip("#").strip())
    if parts:
        yield Text("comment", line, " ".join(parts))


def python_texts(content: str, *, sample: bool) -> Iterator[Text]:
    """Prose of a Python file.

    Args:
        sample: the file generates sample text, so that its string constants are data.
    """
    tree = ast.parse(content)
    if sample and is_text(tree, len(content.splitlines())):
        return
    yield from comments(content)
    seen = set()
    for node in docstring_nodes(tree):
        seen.add(id(node))
        yield Text("docstring", node.lineno, str(node.value).strip())
    for call in message_calls(tree):
        for argument in call.args:
            if said := " ".join(text for _, text in spoken(argument, seen)):
                yield Text("message", argument.lineno, said)
    if not sample:
        for line, text in spoken(tree, seen):
            yield Text("constant", line, text)


def spoken(node: ast.AST, seen: set[int]) -> Iterator[tuple[int, str]]:
    """(line, text) of the strings below a node that are not in `seen`, which then has them.

    A value inside an f-string reads as the word x.
    """
    for child in ast.walk(node):
        if id(child) in seen:
            continue
        if isinstance(child, ast.JoinedStr):
            seen.update(id(part) for part in ast.walk(child))
            parts = (v.value if isinstance(v, ast.Constant) else "x" for v in child.values)
            yield child.lineno, "".join(map(str, parts))
            inner = [v.value for v in child.values if isinstance(v, ast.FormattedValue)]
            yield from ((c.lineno, str(c.value)) for v in inner for c in strings(v))
        elif isinstance(child, ast.Constant) and isinstance(child.value, str):
            seen.add(id(child))
            yield child.lineno, child.value


def files(root: Path) -> Iterator[tuple[str, Path]]:
    """(path below the root, path) of every file whose prose is counted, in order."""
    for path in sorted([*root.rglob("*.py"), *root.rglob("*.md")]):
        relative = path.relative_to(root)
        if IGNORED.intersection(relative.parts) or relative.parts[0].endswith(".egg-info"):
            continue
        if not relative.as_posix().startswith(NOT_COUNTED):
            yield relative.as_posix(), path


def find(root: Path) -> Iterator[Match]:
    """Every match of the ban list in a checkout."""
    for name, path in files(root):
        content = path.read_text(encoding="utf-8")
        if path.suffix == ".md":
            texts = iter([Text("markdown", 1, content)])
        else:
            texts = python_texts(content, sample=name.startswith(SAMPLE))
        for kind, line, text in texts:
            if kind == "docstring" and OPENINGS.match(text):
                yield Match(name, line, OPENING, text.split("\n")[0])
            for word, pattern in WORDS.items():
                for found in re.finditer(pattern.replace(" ", r"\s++"), text):
                    place = text.count("\n", 0, found.start()) if kind != "comment" else 0
                    shown = " ".join(text[max(0, found.start() - 40) : found.end() + 30].split())
                    yield Match(name, line + place, MESSAGES if kind == "message" else word, shown)


def count(matches: list[Match]) -> Counts:
    """Matches per folder and pattern."""
    counts: dict[str, Counter[str]] = {}
    for match in matches:
        counts.setdefault(match.folder, Counter())[match.name] += 1
    return {folder: dict(sorted(counts[folder].items())) for folder in sorted(counts)}


def differences(counts: Counts, committed: Counts) -> tuple[list[str], list[str]]:
    """Sentences on the counts that rose and on those that fell."""
    rose, fell = [], []
    for folder in sorted({*counts, *committed}):
        now, then = counts.get(folder, {}), committed.get(folder, {})
        for name in sorted({*now, *then}):
            one, other = then.get(name, 0), now.get(name, 0)
            if one != other:
                (rose if other > one else fell).append(f"{folder}, {name}: {one} -> {other}")
    return rose, fell


def main() -> int:
    """Compare, print or write; the exit status is 1 where a count differs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--places", nargs="?", const="", metavar="FOLDER")
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    matches = list(find(ROOT))
    if options.places is not None:
        for match in matches:
            if match.path.startswith(options.places):
                print(f"{match.path}:{match.line}: {match.name}: {match.text}")
        return 0
    counts = count(matches)
    if options.write:
        COUNTS.write_text(json.dumps(counts, indent=1) + "\n")
        return 0
    rose, fell = differences(counts, json.loads(COUNTS.read_text()))
    for sentence in rose:
        print(f"more than committed: {sentence} (see python .ci/language.py --places FOLDER)")
    for sentence in fell:
        print(f"fewer than committed: {sentence}; run python .ci/language.py --write")
    return bool(rose or fell)


if __name__ == "__main__":
    sys.exit(main())
