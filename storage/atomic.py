"""Files and folders that survive a loss of power, complete or not at all."""

import os
import shutil
from collections.abc import Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Event

GROWTH = 1 << 23
"""Bytes by which a file has grown when they are forced to disk while it is being written."""
FILES = 4
"""That are forced to disk at a time."""
PAUSE = 0.01
"""Seconds between two looks at how the files have grown; none is taken while the disk works."""


@contextmanager
def new_folder(folder: Path | str) -> Iterator[Path]:
    """Give a folder to fill, which then appears under its name: complete or not at all.

    Its files get the permissions that the umask gives, whatever the library that writes them does
    (safetensors keeps its files to their owner).

    Raises:
        ValueError: the folder exists.
    """
    folder = Path(folder)
    if folder.exists():
        raise ValueError(f"{folder} exists; choose another folder or remove it")
    partial = folder.with_name(folder.name + ".tmp")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        with forced(partial):
            yield partial
            for path in partial.rglob("*"):
                if path.is_file():
                    path.chmod(partial.stat().st_mode & 0o666)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    make_durable(partial)
    partial.rename(folder)
    make_durable(folder.parent)


@contextmanager
def forced(folder: Path, pattern: str = "*") -> Iterator[None]:
    """Force the files of a folder to disk, while they are being written and all at the end.

    A disk that gets its work only then has been idle for as long as the writing took.

    Raises:
        OSError: a file could not be forced to disk.
    """
    written = Event()
    # A disk that is asked for one file after the other is idle in between.
    with ThreadPoolExecutor(FILES) as disk, ThreadPoolExecutor(1) as watcher:
        watching = watcher.submit(_force_growth, disk, folder, pattern, written)
        try:
            yield
        finally:
            written.set()
        watching.result()
        list(disk.map(make_durable, folder.glob(pattern)))


def _force_growth(disk: Executor, folder: Path, pattern: str, written: Event) -> None:
    forced: dict[Path, int] = {}

    def force(path: Path) -> None:
        with suppress(FileNotFoundError):  # it has another name by now
            size = path.stat().st_size
            if size - forced.get(path, 0) >= GROWTH:
                make_durable(path)
                forced[path] = size

    while not written.wait(PAUSE):
        list(disk.map(force, folder.glob(pattern)))


def make_durable(path: Path) -> None:
    """Force a file or folder to disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def replace_text(path: Path, content: str) -> None:
    """Write a small file in one step, and force it to disk."""
    partial = path.with_name(path.name + ".tmp")
    partial.write_text(content, encoding="utf-8")
    make_durable(partial)
    partial.replace(path)
    make_durable(path.parent)
