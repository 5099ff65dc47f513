"""Many coroutines, one file: what gathers while a transaction runs goes into the next one.

Stage: between the journal and its file. Comes in: pieces of work. Goes out: futures that are done when the
work is on disk. One thread runs one transaction at a time; when it ends, one call into the loop settles all
its futures, those who waited go on and bring their next piece, and then the next transaction begins. Must
not: lose the work of a coroutine that is cancelled.
"""

from __future__ import annotations

import asyncio
import os
import queue
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from nbimg.store.database import Database, Outcome
from nbimg.store.schema import BUSY_S

if TYPE_CHECKING:
    import sqlite3

__all__ = ["Writer"]

T = TypeVar("T")


class _Write(NamedTuple):
    run: Callable[[sqlite3.Connection], Any]
    future: asyncio.Future[Any]


class Writer:
    """Writes to a database for any number of coroutines of any number of loops.

    Args:
        database: The file.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._begin_anew()

    def _begin_anew(self) -> None:
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._waiting: list[_Write] = []
        self._running = False
        self._called: asyncio.AbstractEventLoop | None = None  # it will call `_start` soon
        self._thread: threading.Thread | None = None
        self._groups: queue.SimpleQueue[list[_Write] | None] = queue.SimpleQueue()

    def do(self, run: Callable[[sqlite3.Connection], T]) -> asyncio.Future[T]:
        """Do a piece of work in the next transaction, whether or not anybody waits for it.

        Args:
            run: Takes the connection, in the writer's thread.

        Returns:
            What `run` returned, when it is on disk.

        Raises:
            StoreError: In the future, when it could not be written.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        if self._pid != os.getpid():  # a forked child: thread and waiting work are the parent's
            self._begin_anew()
        with self._lock:
            self._waiting.append(_Write(run, future))
            idle = not self._running and self._called is not loop
            if idle:
                self._called = loop
        if idle:  # the others of this turn of the loop come along
            loop.call_soon(self._start)
        return future

    def close(self) -> None:
        """Write what is waiting, end the thread and close the file."""
        if self._pid != os.getpid():
            return
        with self._lock:
            if self._waiting:
                self._hand_over()
            thread, self._thread = self._thread, None
            if thread is not None:
                self._groups.put(None)
                self._groups = queue.SimpleQueue()
        if thread is not None:
            thread.join(BUSY_S + 5)

    def _start(self) -> None:
        with self._lock:
            self._called = None
            if self._waiting and not self._running:
                self._hand_over()

    def _hand_over(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(
                target=self._work, args=(self._groups,), name="nbimg-journal", daemon=True
            )
            self._thread.start()
        self._running = True
        group, self._waiting = self._waiting, []
        self._groups.put(group)

    def _work(self, groups: queue.SimpleQueue[list[_Write] | None]) -> None:
        while (group := groups.get()) is not None:
            outcomes = self._database.transact([write.run for write in group])
            settled: dict[asyncio.AbstractEventLoop, list[tuple[_Write, Outcome]]] = {}
            for write, outcome in zip(group, outcomes, strict=True):
                settled.setdefault(write.future.get_loop(), []).append((write, outcome))
            with self._lock:
                self._running = False
                for write in self._waiting:  # of loops that have nothing in this group
                    settled.setdefault(write.future.get_loop(), [])
            for loop, mine in settled.items():
                try:
                    loop.call_soon_threadsafe(self._settle, loop, mine)
                except RuntimeError:  # the loop was closed: nobody waits any more
                    continue
        self._database.close()

    def _settle(
        self, loop: asyncio.AbstractEventLoop, settled: list[tuple[_Write, Outcome]]
    ) -> None:
        for (_, future), (value, error) in settled:
            if future.done():
                continue
            if error is None:
                future.set_result(value)
            else:
                future.set_exception(error)
        self._called = loop
        loop.call_soon(self._start)  # after those who waited
