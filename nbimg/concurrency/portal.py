"""The one loop thread of a kernel, and the doors into it.

Stage: below the session. Comes in: a coroutine function, from any thread and from inside any running
loop. Goes out: its result, or a future. Must not: run user code, or block the caller's loop.

A notebook's own loop is busy running the cell, so work that must go on while the cell blocks, and end
when Stop is pressed, needs a loop of its own. `asyncio.run` fails in a cell and nest-asyncio leaves the
work running after Stop; a loop thread does neither. The one case that needs more is in `loops`.
"""

from __future__ import annotations

import asyncio
import atexit
import concurrent.futures
import contextvars
import os
import threading
import weakref
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from nbimg.concurrency import loops
from nbimg.errors import NbimgError

__all__ = ["Portal"]

T = TypeVar("T")

#: How often what still runs is cancelled when the loop ends.
ROUNDS = 3


def _unlocker(portal: weakref.ref[Portal]) -> Callable[[], None]:
    """Return what gives a forked process a lock that no thread of its parent holds."""

    def unlock() -> None:
        if (own := portal()) is not None:
            own._lock = threading.Lock()  # noqa: SLF001  # its own module

    return unlock


class Portal:
    """A daemon thread with an event loop, started at first use and again after a fork."""

    def __init__(self, name: str = "nbimg") -> None:
        self._name = name
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._pid = 0
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=_unlocker(weakref.ref(self)))

    def loop(self) -> asyncio.AbstractEventLoop:
        """Return the running loop."""
        with self._lock:
            if self._loop is None or self._pid != os.getpid():
                loop = asyncio.new_event_loop()
                thread = threading.Thread(
                    target=self._run, args=(loop,), name=self._name, daemon=True
                )
                thread.start()
                self._loop, self._thread, self._pid = loop, thread, os.getpid()
                atexit.register(self.close)
            return self._loop

    def submit(
        self, function: Callable[..., Coroutine[Any, Any, T]], *args: Any
    ) -> concurrent.futures.Future[T]:
        """Start `function(*args)` on the loop; cancelling the future cancels the work.

        The work inherits the context of the caller, and in it which loop runs there.
        """
        context = contextvars.copy_context()
        if not self.inside:
            context.run(loops.CALLER.set, loops.running())
        loop = self.loop()
        return context.run(asyncio.run_coroutine_threadsafe, function(*args), loop)

    def call(self, function: Callable[..., Coroutine[Any, Any, T]], *args: Any) -> T:
        """Run `function(*args)` on the loop and wait for it; Stop cancels it and passes through.

        Raises:
            NbimgError: On the loop itself, which would wait for itself.
        """
        self.refuse_inside()
        future = self.submit(function, *args)
        try:
            loops.block(future)
            return future.result()
        finally:
            future.cancel()  # without effect once it is done

    @property
    def inside(self) -> bool:
        """Whether this is the thread of the loop, where nothing may block."""
        return self._thread is threading.current_thread()

    def refuse_inside(self) -> None:
        """Raise where waiting would wait for itself.

        Raises:
            NbimgError: On the loop's own thread.
        """
        if self.inside:
            raise NbimgError(
                "this runs on nbimg's own event loop, and would wait for itself.",
                hint="Await it there: await nbimg.agenerate(...), or await job.",
            )

    def close(self) -> None:
        """End the loop and its thread, cancelling what still runs."""
        with self._lock:
            loop, thread, own = self._loop, self._thread, self._pid == os.getpid()
            self._loop = self._thread = None
        atexit.unregister(self.close)
        if loop is None or thread is None or not own:
            return
        loop.call_soon_threadsafe(loop.stop)
        if thread is not threading.current_thread():
            thread.join(timeout=5)

    @staticmethod
    def _run(loop: asyncio.AbstractEventLoop) -> None:
        asyncio.set_event_loop(loop)
        try:
            loop.run_forever()
        finally:
            for _ in range(ROUNDS):  # what is cancelled may leave a task to clean up after it
                pending = asyncio.all_tasks(loop)
                for task in pending:
                    task.cancel()
                loop.run_until_complete(asyncio.gather(*pending, return_exceptions=True))
            loop.run_until_complete(loop.shutdown_asyncgens())
            loop.close()
