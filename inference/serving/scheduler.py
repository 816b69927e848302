"""Slots in which requests generate, and the queue before them.

All of an engine's state belongs to the event loop's thread; what generates runs in one thread per
slot, and only reads whether its job was cancelled. It looks before every module and after every
token, so that a cancelled job gives its slot back in the middle of a long prompt, too.
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
from inference.generation.load import Speaker
from inference.generation.sampling import SamplingConfig
from inference.serving.errors import Refusal, failure, shutting_down

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Work:
    """What a request asks for, in the words of `inference.generation.generate.stream`.

    Attributes:
        indices: of the prompts, for the draws; None: a number of the engine's that comes once.
    """

    prompts: list[list[int]]
    sampling: SamplingConfig
    continue_text: bool
    indices: list[int] | None


class Interrupted(Exception):
    """A job was cancelled in the middle of a pass."""


class Job:
    """One request on its way.

    Attributes:
        work: what is asked for.
        cancelled: nobody waits for it any more, or the server ends.
        failed: generation broke off with an error, which is in the log.
    """

    def __init__(self, work: Work) -> None:
        self.work = work
        self.cancelled = False
        self.failed = False
        self._items: asyncio.Queue[Event | None] = asyncio.Queue()

    async def events(self) -> AsyncIterator[Event]:
        """Events as they come; to be read once.

        Raises:
            Refusal: the answer did not come to its end.
        """
        while (event := await self._items.get()) is not None:
            yield event
        if self.failed:
            raise failure()
        if self.cancelled:
            raise shutting_down()

    def put(self, event: Event | None) -> None:
        """Hand over an event; None after the last. In the event loop's thread."""
        self._items.put_nowait(event)


class Engine:
    """Generates for several requests at a time; made for one event loop.

    Args:
        slots: jobs that run at the same time.
        queue: jobs that may wait.
    """

    def __init__(self, speaker: Speaker, *, slots: int = 4, queue: int = 32) -> None:
        self.speaker, self.slots, self.queue = speaker, slots, queue
        self._waiting: deque[Job] = deque()
        self._running: set[Job] = set()
        self._stopping = False
        self._drawn = 0
        self._executor = ThreadPoolExecutor(slots, "slot")
        self._thread = threading.local()
        modules = speaker.runner.model.modules()
        self._hooks = [module.register_forward_pre_hook(self._look) for module in modules]

    @property
    def running(self) -> int:
        """Jobs that have a slot."""
        return len(self._running)

    @property
    def waiting(self) -> int:
        """Jobs that wait for one."""
        return len(self._waiting)

    def submit(self, work: Work) -> Job:
        """Start a job, or let it wait.

        Raises:
            Refusal: too many wait already, or the server ends.
        """
        if self._stopping:
            raise shutting_down()
        if self.running == self.slots and self.waiting >= self.queue:
            message = f"{self.waiting} requests wait already; try again later"
            raise Refusal(429, message, code="queue_full")
        job = Job(work)
        self._waiting.append(job)
        self._start()
        return job

    def cancel(self, job: Job) -> None:
        """End a job early; nothing happens if it has ended."""
        if job in self._running:
            job.cancelled = True  # its thread will see it
        elif job in self._waiting:
            job.cancelled = True
            self._waiting.remove(job)
            job.put(None)

    def stop(self) -> None:
        """Cancel everything and take nothing more."""
        self._stopping = True
        for job in [*self._waiting, *self._running]:
            self.cancel(job)

    async def close(self) -> None:
        """Stop, and wait until all threads have ended."""
        self.stop()
        await asyncio.to_thread(self._executor.shutdown)
        for hook in self._hooks:
            hook.remove()

    def _start(self) -> None:
        """Give free slots to those that wait longest."""
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

    def _finish(self, job: Job, future: asyncio.Future[None]) -> None:
        self._running.discard(job)
        error = future.exception()
        if error is not None and not isinstance(error, Interrupted):
            job.failed = True
            logger.error("generation failed", exc_info=error)
        self._start()
        job.put(None)

    def _generate(self, job: Job, indices: list[int], put: Callable[[Event], object]) -> None:
        """What a slot's thread does for a job."""
        self._thread.job = job
        for event in stream(
            self.speaker.runner,
            job.work.prompts,
            job.work.sampling,
            eos_ids=self.speaker.eos_ids,
            decode=self.speaker.tokenizer.decode,
            continue_text=job.work.continue_text,
            indices=indices,
        ):
            put(event)
            if job.cancelled:
                return

    def _look(self, *_: object) -> None:
        """Before a module: leave the pass if nobody waits for it."""
        job: Job | None = getattr(self._thread, "job", None)
        if job is not None and job.cancelled:
            raise Interrupted
