"""Work under way: wait for it, await it, watch it, stop it.

Stage: between the session and whoever called. Comes in: a coroutine on the portal's loop. Goes out: a
`ResultSet`. Must not: draw; events are queued for the thread that does.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import queue
from collections.abc import Callable, Coroutine, Generator
from typing import Any

from nbimg.events import Event
from nbimg.portal import Portal
from nbimg.results import ResultSet

__all__ = ["Job"]

#: How often the waiting thread looks up to draw and to let Stop through, in seconds.
TICK_S = 0.1
#: How long Stop waits for what has finished, in seconds.
GRACE_S = 5.0

Work = Callable[[Callable[[Event], None], asyncio.Event], Coroutine[Any, Any, ResultSet]]


class Job:
    """A batch under way.

    Args:
        job_id: Its name in the journal.
        portal: Where it runs.
        work: Takes a listener and a stop event, returns the results.

    Attributes:
        id: Its name in the journal.
        events: What has happened and was not read yet.
    """

    def __init__(self, job_id: str, portal: Portal, work: Work) -> None:
        self.id = job_id
        self.events: queue.SimpleQueue[Event] = queue.SimpleQueue()
        self._loop = portal.loop()
        self._stop = asyncio.Event()
        self._future = portal.submit(work, self.events.put, self._stop)

    @property
    def done(self) -> bool:
        """Whether it has ended."""
        return self._future.done()

    @property
    def results(self) -> ResultSet:
        """What it made.

        Raises:
            RuntimeError: While it runs.
            NbimgError: When it could not begin.
        """
        if not self._future.done():
            raise RuntimeError(f"job {self.id} still runs: job.wait(), or await job")
        return self._future.result()

    def cancel(self) -> None:
        """Stop it, here and at the provider; what has finished is kept."""
        self._loop.call_soon_threadsafe(self._stop.set)

    def wait(self, tick: Callable[[], None] | None = None) -> ResultSet:
        """Block until it has ended; Stop cancels it, keeps what has finished, and passes through.

        Args:
            tick: Called in this thread about ten times a second, and once at the end.

        Raises:
            KeyboardInterrupt: After the work was stopped; `results` holds what has finished.
            NbimgError: When it could not begin.
        """
        try:
            self._block(tick)
        except BaseException:
            self.cancel()
            concurrent.futures.wait([self._future], timeout=GRACE_S)
            raise
        return self._future.result()

    def _block(self, tick: Callable[[], None] | None) -> None:
        while not self._future.done():
            concurrent.futures.wait([self._future], timeout=TICK_S)
            if tick is not None:
                tick()
        if tick is not None:
            tick()

    def __await__(self) -> Generator[Any, None, ResultSet]:
        return self._awaited().__await__()

    async def _awaited(self) -> ResultSet:
        ended = asyncio.wrap_future(self._future)
        try:
            return await asyncio.shield(ended)  # a wait that is given up must not tear the work
        except asyncio.CancelledError:
            ended.add_done_callback(lambda done: done.cancelled() or done.exception())  # is heard
            self.cancel()
            raise

    def __repr__(self) -> str:
        return f"<nbimg job {self.id}: {'done' if self.done else 'running'}>"
