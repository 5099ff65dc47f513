"""Work under way: wait for it, await it, watch it, stop it.

Stage: between the session and whoever called. Comes in: a coroutine on the portal's loop. Goes out: a
`ResultSet`, and meanwhile the numbers of its progress. Must not: draw by itself; it shows where it stands
when it is asked.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Coroutine, Generator, Iterator
from typing import Any

from nbimg.calls.progress import Fold
from nbimg.concurrency import loops
from nbimg.concurrency.portal import Portal
from nbimg.display import words
from nbimg.display.progress import render_html, render_text
from nbimg.events import Event, Listener, Preview
from nbimg.results import ResultSet
from nbimg.types import Status

__all__ = ["Job"]

#: How long Stop waits for what has finished, in seconds.
GRACE_S = 5.0
#: How many events a job remembers.
EVENTS = 1000

Work = Callable[[Callable[[Event], None], asyncio.Event], Coroutine[Any, Any, ResultSet]]
Tick = Callable[[], None]


class Job:
    """A batch under way.

    Args:
        job_id: Its name in the journal.
        portal: Where it runs.
        work: Takes a listener and a stop event, returns the results.
        about: What it makes, as a short text: its first prompt.

    Attributes:
        id: Its name in the journal.
        about: What it makes.
        begun_utc: Unix time at which it was started.
        batches: The batches that it takes up; empty for one that is its own.
        events: The last thousand things that have happened, pictures on the way left out.
    """

    def __init__(self, job_id: str, portal: Portal, work: Work, *, about: str = "") -> None:
        self.id = job_id
        self.about = words.shorten(about, 80)
        self.begun_utc = time.time()
        self.batches: set[str] = set()
        self.events: deque[Event] = deque(maxlen=EVENTS)
        self._listeners: list[Listener] = []
        self._hearing = threading.Lock()
        self._fold = Fold()
        self._portal = portal
        self._pid = os.getpid()
        self._home = loops.running()
        self._loop = portal.loop()
        self._stop = asyncio.Event()
        self._stopping = False
        self._waiting: set[object] = set()  # who waits for it, or awaits it
        self._future = portal.submit(work, self._hear, self._stop)

    def _hear(self, event: Event) -> None:
        """Take in what has happened; called in the engine's thread."""
        self._fold.add(event)
        with self._hearing:
            if not isinstance(event, Preview):  # a thousand would be the largest thing around
                self.events.append(event)
            for listener in self._listeners:
                listener(event)

    def listen(self, listener: Listener) -> None:
        """Have `listener` told what happens, pictures on the way too; first what is remembered of it.

        It is called in the engine's thread and must return at once.
        """
        with self._hearing:
            for event in self.events:
                listener(event)
            self._listeners.append(listener)

    @property
    def done(self) -> bool:
        """Whether it has ended."""
        return self._future.done()

    @property
    def progress(self) -> Fold:
        """The numbers of this moment: `total`, `done`, `images`, `cost_usd`, `left_s(now)` and more."""
        return self._fold.copy()

    @property
    def status(self) -> str:
        """Where it stands: `running`, `stopping`, `stopped`, `done` or `failed`."""
        if not self._future.done():
            return "stopping" if self._stopping else "running"
        if self._future.cancelled():
            return "stopped"
        if self._future.exception() is not None:
            return "failed"
        ends = {result.status for result in self._future.result()}
        lacking = Status.CANCELLED in ends or (self._stopping and ends - {Status.OK})
        return "stopped" if lacking else "done"

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
        if not self._future.done():
            self._stopping = True
            self._loop.call_soon_threadsafe(self._stop.set)

    def wait(self, tick: Tick | None = None) -> ResultSet:
        """Block until it has ended; Stop cancels it, keeps what has finished, and passes through.

        Args:
            tick: Called in this thread about ten times a second, and once at the end.

        Raises:
            KeyboardInterrupt: After the work was stopped; `results` holds what has finished.
            NbimgError: When it could not begin, or where it would wait for itself.
        """
        if not self._future.done():
            self._refuse()
        try:
            with self._waits():
                loops.block(self._future, tick, home=self._home)
        except BaseException:
            self.cancel()
            loops.block(self._future, home=self._home, timeout_s=GRACE_S)
            raise
        return self._future.result()

    def _refuse(self) -> None:
        """Raise where nobody would ever wake who waits."""
        self._portal.refuse_inside()
        if self._pid != os.getpid():
            raise RuntimeError(f"job {self.id} runs in the process that began it, not in its fork")

    async def attend(self, tick: Tick) -> ResultSet:
        """Wait for it in a running loop, whose other tasks go on; Stop is `wait`'s.

        Args:
            tick: Called in the loop's thread about ten times a second, and once at the end.

        Raises:
            CancelledError: After the work was stopped; `results` holds what has finished.
            NbimgError: When it could not begin.
        """
        ended = self._ended()
        try:
            # looks up often: ipykernel hands Stop on when the loop next wakes, and not before
            with self._waits():
                while not ended.done():
                    await asyncio.wait({ended}, timeout=loops.TICK_S)
                    tick()
        except BaseException:
            self.cancel()
            await asyncio.wait({ended}, timeout=GRACE_S)
            raise
        tick()
        return ended.result()

    def __await__(self) -> Generator[Any, None, ResultSet]:
        return self._awaited().__await__()

    async def _awaited(self) -> ResultSet:
        ended = self._ended()
        try:
            with self._waits():
                return await asyncio.shield(ended)  # a wait that is given up must not tear the work
        except asyncio.CancelledError:
            if not self._waiting:  # nobody wants it any longer
                self.cancel()
            raise

    @contextlib.contextmanager
    def _waits(self) -> Iterator[None]:
        """Count among those who want the results; they are of any thread and loop."""
        one = object()
        self._waiting.add(one)
        try:
            yield
        finally:
            self._waiting.discard(one)

    def _ended(self) -> asyncio.Future[ResultSet]:
        """Return a future of the running loop; whoever gives it up need not hear how it ends."""
        ended = asyncio.wrap_future(self._future)
        ended.add_done_callback(lambda done: done.cancelled() or done.exception())
        return ended

    # ------------------------------------------------------------ how it shows itself

    def _head(self) -> str:
        return f"job {self.id} · {self.status}"

    def __repr__(self) -> str:
        line = render_text(self.progress, time.time())
        about = f" · {self.about}" if self.about else ""
        return f"<nbimg {self._head()} · {line}{about}>"

    def _repr_mimebundle_(self, **_: Any) -> dict[str, str]:
        """Return a line with where it stands now; it does not change by itself."""
        html = render_html(self.progress, time.time(), head=self._head(), about=self.about)
        return {"text/plain": repr(self), "text/html": html}
