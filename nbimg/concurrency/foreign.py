"""Semaphores of others, for the engine's loop: those of asyncio are another loop's, those of threads block.

Stage: between what the user passes and the engine. Comes in: a name or any semaphore. Goes out: something
for `async with`. Must not: block a loop, or wait on a loop that stands still because a cell waits for us.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import weakref
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import Any

from nbimg.concurrency.semaphore import Semaphore, get_semaphore
from nbimg.errors import OptionError

__all__ = ["Adapted", "adapt"]

#: Seconds between two looks at a semaphore that is not ours; the longest is reached soon.
NAP_S, LONGEST_NAP_S = 0.002, 0.05

#: A loop that has not done a thing asked of it for so long stands still, in seconds.
STILL_S = 0.1


class Adapted(AbstractAsyncContextManager[Any]):
    """A semaphore of somebody else: each permit is asked for and given back in its own way."""

    async def __aenter__(self) -> None:
        nap = NAP_S
        while not await self.take():
            await asyncio.sleep(nap)
            nap = min(2 * nap, LONGEST_NAP_S)

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.release()

    async def take(self) -> bool:
        """Take a permit if one is free; whether it was."""
        raise NotImplementedError

    async def release(self) -> None:
        """Give one back."""
        raise NotImplementedError


#: A semaphore of asyncio → how many of its permits are held by calls of ours.
_ours: weakref.WeakKeyDictionary[asyncio.Semaphore, int] = weakref.WeakKeyDictionary()


def _count(semaphore: asyncio.Semaphore, more: int) -> None:
    _ours[semaphore] = _ours.get(semaphore, 0) + more


class _OfThreads(Adapted):
    """One of `threading`."""

    def __init__(self, foreign: threading.Semaphore) -> None:
        self._foreign = foreign

    async def take(self) -> bool:
        return self._foreign.acquire(blocking=False)

    async def release(self) -> None:
        self._foreign.release()


class _OfLoop(Adapted):
    """One of `asyncio`, to be touched in the thread of its loop only.

    A blocking call stops the loop of its notebook. Nobody else can touch the semaphore then, so it is
    touched from here: to wait for that loop would be to wait for ourselves.
    """

    def __init__(self, foreign: asyncio.Semaphore) -> None:
        self._foreign = foreign
        self._adapted_in = _running_loop()

    def _home(self) -> asyncio.AbstractEventLoop | None:
        return getattr(self._foreign, "_loop", None) or self._adapted_in

    def check(self) -> None:
        """Refuse one whose permits are all held where nobody is left to give one back.

        Raises:
            OptionError: When its loop is closed, and none of them is held by a call of ours.
        """
        home = self._home()
        dead = home is not None and home.is_closed() and self._foreign.locked()
        if dead and not _ours.get(self._foreign):
            raise OptionError(
                "the event loop of the semaphore is closed, so nobody can give back what is held of it.",
                hint="Make a new one, or one by nbimg.register_semaphore(name, limit).",
            )

    async def take(self) -> bool:
        self.check()
        errand = self._ask(self._take)
        try:
            return await errand.over
        except BaseException:
            if errand.stop():  # taken while the waiter was cancelled
                await self.release()
            raise

    async def release(self) -> None:
        self._ask(self._release)  # not awaited: nothing may come between

    def _take(self) -> bool:
        if self._foreign.locked():
            return False
        taking = self._foreign.acquire()
        try:
            taking.send(None)  # a free one is taken without a wait
        except StopIteration:
            _count(self._foreign, 1)
            return True
        taking.close()
        return False

    def _release(self) -> bool:
        _count(self._foreign, -1)
        self._foreign.release()
        return True

    def _ask(self, step: Callable[[], bool]) -> _Errand:
        """Have a step done in the semaphore's loop, or here when that stands still."""
        errand = _Errand(step)
        home = self._home()
        if home is None or home is errand.here or not home.is_running():
            errand.run()
            return errand
        with contextlib.suppress(RuntimeError):  # closed in this moment
            home.call_soon_threadsafe(errand.run)
        errand.here.call_later(STILL_S, errand.run)
        return errand


class _Errand:
    """A step that is done once, by whoever comes first.

    Attributes:
        here: The loop that waits.
        over: What it waits on: the answer of the step.
    """

    def __init__(self, step: Callable[[], bool]) -> None:
        self.here = asyncio.get_running_loop()
        self.over: asyncio.Future[bool] = self.here.create_future()
        self._step = step
        self._lock = threading.Lock()
        self._done = False
        self._answer = False

    def run(self) -> None:
        """Do it, unless it was done or stopped."""
        with self._lock:
            if self._done:
                return
            self._done = True
            self._answer = self._step()
        with contextlib.suppress(RuntimeError):  # nobody is there any longer
            self.here.call_soon_threadsafe(self._tell)

    def stop(self) -> bool:
        """Do it no more; return the answer if it was done."""
        with self._lock:
            self._done = True
            return self._answer

    def _tell(self) -> None:
        if not self.over.done():
            self.over.set_result(self._answer)


def adapt(semaphore: Any) -> Semaphore | Adapted:
    """Return what the engine can hold by `async with`.

    One of asyncio belongs to the loop that runs where this is called, unless it already has another.

    Args:
        semaphore: A name, one of nbimg's, or one of `asyncio` or `threading`.

    Raises:
        OptionError: When it is nothing of that, or waiting for it would never end.
        UnknownNameError: When there is no semaphore of that name.
    """
    match semaphore:
        case str():
            return get_semaphore(semaphore)
        case Semaphore() | Adapted():
            return semaphore
        case asyncio.Semaphore():
            adapted = _OfLoop(semaphore)
            adapted.check()
            return adapted
        case threading.Semaphore():
            return _OfThreads(semaphore)
    raise OptionError(
        f"semaphore = {type(semaphore).__name__} is not a semaphore.",
        hint="It is a registered name, or a semaphore of nbimg, asyncio or threading.",
    )


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None
