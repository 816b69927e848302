"""The folder of a run: what is in force is written before the first step.

    config.yaml environment.json metrics.jsonl checkpoints/ exports/ model/ loss.png

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

from training.distributed import World

_PACKAGES = ("torch", "numpy", "safetensors", "sentencepiece", "hydra-core", "triton", "flash-attn")


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


def check_same_data(path: Path, fingerprints: dict[str, str]) -> None:
    """Compare with the data that a run was begun with, if it was.

    Raises:
        ValueError: names the sources that have changed since.
    """
    if not path.exists():
        return
    before = json.loads(path.read_text(encoding="utf-8"))["data_fingerprints"]
    changed = [name for name in fingerprints if before.get(name) != fingerprints[name]]
    if changed:
        raise ValueError(
            f"data.sources {', '.join(changed)} changed since {path.parent} was begun; restore "
            "them, or set another name"
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
