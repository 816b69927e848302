"""Files and folders that survive a crash once the call has returned."""

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


def write_durably(path: Path, value: Any) -> None:
    """Replace a JSON file at once: it holds what it held or `value`, whatever happens."""
    temporary = path.with_name(path.name + ".tmp")
    with temporary.open("w") as file:
        json.dump(value, file, indent=1)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    fsync_folder(path.parent)


def system_error(error: OSError) -> str:
    """The file, and what the operating system says of it."""
    places = [str(name) for name in (error.filename, error.filename2) if name is not None]
    reason = error.strerror or str(error) or type(error).__name__
    return f"{' -> '.join(places)}: {reason}" if places else reason


def why_no_file(path: Path) -> str:
    """Reason for which a path is not that of a file, for a message that names the path."""
    return "a folder, and a file is needed" if path.is_dir() else "no such file"


def fsync_folder(folder: Path) -> None:
    """Make the names in a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    os.fsync(descriptor)
    os.close(descriptor)


@contextmanager
def only_writer(lock: Path, out: Path) -> Iterator[None]:
    """Be the only process that writes `out`; the kernel forgets those that died.

    Raises:
        ValueError: another one is writing it.
    """
    with lock.open("w") as held:
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ValueError(
                f"out={out}: another process is writing it; wait, or choose another"
            ) from None
        yield
