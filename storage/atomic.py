"""Files and folders that are complete or absent, also after a crash or a loss of power.

A new version is written under a temporary name (`<name>.tmp`), forced to disk with fsync, and
renamed; then the folder that holds the name is forced to disk.
"""

import json
import os
import shutil
from collections.abc import Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Event
from typing import IO, Any, BinaryIO

GROWTH = 1 << 23
"""Bytes by which a file grows between two calls of fsync while the file is written."""
FILES = 4
"""Number of files that are forced to disk at a time."""
PAUSE = 0.01
"""Seconds between two checks of the sizes of growing files."""


@contextmanager
def new_folder(folder: Path | str) -> Iterator[Path]:
    """Give a temporary folder to fill; the folder gets its final name once it is complete.

    Files get the permissions that the umask gives, also where a library writes others
    (safetensors makes its files readable for their owner only).

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
        with fsync_while_writing(partial):
            yield partial
            for path in partial.rglob("*"):
                if path.is_file():
                    path.chmod(partial.stat().st_mode & 0o666)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    fsync(partial)
    partial.rename(folder)
    fsync(folder.parent)


@contextmanager
def new_file(path: Path) -> Iterator[BinaryIO]:
    """Give a temporary file to write, which then replaces `path` in one step.

    If the writer fails, `path` keeps its content and the temporary file is overwritten by the next
    writer.
    """
    partial = path.with_name(path.name + ".tmp")
    with partial.open("wb") as file:
        yield file
        fsync_file(file)
    partial.replace(path)
    fsync(path.parent)


def write_atomically(path: Path, content: str | bytes) -> None:
    """Replace a small file in one step; text is written as UTF-8."""
    with new_file(path) as file:
        file.write(content.encode() if isinstance(content, str) else content)


def write_json(path: Path, value: Any) -> None:
    """Replace a JSON file in one step."""
    write_atomically(path, json.dumps(value, indent=1))


@contextmanager
def fsync_while_writing(folder: Path, pattern: str = "*") -> Iterator[None]:
    """Force the files of a folder to disk while they are written, and all of them at the end.

    A disk that starts only at the end has been idle during the writing.

    Raises:
        OSError: a file could not be forced to disk.
    """
    written = Event()
    # Several files at a time: between two files of a sequence the disk would be idle.
    with ThreadPoolExecutor(FILES) as disk, ThreadPoolExecutor(1) as watcher:
        watching = watcher.submit(_fsync_growth, disk, folder, pattern, written)
        try:
            yield
        finally:
            written.set()
        watching.result()
        list(disk.map(fsync, folder.glob(pattern)))


def _fsync_growth(disk: Executor, folder: Path, pattern: str, written: Event) -> None:
    synced: dict[Path, int] = {}

    def sync(path: Path) -> None:
        with suppress(FileNotFoundError):  # the file has been renamed
            size = path.stat().st_size
            if size - synced.get(path, 0) >= GROWTH:
                fsync(path)
                synced[path] = size

    while not written.wait(PAUSE):
        list(disk.map(sync, folder.glob(pattern)))


def fsync(path: Path) -> None:
    """Force a file, or the names in a folder, to disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def fsync_file(file: IO) -> None:
    """Force everything that was written to an open file to disk."""
    file.flush()
    os.fsync(file.fileno())
