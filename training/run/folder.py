"""The folder of a run: what is in force is written before the first step.

    config.yaml environment.json starts.jsonl metrics.jsonl initial/ checkpoints/ exports/
    loss.png forgetting.png model/ or, where an adapter was trained, adapter/

Process 0 owns it. A lock keeps a second run out; the kernel drops it with the process, so a killed
run needs no cleaning.
"""

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

from storage.atomic import write_atomically
from storage.lock import locked
from training.distributed import World

_PACKAGES = ("torch", "numpy", "safetensors", "sentencepiece", "hydra-core", "triton", "flash-attn")


@contextmanager
def open_run_folder(folder: Path, world: World) -> Iterator[None]:
    """Create the folder if need be and hold its lock.

    Raises:
        ValueError: another process is working in it.
    """
    with ExitStack() as stack:

        def take_lock() -> None:
            try:
                folder.mkdir(parents=True, exist_ok=True)
            except (FileExistsError, NotADirectoryError):
                raise ValueError(f"{folder} cannot be a folder; set another runs_folder") from None
            path = folder / ".lock"
            holder = path.read_text(encoding="utf-8") if path.exists() else ""
            busy = (
                f"{folder}: another run is working in this folder ({holder or 'starting'}); wait, "
                "or set another name"
            )
            held = stack.enter_context(locked(path, busy))
            held.truncate(0)
            held.write(f"process {os.getpid()} on {platform.node()}".encode())
            held.flush()

        world.run_on_rank0(take_lock)
        yield


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
        "world_size": world.dp_size,
        "data_fingerprints": fingerprints,
    }


def record_start(folder: Path, start: dict[str, Any]) -> None:
    """Add a line to starts.jsonl and force it to disk: no step may outlive its start.

    environment.json and config.yaml tell of the last start only.
    """
    path = folder / "starts.jsonl"
    before = path.read_text(encoding="utf-8") if path.exists() else ""
    # Replaced and not appended to, so that a kill leaves no half of a line.
    write_atomically(path, before + json.dumps(start) + "\n")


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


def _git(*arguments: str) -> str | None:
    root = Path(__file__).resolve().parent
    try:
        result = subprocess.run(
            ["git", *arguments], cwd=root, capture_output=True, text=True, check=False
        )
    except FileNotFoundError:
        return None
    return result.stdout.strip() if result.returncode == 0 else None
