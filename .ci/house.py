"""Figures about the code as a house: sizes, imports, functions, language, duplicates, import times.

    python .ci/house.py [ROOT] [--out FILE.json] [--against FILE.json] [--times] [--tests]

ROOT is a checkout (default: this one). `--out` writes the figures, and `--against` prints the
figures of an earlier call next to those of this call. `--times` also measures the import of every
command with `python -X importtime` (the least of three calls). `--tests` also times the fast tier.

`offenders` lists what breaks a rule of size; tests/unit/test_layout.py compares it with its list of
exceptions.
"""

import argparse
import ast
import json
import re
import resource
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from language import BANNED, IGNORED, OPENINGS, docstrings, is_text, messages

NOT_PRODUCT = {"tests", "docs", "experiments", ".ci"}
SHAPE_LINES = 6
MOST_MODULES = 20
"""First-party modules that a file may import."""
MOST_FILES = 15
"""Python files of a folder, `__init__.py` included."""
MOST_FUNCTION_LINES = {"train.py:train": 100}
"""Lines of a function where the limit is not `MOST_LINES`."""
MOST_LINES = 60
MOST_FILE_LINES = 500


def sources(root: Path) -> Iterator[Path]:
    """Python files of a checkout, in order."""
    for path in sorted(root.rglob("*.py")):
        if not IGNORED.intersection(path.relative_to(root).parts):
            yield path


def is_product(path: Path, root: Path) -> bool:
    """Decide if a file belongs to the product: neither a test nor a study nor a check."""
    return path.relative_to(root).parts[0] not in NOT_PRODUCT


def first_party(tree: ast.Module, rooms: set[str]) -> tuple[set[str], int]:
    """First-party modules that a file imports, and how many names it takes from them."""
    modules, names = set(), 0
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            if node.module.split(".")[0] in rooms:
                modules.add(node.module)
                names += len(node.names)
        elif isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.split(".")[0] in rooms:
                    modules.add(alias.name)
                    names += 1
    return modules, names


def functions(tree: ast.Module) -> Iterator[tuple[str, int]]:
    """Name and length in lines of every function, decorators excluded."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node.name, (node.end_lineno or node.lineno) - node.lineno + 1


def shapes(trees: dict[str, str]) -> int:
    """Lines that repeat a run of six lines of equal shape, names, strings and numbers apart."""
    seen = Counter()
    windows = []
    for text in trees.values():
        lines = [line.strip() for line in text.splitlines()]
        lines = [line for line in lines if line and not line.startswith("#")]
        shape = [re.sub(r"\"[^\"]*\"|'[^']*'|\b[\w.]+\b", "_", line) for line in lines]
        for place in range(len(shape) - SHAPE_LINES + 1):
            window = "\n".join(shape[place : place + SHAPE_LINES])
            if len(set(window)) > 6:  # not only brackets
                seen[window] += 1
                windows.append(window)
    return sum(1 for window in windows if seen[window] > 1)


def rooms_of(root: Path) -> set[str]:
    """Top-level packages of a checkout, and train.py."""
    rooms = {path.name for path in root.iterdir() if path.is_dir() and path.name not in IGNORED}
    return rooms | {"train"}


def offenders(root: Path) -> dict[str, list[str]]:
    """Files, functions and folders that break a rule of size.

    Imports, functions and lines are counted in all files but tests; the files of a folder
    everywhere.
    """
    rooms, folders = rooms_of(root), Counter()
    modules, long_functions, long_files = [], [], []
    for path in sources(root):
        name = path.relative_to(root)
        folders[name.parent.as_posix()] += 1
        if "tests" in name.parts:
            continue
        content = path.read_text(encoding="utf-8")
        tree = ast.parse(content)
        if len(first_party(tree, rooms)[0]) > MOST_MODULES:
            modules.append(str(name))
        if len(content.splitlines()) > MOST_FILE_LINES:
            long_files.append(str(name))
        for function, lines in functions(tree):
            place = f"{name}:{function}"
            if lines > MOST_FUNCTION_LINES.get(place, MOST_LINES):
                long_functions.append(place)
    return {
        "files that import more than 20 first-party modules": modules,
        "functions of more than 60 lines": long_functions,
        "files of more than 500 lines": long_files,
        "folders of more than 15 files": sorted(f for f, n in folders.items() if n > MOST_FILES),
    }


def measure(root: Path) -> dict:
    """All figures of a checkout that can be read in its text."""
    rooms = rooms_of(root)
    total, text_lines, tests, others = 0, 0, 0, 0
    folders: Counter[str] = Counter()
    imports, lengths, opened, doc_count, worded, message_count = {}, [], 0, 0, 0, 0
    product_text = {}
    for path in sources(root):
        content = path.read_text(encoding="utf-8")
        tree, lines, name = (
            ast.parse(content),
            len(content.splitlines()),
            str(path.relative_to(root)),
        )
        if not is_product(path, root):
            tests += lines * (name.split("/")[0] == "tests")
            others += lines * (name.split("/")[0] != "tests")
            continue
        folders[str(path.parent.relative_to(root))] += 1
        if is_text(tree, lines):
            text_lines += lines
            continue
        total += lines
        product_text[name] = content
        imports[name] = [len(first_party(tree, rooms)[0]), first_party(tree, rooms)[1]]
        lengths += [(length, f"{name}:{function}") for function, length in functions(tree)]
        docs = list(docstrings(tree))
        doc_count += len(docs)
        opened += sum(bool(OPENINGS.match(doc)) for doc in docs)
        said = list(messages(tree))
        message_count += len(said)
        worded += sum(bool(BANNED.search(text)) for text in said)
    network = "model/transformer.py"
    return {
        "product lines": total,
        "sample text lines in Python": text_lines,
        "test lines": tests,
        "other Python lines (docs, experiments, checks)": others,
        "C lines": sum(len(p.read_text().splitlines()) for p in root.glob("kernels/**/*.[ch]")),
        "product files": len(product_text),
        "longest file": max(len(text.splitlines()) for text in product_text.values()),
        "widest folder": list(folders.most_common(1)[0]),
        "folders above 15 files": sorted(f for f, n in folders.items() if n > 15),
        "folders in the root": len(rooms - {"train", ".ci"} - {r for r in rooms if r[0] == "."}),
        "train.py: modules, names, lines": [
            *imports["train.py"],
            len(product_text["train.py"].splitlines()),
        ],
        "network file: modules, names": imports[network],
        "files above 20 first-party modules": sorted(n for n, i in imports.items() if i[0] > 20),
        "functions": len(lengths),
        "functions above 60 lines": sorted(where for length, where in lengths if length > 60),
        "docstrings": doc_count,
        "docstrings with a banned opening, %": round(100 * opened / doc_count, 1),
        "messages": message_count,
        "messages with a banned word": worded,
        "lines in repeated shapes of six lines": shapes(product_text),
    }


def import_times(root: Path) -> dict[str, float]:
    """Seconds to import each command: the least of three, from `python -X importtime`."""
    commands = ["train", *(f"scripts.{p.stem}" for p in sorted((root / "scripts").glob("*.py")))]
    found = {}
    for command in commands:
        if command.endswith("__init__"):
            continue
        times = []
        for _ in range(3):
            call = [sys.executable, "-X", "importtime", "-c", f"import {command}"]
            lines = subprocess.run(
                call, cwd=root, capture_output=True, text=True, check=True
            ).stderr.splitlines()
            times.append(int(lines[-1].split("|")[1]) / 1e6)
        found[command] = min(times)
    return found


def fast_tier(root: Path) -> dict[str, float]:
    """Seconds and CPU seconds of `pytest`, and how it ended."""
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    call = [sys.executable, "-m", "pytest", "-q"]
    ended = subprocess.run(call, cwd=root, capture_output=True, text=True, check=False)
    seconds, after = time.monotonic() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"seconds": round(seconds), "CPU seconds": round(cpu), "exit code": ended.returncode}


def main() -> None:
    """Measure, print, compare."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("root", nargs="?", type=Path, default=Path(__file__).parents[1])
    parser.add_argument("--out", type=Path)
    parser.add_argument("--against", type=Path)
    parser.add_argument("--times", action="store_true")
    parser.add_argument("--tests", action="store_true")
    options = parser.parse_args()
    figures = measure(options.root.resolve())
    if options.times:
        figures["import seconds"] = import_times(options.root.resolve())
    if options.tests:
        figures["fast tier"] = fast_tier(options.root.resolve())
    before = json.loads(options.against.read_text()) if options.against else {}
    for key, value in figures.items():
        print(f"{key}: {before[key]} -> {value}" if key in before else f"{key}: {value}")
    if options.out:
        options.out.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
