"""Exclusive locks between processes; the kernel releases the lock of a process that ends."""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO


@contextmanager
def locked(path: Path, busy: str | None) -> Iterator[BinaryIO]:
    """Hold the lock of a file, which is created if absent and opened for appending.

    Args:
        busy: message of the error while another process holds the lock; None waits instead.

    Raises:
        ValueError: another process holds the lock.
    """
    with path.open("ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (fcntl.LOCK_NB if busy else 0))
        except BlockingIOError:
            raise ValueError(busy) from None
        yield file


@contextmanager
def only_writer(lock: Path, out: Path) -> Iterator[None]:
    """Be the only process that writes `out`.

    Raises:
        ValueError: another process is writing `out`.
    """
    with locked(lock, f"out={out}: another process is writing it; wait, or choose another out="):
        yield
