"""Slots in which requests generate, and their queue.

The state of a scheduler belongs to the thread of the event loop. Generation runs in one thread per
slot, which only reads the flag `cancelled` of its request: before every module and after every
token, so that a cancelled request also frees its slot during a long prefill.
"""

import asyncio
import logging
import threading
from collections import deque
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

from inference.generation.generate import Event, stream
from inference.generation.load import LoadedModel
from inference.generation.sampling import SamplingConfig
from inference.serving.errors import APIError, failure, shutting_down

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class GenerationRequest:
    """Arguments of `inference.generation.generate.stream` for a request.

    Attributes:
        indices: indices of the prompts for sampling; None: numbers that the scheduler uses once.
    """

    prompts: list[list[int]]
    sampling: SamplingConfig
    continue_text: bool
    indices: list[int] | None


class Interrupted(Exception):
    """A request was cancelled during a forward pass."""


class QueuedRequest:
    """A waiting or running request.

    Attributes:
        cancelled: its client left, or the server shuts down.
        failed: generation ended with an error, which is in the log.
    """

    def __init__(self, work: GenerationRequest) -> None:
        self.work = work
        self.cancelled = False
        self.failed = False
        self._items: asyncio.Queue[Event | None] = asyncio.Queue()

    async def events(self) -> AsyncIterator[Event]:
        """Events of the request, to be read once.

        Raises:
            APIError: generation failed or was cancelled.
        """
        while (event := await self._items.get()) is not None:
            yield event
        if self.failed:
            raise failure()
        if self.cancelled:
            raise shutting_down()

    def put(self, event: Event | None) -> None:
        """Add an event, None after the last; called in the thread of the event loop."""
        self._items.put_nowait(event)


class RequestScheduler:
    """Scheduler of concurrent requests, for one event loop.

    Args:
        slots: requests that run concurrently.
        queue: requests that may wait.
    """

    def __init__(self, loaded: LoadedModel, *, slots: int = 4, queue: int = 32) -> None:
        self.loaded, self.slots, self.queue = loaded, slots, queue
        self._waiting: deque[QueuedRequest] = deque()
        self._running: set[QueuedRequest] = set()
        self._stopping = False
        self._drawn = 0
        self._executor = ThreadPoolExecutor(slots, "slot")
        self._thread = threading.local()
        modules = loaded.engine.model.modules()
        self._hooks = [module.register_forward_pre_hook(self._look) for module in modules]

    @property
    def running(self) -> int:
        """Number of requests with a slot."""
        return len(self._running)

    @property
    def waiting(self) -> int:
        """Number of waiting requests."""
        return len(self._waiting)

    def submit(self, work: GenerationRequest) -> QueuedRequest:
        """Start a request or add it to the queue.

        Raises:
            APIError: the queue is full, or the server shuts down.
        """
        if self._stopping:
            raise shutting_down()
        if self.running == self.slots and self.waiting >= self.queue:
            message = f"the queue is full ({self.waiting} requests wait); try again later"
            raise APIError(429, message, code="queue_full")
        job = QueuedRequest(work)
        self._waiting.append(job)
        self._start()
        return job

    def cancel(self, job: QueuedRequest) -> None:
        """Cancel a request; no effect after its end."""
        if job in self._running:
            job.cancelled = True  # read by its thread
        elif job in self._waiting:
            job.cancelled = True
            self._waiting.remove(job)
            job.put(None)

    def stop(self) -> None:
        """Cancel all requests and refuse new ones."""
        self._stopping = True
        for job in [*self._waiting, *self._running]:
            self.cancel(job)

    async def close(self) -> None:
        """Stop, and wait for the end of all threads."""
        self.stop()
        await asyncio.to_thread(self._executor.shutdown)
        for hook in self._hooks:
            hook.remove()

    def _start(self) -> None:
        """Give free slots to the longest waiting requests."""
        loop = asyncio.get_running_loop()
        while self._waiting and self.running < self.slots:
            job = self._waiting.popleft()
            self._running.add(job)
            indices = job.work.indices or self._fresh_indices(len(job.work.prompts))
            put = partial(loop.call_soon_threadsafe, job.put)
            future = loop.run_in_executor(self._executor, self._generate, job, indices, put)
            future.add_done_callback(partial(self._finish, job))

    def _fresh_indices(self, count: int) -> list[int]:
        first = self._drawn + 1
        self._drawn += count
        return list(range(first, first + count))

    def _finish(self, job: QueuedRequest, future: asyncio.Future[None]) -> None:
        self._running.discard(job)
        error = future.exception()
        if error is not None and not isinstance(error, Interrupted):
            job.failed = True
            logger.error("generation failed", exc_info=error)
        self._start()
        job.put(None)

    def _generate(
        self, job: QueuedRequest, indices: list[int], put: Callable[[Event], object]
    ) -> None:
        """Generate for a request, in the thread of a slot."""
        self._thread.job = job
        for event in stream(
            self.loaded.engine,
            job.work.prompts,
            job.work.sampling,
            eos_ids=self.loaded.eos_ids,
            decode=self.loaded.tokenizer.decode,
            continue_text=job.work.continue_text,
            indices=indices,
        ):
            put(event)
            if job.cancelled:
                return

    def _look(self, *_: object) -> None:
        """Forward pre-hook of every module: leave the pass of a cancelled request."""
        job: QueuedRequest | None = getattr(self._thread, "job", None)
        if job is not None and job.cancelled:
            raise Interrupted
