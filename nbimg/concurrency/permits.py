"""Permits: at most so many are held at once, by threads, by tasks of any loop, by kernels of any machine.

Stage: below the named semaphores. Comes in: a limit. Goes out: something for `with` and `async with`.
Must not: know who else has a semaphore, or what it is for.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import threading
import time
import weakref
from collections import OrderedDict
from types import TracebackType
from typing import Final, Self

from nbimg.concurrency.leases import Leases, is_server, shown
from nbimg.concurrency.slots import Slots, nap_s
from nbimg.errors import SettingError

__all__ = ["SCOPES", "Semaphore", "check"]

log = logging.getLogger("nbimg")

#: After so long at most a thread that waits sees that it was interrupted, in seconds.
STOP_S = 0.5

SCOPES: Final = ("kernel", "host")


class _Entry:
    """One who wants a permit, or has it; as it is, one who need not wait.

    Attributes:
        given: Whether it holds a permit.
    """

    __slots__ = ("given",)

    def __init__(self, *, given: bool = False) -> None:
        self.given = given

    def prepare(self) -> None:
        """Make what is waited on."""

    def wake(self) -> bool:
        """Let it go on; again has no effect. False: nobody is there any longer."""
        return True


class _Thread(_Entry):
    """A thread that waits: for a plain lock, as Stop may tear an `Event` in two."""

    __slots__ = ("shut",)

    def prepare(self) -> None:
        self.shut = threading.Lock()
        self.shut.acquire()

    def wait(self) -> None:
        """Wait until it is given a permit."""
        while not self.given:
            # in slices: where a signal wakes no wait, Stop is seen between two
            self.shut.acquire(timeout=STOP_S)

    def wake(self) -> bool:
        if self.shut.locked():
            self.shut.release()
        return True


class _Task(_Entry):
    """A task that waits, on whatever loop."""

    __slots__ = ("future", "loop", "thread")

    def prepare(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.thread = threading.get_ident()
        self.future: asyncio.Future[None] = self.loop.create_future()

    def wake(self) -> bool:
        if self.loop.is_closed():
            return False
        if self.thread == threading.get_ident():
            self._set()
            return True
        try:
            self.loop.call_soon_threadsafe(self._set)
        except RuntimeError:  # closed in this moment
            return False
        return True

    def _set(self) -> None:
        if not self.future.done():
            self.future.set_result(None)


class Semaphore:
    """At most `limit` permits are held at once; first come, first served.

    `with` in threads, `async with` in coroutines, of any loop; a `with` blocks its thread. Who is cancelled
    or interrupted while waiting takes none with it. A forked child starts with all permits free.

    Args:
        name: Under which it is registered.
        limit: From 1.
        scope: `kernel`; `host`: all kernels of this user on this machine share the permits, and those of
            a kernel that died come back at once; `redis://…`: all kernels that reach the server share
            them, and those of one that died come back after 15 seconds.

    Attributes:
        registered: The limit that the user gave it; None: the limit is nbimg's own.

    Raises:
        SettingError: When the limit or the scope means nothing, or what it needs is not there.
        DependencyMissingError: When the scope needs a package that is not installed.
    """

    # Stop may come between any two calls in the main thread: every change of a count is one
    # statement without a call, and all that follows it may be done twice.

    def __init__(self, name: str, limit: int, scope: str = "kernel") -> None:
        check(name, limit, scope)
        self.name = name
        self.registered: int | None = None
        self._limit = limit
        self._held = 0
        self._waiting: OrderedDict[_Entry, None] = OrderedDict()
        self._slots: Slots | Leases | None = None
        self._looker: threading.Thread | None = None
        self._lock = threading.RLock()
        self._scope = "kernel"
        self.scope = scope
        _all.add(self)

    @property
    def limit(self) -> int:
        """How many may be held at once; it may be changed at any time."""
        return self._limit

    @limit.setter
    def limit(self, limit: int) -> None:
        check(self.name, limit)
        with self._lock:
            self._limit = limit
            self._give()

    @property
    def scope(self) -> str:
        """With whom the permits are shared."""
        return shown(self._scope) if is_server(self._scope) else self._scope

    @scope.setter
    def scope(self, scope: str) -> None:
        check(self.name, self.limit, scope)
        if scope == self._scope:
            return
        slots = self._shared(scope)
        with self._lock:
            left, self._slots, self._scope = self._slots, slots, scope
            if left is not None:
                left.trim(0)
                left.rest()
            self._give()

    def _shared(self, scope: str) -> Slots | Leases | None:
        """What keeps the permits that others share."""
        if is_server(scope):
            return Leases(self.name, scope, self._more)
        return Slots(self.name) if scope == "host" else None

    def _more(self) -> None:
        """Permits have come from another kernel, or another machine."""
        with self._lock:
            self._give()

    @property
    def held(self) -> int:
        """How many permits this kernel holds."""
        return self._held

    @property
    def waiting(self) -> int:
        """How many wait for one in this kernel."""
        return len(self._waiting)

    def __repr__(self) -> str:
        return (
            f"<Semaphore {self.name!r}: {self.held} of {self.limit} held, "
            f"{self.waiting} waiting, {self.scope}>"
        )

    def __enter__(self) -> Self:
        entry = _Thread()
        try:
            if not self._ask(entry):
                entry.wait()
        except BaseException:
            self._leave(entry)
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._leave(_Entry(given=True))

    async def __aenter__(self) -> Self:
        entry = _Task()
        try:
            if not self._ask(entry):
                await entry.future
        except BaseException:
            self._leave(entry)
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._leave(_Entry(given=True))

    def _ask(self, entry: _Entry) -> bool:
        """Take a permit or a place in the queue; whether there is nothing to wait for."""
        with self._lock:
            if self._slots is None and self._held < self._limit:  # then nobody waits
                self._held += 1
                entry.given = True
                return True
            entry.prepare()
            self._waiting[entry] = None
            self._give()
            return entry.given

    def _leave(self, entry: _Entry) -> None:
        """Give back what it has, and its place in the queue."""
        try:
            self._drop(entry)
        except BaseException:  # Stop, in the middle of it
            self._drop(entry)
            raise

    def _drop(self, entry: _Entry) -> None:
        with self._lock:
            if entry.given:
                entry.given = False
                if self._held:  # a forked child may leave what its parent entered
                    self._held -= 1
            self._waiting.pop(entry, None)
            if self._slots is not None:
                self._slots.trim(self._held)  # to whoever has the turn, not to the next one here
            if self._waiting or self._slots is not None:
                self._give()

    def _give(self) -> None:
        """Give what is free to those who wait, in order."""
        while self._waiting and self._held < self._limit:
            entry = next(iter(self._waiting))
            if not entry.given and not self._filled():
                self._look_again()
                return
            if not entry.given:
                self._held += 1
                entry.given = True
            if not entry.wake():
                self._held -= entry.given
                entry.given = False
            self._waiting.pop(entry, None)
        if self._slots is not None:
            self._slots.trim(self._held)
            self._slots.rest()

    def _filled(self) -> bool:
        """Whether one more may be held as far as other kernels go."""
        try:
            return self._slots is None or self._slots.fill(self._held + 1, self._limit)
        except SettingError as error:  # it was well when it was set up: wait until it is again
            log.warning("semaphore %s: %s", self.name, error)
            return False

    def _look_again(self) -> None:
        """Others hold the rest: one thread looks until those who wait here are served."""
        if self._looker is None and isinstance(self._slots, Slots):  # leases say when they come
            looker = threading.Thread(target=self._look, name=f"nbimg {self.name}", daemon=True)
            with contextlib.suppress(RuntimeError):  # the interpreter ends
                looker.start()
                self._looker = looker

    def _look(self) -> None:
        while True:
            time.sleep(nap_s())
            with self._lock:
                self._give()
                if not self._waiting or self._slots is None or self._held >= self._limit:
                    self._looker = None
                    return

    def _forget(self) -> None:
        """In a forked child, only the thread that forked is there."""
        self._lock = threading.RLock()
        self._held, self._looker = 0, None
        self._waiting.clear()
        if self._slots is not None:
            self._slots.forget()


def check(name: str, limit: int, scope: str = SCOPES[0]) -> None:
    """Refuse what a semaphore cannot be.

    Raises:
        SettingError: When the limit is no whole number from 1, or there is no such scope.
    """
    if not isinstance(limit, int) or isinstance(limit, bool) or limit < 1:
        raise SettingError(f"limit {limit!r} of semaphore {name!r} is not a whole number from 1.")
    if scope not in SCOPES and not is_server(scope):
        raise SettingError(
            f"scope {scope!r} of semaphore {name!r} is not one of {', '.join(SCOPES)}, redis://HOST."
        )


_all: weakref.WeakSet[Semaphore] = weakref.WeakSet()


def _after_fork() -> None:
    for semaphore in _all:
        semaphore._forget()  # noqa: SLF001  # of this module


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
