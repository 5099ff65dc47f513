"""Waiting across event loops: the one place where a thread blocks, and where a loop runs nested.

Stage: below the portal. Comes in: a future of another thread, or a coroutine that belongs to another
loop. Goes out: when it is done. Must not: know what is waited for.

A thread that blocks while a loop runs in it stops that loop, which is what a cell does and harms nobody,
but for one case: the work that is waited for needs that very loop, because a backend's client was made on
it. Then, and only then, the loop is run nested (nest-asyncio2). Stop does not raise there: it would be
raised inside whatever task happens to run. It ends the nested run, and is raised by whoever waits.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import inspect
import math
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator
from contextvars import ContextVar
from typing import Any, TypeVar

from nbimg.errors import BackendError, NbimgError

__all__ = ["CALLER", "block", "run_on", "running"]

T = TypeVar("T")
Tick = Callable[[], None]

#: How often a waiting thread looks up to draw and to let Stop through, in seconds.
TICK_S = 0.1
#: How often it is looked whether another loop is still there, in seconds.
LOOK_S = 1.0

#: The loop that ran in the thread where the work was submitted; the work inherits it.
CALLER: ContextVar[asyncio.AbstractEventLoop | None] = ContextVar("nbimg_caller", default=None)

_wanted: Counter[int] = Counter()  # id of a loop → coroutines that wait for it to run
_counting = threading.Lock()


def running() -> asyncio.AbstractEventLoop | None:
    """Return the loop that runs in this thread, if any."""
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


async def run_on(loop: asyncio.AbstractEventLoop, coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine on a loop of another thread and await it on this one.

    A cancellation passes through, whichever side it comes from.

    Raises:
        BackendError: When that loop is closed, before or meanwhile.
    """
    if loop is running():
        return await coroutine
    try:
        future = asyncio.run_coroutine_threadsafe(coroutine, loop)
    except RuntimeError:
        coroutine.close()
        raise _closed() from None
    ended = asyncio.wrap_future(future)
    with _wanting(loop):
        try:
            while not ended.done():
                await asyncio.wait({ended}, timeout=LOOK_S)
                if not ended.done() and loop.is_closed():
                    raise _closed()
        finally:
            ended.cancel()  # without effect once it is done
            if loop.is_closed() and inspect.getcoroutinestate(coroutine) == inspect.CORO_CREATED:
                coroutine.close()
    return ended.result()


def _closed() -> BackendError:
    return BackendError("the event loop that this backend belongs to is closed.")


@contextlib.contextmanager
def _wanting(loop: asyncio.AbstractEventLoop) -> Iterator[None]:
    with _counting:
        _wanted[id(loop)] += 1
    try:
        yield
    finally:
        with _counting:
            _wanted[id(loop)] -= 1
            if not _wanted[id(loop)]:
                del _wanted[id(loop)]


def block(
    future: concurrent.futures.Future[Any],
    tick: Tick | None = None,
    *,
    home: asyncio.AbstractEventLoop | None = None,
    timeout_s: float | None = None,
) -> None:
    """Block this thread until a future is done.

    Args:
        future: Of another thread.
        tick: Called in this thread about ten times a second, and once at the end.
        home: The loop that the work may need; it is run here where nobody else runs it.
        timeout_s: Return then at the latest.

    Raises:
        KeyboardInterrupt: On Stop.
        NbimgError: When the loop of this thread is needed and cannot run nested.
    """
    loop = running() or home
    until = math.inf if timeout_s is None else time.monotonic() + timeout_s
    while not future.done() and time.monotonic() < until:
        if loop is not None and _wanted[id(loop)] and _ours(loop):
            _run_here(loop, future, tick, until)
            continue
        concurrent.futures.wait([future], timeout=min(TICK_S, max(0.0, until - time.monotonic())))
        if tick is not None:
            tick()
    if tick is not None:
        tick()


def _ours(loop: asyncio.AbstractEventLoop) -> bool:
    """Whether this thread may run a loop: it does already, or nobody does."""
    return loop is running() or not (loop.is_running() or loop.is_closed())


def _run_here(
    loop: asyncio.AbstractEventLoop,
    future: concurrent.futures.Future[Any],
    tick: Tick | None,
    until: float,
) -> None:
    """Run a loop in this thread until the future is done; Stop ends it and harms no other task."""
    if loop.is_running():
        _make_reentrant(loop)
    stopped = threading.Event()

    async def watch() -> None:
        ended = asyncio.wrap_future(future)
        ended.add_done_callback(lambda done: done.cancelled() or done.exception())  # is heard
        while not ended.done() and not stopped.is_set():
            await asyncio.wait({ended}, timeout=TICK_S)
            if tick is not None:
                tick()
            if time.monotonic() > until:
                return

    with _heeding(stopped):
        loop.run_until_complete(watch())
    if stopped.is_set():
        raise KeyboardInterrupt


def _make_reentrant(loop: asyncio.AbstractEventLoop) -> None:
    if not isinstance(loop, asyncio.BaseEventLoop):  # uvloop's: asked before anything is patched
        kind = f"{type(loop).__module__}.{type(loop).__name__}"
        raise NbimgError(
            f"this backend needs the loop that waits for it, and a {kind} cannot run nested.",
            hint="Await it instead: await nbimg.agenerate(...), or await job.",
        )
    import nest_asyncio2

    nest_asyncio2.apply(loop)


@contextlib.contextmanager
def _heeding(stopped: threading.Event) -> Iterator[None]:
    """Note Stop instead of raising it, where this thread is the one that gets it."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, lambda *_: stopped.set())
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before or signal.default_int_handler)
