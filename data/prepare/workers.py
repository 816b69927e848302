"""Parallel work on a stream, with results in order, and a bar over the bytes that were read."""

import itertools
import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from tqdm import tqdm

from data.records.readers import Position

Item = TypeVar("Item")
Result = TypeVar("Result")

CHUNKS_PER_WORKER = 4
"""Items in flight: enough to keep a worker busy, few enough to bound memory."""


def map_in_order(
    make: Callable[[], Callable[[Item], Result]], items: Iterable[Item], workers: int
) -> Generator[Result, None, None]:
    """Apply a function to every item.

    Args:
        make: builds the function; called once in each process, and can be pickled.
        workers: processes; 0: one per core, 1: this one.
    """
    workers = workers or os.cpu_count() or 1
    if workers == 1:
        yield from map(make(), items)
        return
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, spawn, _start_worker, (make,)) as pool:
        waiting = deque()
        try:
            for item in items:
                with _interrupts_held():  # which a process started meanwhile inherits
                    waiting.append(pool.submit(_work_on, item))
                if len(waiting) == CHUNKS_PER_WORKER * workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)


@contextmanager
def _interrupts_held() -> Iterator[None]:
    """Hold Ctrl-C back for a moment; it is the main process's to answer, not a new process's."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _start_worker(make: Callable[[], Callable[[Any], Any]]) -> None:
    global _work
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the main process's to answer
    _work = make()
    threading.Thread(target=_die_with_parent, daemon=True).start()


def _die_with_parent() -> None:
    # A killed main process cannot tell its workers to stop: they would wait for chunks forever.
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _work_on(item: Any) -> Any:
    return _work(item)


class ReadingBar(tqdm):
    """A progress bar on stderr over the bytes of files on disk; `reach` moves it."""

    def __init__(self, label: str, paths: list[str], position: Position, *, shown: bool) -> None:
        sizes = (Path(path).stat().st_size for path in paths)
        self._starts = [0, *itertools.accumulate(sizes)]
        start = self._starts[position.file] + position.bytes_read
        super().__init__(
            desc=label, total=self._starts[-1], initial=start, unit="B", unit_scale=True,
            disable=not shown,
        )  # fmt: skip

    def reach(self, position: Position) -> None:
        """Move the bar to the end of a record."""
        self.update(self._starts[position.file] + position.bytes_read - self.n)
