"""The journal: what was sent and may be paid for, on disk before anything waits for it.

Stage: below the engine. Comes in: an intent before each create, the job id after it, the outcome at the
end. Goes out: what a dead kernel left behind. Must not: talk to a provider.

All writes go through one thread that puts whatever has gathered meanwhile into one transaction, so that
a thousand tasks do not wait for a thousand flushes of the disk. A write is on disk when its `await`
returns (`synchronous=FULL`).
"""

from __future__ import annotations

import asyncio
import json
import os
import queue
import socket
import sqlite3
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from nbimg.errors import StoreWriteError
from nbimg.types import ModelRef, Request, Result

__all__ = ["Journal", "Left"]

T = TypeVar("T")

_SCHEMA = """
CREATE TABLE IF NOT EXISTS batch (
    id TEXT PRIMARY KEY, at_utc REAL NOT NULL, host TEXT NOT NULL, pid INTEGER NOT NULL,
    state TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS task (
    batch TEXT NOT NULL REFERENCES batch(id), task INTEGER NOT NULL, request TEXT NOT NULL,
    result TEXT, PRIMARY KEY (batch, task)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS call (
    id INTEGER PRIMARY KEY, batch TEXT NOT NULL REFERENCES batch(id), task INTEGER NOT NULL,
    variant INTEGER NOT NULL, provider TEXT NOT NULL, model TEXT NOT NULL, seed INTEGER,
    state TEXT NOT NULL, job_id TEXT, at_utc REAL NOT NULL
);
CREATE INDEX IF NOT EXISTS open_calls ON call(state) WHERE state IN ('intended', 'submitted');
PRAGMA user_version = 1;
"""


@dataclass(frozen=True, slots=True)
class Left:
    """A call that was begun and never settled.

    Attributes:
        batch: Id of its batch.
        task: Index of its task.
        variant: 0-based number of the call in its task.
        provider: Name of the backend.
        model: The provider's model id.
        job_id: The provider's id; None when the create's answer never arrived.
        state: `intended` or `submitted`.
    """

    batch: str
    task: int
    variant: int
    provider: str
    model: str
    job_id: str | None
    state: str


@dataclass(slots=True)
class _Write:
    run: Callable[[sqlite3.Connection], Any]
    loop: asyncio.AbstractEventLoop
    future: asyncio.Future[Any]


class Journal:
    """The journal of one output folder; several kernels may have it open.

    Args:
        path: The database file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._queue: queue.SimpleQueue[_Write | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()

    async def begin(self, batch: str, requests: Mapping[int, Request]) -> None:
        """Write down a batch and its tasks, index → request, before any is sent."""
        rows = [(batch, index, json.dumps(r.to_dict())) for index, r in requests.items()]

        def write(db: sqlite3.Connection) -> None:
            db.execute(
                "INSERT INTO batch VALUES (?, ?, ?, ?, 'open')",
                (batch, time.time(), socket.gethostname(), os.getpid()),
            )
            db.executemany("INSERT INTO task (batch, task, request) VALUES (?, ?, ?)", rows)

        await self._do(write)

    async def intend(
        self, batch: str, task: int, variant: int, ref: ModelRef, seed: int | None
    ) -> int:
        """Write down that a job is about to be created; return the number of the call."""
        row = (batch, task, variant, ref.provider, ref.model, seed, time.time())

        def write(db: sqlite3.Connection) -> int:
            cursor = db.execute(
                "INSERT INTO call (batch, task, variant, provider, model, seed, state, at_utc) "
                "VALUES (?, ?, ?, ?, ?, ?, 'intended', ?)",
                row,
            )
            assert cursor.lastrowid is not None
            return cursor.lastrowid

        return await self._do(write)

    async def submitted(self, call: int, job_id: str) -> None:
        """Write down the provider's id of a job, before anything waits for it."""
        await self._do(
            lambda db: db.execute(
                "UPDATE call SET state = 'submitted', job_id = ? WHERE id = ?", (job_id, call)
            )
        )

    async def settled(self, call: int, state: str) -> None:
        """Write down how a call ended: `done`, `failed`, `cancelled` or `unknown`."""
        await self._do(
            lambda db: db.execute("UPDATE call SET state = ? WHERE id = ?", (state, call))
        )

    async def finished(self, batch: str, result: Result) -> None:
        """Write down what became of a task."""
        row = (json.dumps(result.to_dict()), batch, result.index)
        await self._do(
            lambda db: db.execute("UPDATE task SET result = ? WHERE batch = ? AND task = ?", row)
        )

    async def end(self, batch: str, state: str) -> None:
        """Write down how a batch ended: `done` or `cancelled`."""
        await self._do(
            lambda db: db.execute("UPDATE batch SET state = ? WHERE id = ?", (state, batch))
        )

    async def left(self) -> tuple[Left, ...]:
        """Return the calls that were never settled, oldest first."""

        def read(db: sqlite3.Connection) -> tuple[Left, ...]:
            rows = db.execute(
                "SELECT batch, task, variant, provider, model, job_id, state FROM call "
                "WHERE state IN ('intended', 'submitted') ORDER BY id"
            )
            return tuple(Left(*row) for row in rows)

        return await self._do(read)

    def close(self) -> None:
        """Write what is waiting and close the file."""
        with self._lock:
            thread, self._thread = self._thread, None
        if thread is not None:
            self._queue.put(None)
            thread.join(timeout=10)

    async def _do(self, run: Callable[[sqlite3.Connection], T]) -> T:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(
                    target=self._work, name="nbimg-journal", daemon=True
                )
                self._thread.start()
            self._queue.put(_Write(run, loop, future))
        return await future

    def _work(self) -> None:
        db: sqlite3.Connection | None = None
        while (first := self._queue.get()) is not None:
            writes, stop = [first], False
            while not self._queue.empty():
                following = self._queue.get()
                if following is None:
                    stop = True
                    break
                writes.append(following)
            try:
                db = db or self._open()
                outcomes = self._outcomes(db, writes)
            except Exception as error:  # whatever it is, those who wait must hear of it
                outcomes = [(False, self._failure(error))] * len(writes)
            for write, (good, value) in zip(writes, outcomes, strict=True):
                _settle(write, good, value)
            if stop:
                break
        if db is not None:
            db.close()

    def _open(self) -> sqlite3.Connection:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        db = sqlite3.connect(self._path, timeout=30, isolation_level=None)
        try:
            db.execute("PRAGMA journal_mode = WAL")
            db.execute("PRAGMA synchronous = FULL")
            db.executescript(_SCHEMA)
        except BaseException:
            db.close()
            raise
        return db

    def _outcomes(self, db: sqlite3.Connection, writes: Sequence[_Write]) -> list[tuple[bool, Any]]:
        """One transaction for all; when that fails one for each, so that one costs no other."""
        try:
            return [(True, value) for value in self._transaction(db, writes)]
        except Exception as error:
            if len(writes) == 1:
                return [(False, self._failure(error))]
        return [outcome for write in writes for outcome in self._outcomes(db, [write])]

    def _failure(self, error: Exception) -> StoreWriteError:
        failure = StoreWriteError(
            f"the journal {self._path} cannot be written: {error}.",
            hint="Free some room, or choose another folder: %config NbImg.output_dir = '…'",
        )
        failure.__cause__ = error
        return failure

    @staticmethod
    def _transaction(db: sqlite3.Connection, writes: Sequence[_Write]) -> list[Any]:
        db.execute("BEGIN IMMEDIATE")
        try:
            values = [write.run(db) for write in writes]
            db.execute("COMMIT")
        except BaseException:
            if db.in_transaction:
                db.execute("ROLLBACK")
            raise
        return values


def _settle(write: _Write, good: bool, value: Any) -> None:
    def set_outcome() -> None:
        if write.future.done():
            return
        if good:
            write.future.set_result(value)
        else:
            write.future.set_exception(value)

    try:
        write.loop.call_soon_threadsafe(set_outcome)
    except RuntimeError:  # the loop was closed: nobody waits any more
        return
