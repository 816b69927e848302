"""The folder of a run: what is in force is written before the first step.

    config.yaml environment.json starts.jsonl metrics.jsonl checkpoints/ exports/
    loss.png forgetting.png model/ or, where an adapter was trained, adapter/

Process 0 owns it. A lock keeps a second run out; the kernel drops it with the process, so a killed
run needs no cleaning.
"""

import fcntl
import importlib.metadata
import json
import os
import platform
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch

from model.durable import make_durable
from training.distributed import World

_PACKAGES = ("torch", "numpy", "safetensors", "sentencepiece", "hydra-core", "triton", "flash-attn")

FINAL_FOLDERS = ("model", "adapter")
"""What a run leaves when it has finished: one of them."""
HELD_OUT = "/held_out"
"""Ends the name under which the held-out text of a source has its fingerprint."""


@contextmanager
def open_run_folder(folder: Path, world: World) -> Iterator[None]:
    """Create the folder if need be and hold its lock.

    Raises:
        ValueError: another process is working in it.
    """
    with ExitStack() as stack:

        def lock() -> None:
            try:
                folder.mkdir(parents=True, exist_ok=True)
            except (FileExistsError, NotADirectoryError):
                raise ValueError(f"{folder} cannot be a folder; set another runs_folder") from None
            held = stack.enter_context((folder / ".lock").open("w"))
            try:
                fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise ValueError(
                    f"{folder}: another run is working in this folder; wait, or set another name"
                ) from None

        world.on_main(lock)
        yield


def check_records(folder: Path, steps: list[int]) -> None:
    """Refuse to go on from checkpoints of which nothing tells what run they belong to.

    Args:
        steps: of the checkpoints that are there.

    Raises:
        ValueError: names the files that are missing.
    """
    names = ("config.yaml", "environment.json")
    missing = [name for name in names if not (folder / name).is_file()]
    if steps and missing:
        raise ValueError(
            f"{folder} holds checkpoints up to step {steps[-1]}, but no {' and no '.join(missing)} "
            "to tell what they were computed from; restore what is missing, or set another name"
        )


def check_resume(resume: str, folder: Path, steps: list[int]) -> None:
    """Compare `resume` with the steps of the checkpoints that are there.

    Raises:
        ValueError: there are some and none may be, or none and one must be.
    """
    if resume == "never" and steps:
        raise ValueError(
            f"resume=never, but {folder} holds checkpoints up to step {steps[-1]}; remove "
            "the folder, set another name, or resume=auto"
        )
    if resume == "required" and not steps:
        raise ValueError(
            f"resume=required, but {folder} holds no checkpoint; check the name, or "
            "resume=auto to begin"
        )


def recorded_fingerprints(path: Path) -> dict[str, str]:
    """The data that a run was begun with, from its environment.json; empty if it was not begun.

    Raises:
        ValueError: the file is not one that a run has written.
    """
    if not path.exists():
        return {}
    try:
        return json.loads(path.read_text(encoding="utf-8"))["data_fingerprints"]
    except (ValueError, KeyError, TypeError):
        raise ValueError(
            f"{path} is damaged, it names no data_fingerprints; restore it, or set another name"
        ) from None


def check_same_data(path: Path, fingerprints: dict[str, str]) -> None:
    """Compare with the data that a run was begun with, if it was.

    Raises:
        ValueError: names the sources that have changed since.
    """
    if not path.exists():
        return
    before = recorded_fingerprints(path)
    # Runs begun by an earlier version have not noted the held-out text.
    changed = [
        name
        for name in fingerprints
        if before.get(name) != fingerprints[name]
        and (name in before or not name.endswith(HELD_OUT))
    ]
    if changed:
        where = "" if changed == ["init_from"] else "data.sources "
        raise ValueError(
            f"{where}{', '.join(changed)} changed since {path.parent} was begun; restore them, or "
            "set another name"
        )


def describe_environment(world: World, fingerprints: dict[str, str]) -> dict[str, Any]:
    """Versions, code, hardware and data of a run."""
    versions = {}
    for package in _PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            versions[package] = None
    cuda = torch.cuda.get_device_name() if world.device.type == "cuda" else None
    return {
        "python": platform.python_version(),
        "versions": versions,
        "git_commit": _git("rev-parse", "HEAD"),
        "git_dirty": bool(_git("status", "--porcelain")),
        "platform": platform.platform(),
        "cpus": os.cpu_count(),
        "threads": world.threads,
        "cuda_device": cuda,
        "world_size": world.size,
        "data_fingerprints": fingerprints,
    }


def record_start(folder: Path, start: dict[str, Any]) -> None:
    """Add a line to starts.jsonl and force it to disk: no step may outlive its start.

    environment.json and config.yaml tell of the last start only.
    """
    path = folder / "starts.jsonl"
    before = path.read_text(encoding="utf-8") if path.exists() else ""
    # Replaced and not appended to, so that a kill leaves no half of a line.
    partial = path.with_name(path.name + ".tmp")
    partial.write_text(before + json.dumps(start) + "\n", encoding="utf-8")
    make_durable(partial)
    partial.replace(path)
    make_durable(folder)


def read_starts(folder: Path) -> list[dict[str, Any]]:
    """The starts of a run in their order; none if it is older than starts.jsonl.

    Raises:
        ValueError: a line is not what `record_start` has written.
    """
    path, starts = folder / "starts.jsonl", []
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    for number, line in enumerate(lines, start=1):
        try:
            start = json.loads(line)
            whole = start["step"] >= 0 and start["logging_every"] >= 1
        except (ValueError, KeyError, TypeError):
            start, whole = None, False
        if not whole:
            raise ValueError(f"{path}, line {number}: {line[:40]!r} tells of no start of a run")
        starts.append(start)
    return starts


def replace_text(path: Path, content: str) -> None:
    """Write a small file in one step."""
    partial = path.with_name(path.name + ".tmp")
    partial.write_text(content, encoding="utf-8")
    partial.replace(path)


def _git(*arguments: str) -> str | None:
    root = Path(__file__).resolve().parent
    try:
        result = subprocess.run(
            ["git", *arguments], cwd=root, capture_output=True, text=True, check=False
        )
    except FileNotFoundError:
        return None
    return result.stdout.strip() if result.returncode == 0 else None
