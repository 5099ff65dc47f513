"""The journal: what was sent and may be paid for, on disk before anything waits for it.

Stage: below the engine. Comes in: an intent before each create, the job id after it, the outcome at the
end. Goes out: what a dead kernel left behind, and what was made before. Must not: talk to a provider.

A write is on disk when its `await` returns. Several kernels may have the same journal open; each batch has
one owner, and what a dead owner leaves is taken over by exactly one.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from nbimg.backends.base import Call
from nbimg.errors import StoreWriteError
from nbimg.store.database import Database, read
from nbimg.store.left import Left, left, owners, remainders
from nbimg.store.owner import PATIENCE_S, Owner, alive
from nbimg.store.rows import Claimed, ClaimedTask, Form, Row, SentCall
from nbimg.store.schema import SPAN
from nbimg.store.writer import Writer
from nbimg.types import ImageRecord, Result, Status

if TYPE_CHECKING:
    import sqlite3

__all__ = ["Claimed", "ClaimedTask", "Journal", "Left", "Row", "SentCall", "left"]

T = TypeVar("T")

_BEGIN = "INSERT INTO batch (id, at_utc, owner, state, about) VALUES (?, ?, ?, 'running', ?)"
_BEGIN_TASK = "INSERT INTO task (id, request, model, seed, calls, slot) VALUES (?, ?, ?, ?, ?, ?)"
_INTEND = """
INSERT INTO call (task, variant, provider, model, alias, seed, count, arguments, image_field,
    mask_field, state, at_utc)
VALUES ((SELECT number << 24 FROM batch WHERE id = ?) + ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 'intended', ?)"""
#: A call may have been settled before this arrives, when whoever waited for it was stopped; one that another
#: kernel could not find meanwhile has arrived after all.
_SUBMITTED = """
UPDATE call SET job_id = ?, state = iif(state IN ('intended', 'unknown', 'absent'), 'submitted', state)
WHERE number = ?"""
_FORGET = """
UPDATE call SET state = 'forgotten'
WHERE state IN ('intended', 'submitted') AND task >= ? AND task < ?"""
_SETTLED = "UPDATE call SET state = ?, images = coalesce(?, images) WHERE number = ?"
_FINISHED = """
UPDATE task SET result = ?, ok = ? WHERE id = (SELECT number << 24 FROM batch WHERE id = ?) + ?"""
_FIND = """
SELECT task.slot, result, task.id, request FROM task JOIN (
    SELECT max(id) AS id FROM task WHERE ok = 1 AND slot IN (SELECT value FROM json_each(?))
    GROUP BY slot) AS newest ON newest.id = task.id"""
#: So many slots are looked up at a time: of 50,000 the texts, and what SQLite makes of them, are 20 megabytes.
_AT_ONCE = 500
_CALLS = """
SELECT task, number, variant, provider, model, alias, seed, count, arguments, image_field, mask_field,
    state, job_id, at_utc, images FROM call WHERE task >= ? AND task < ? ORDER BY number"""


class Journal:
    """The journal of one output folder; several kernels may have it open.

    Args:
        path: The database file; the output folder is the one that its folder is in.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._owner = Owner(owners(path))
        self._form = Form(path.parent.parent)
        self._writer = Writer(Database(path))
        self._missed: list[tuple[str, tuple[Any, ...]]] = []  # what a full disk did not take

    # ------------------------------------------------------------------ what happens

    async def begin(self, batch: str, tasks: Sequence[Row], *, about: Mapping[str, Any]) -> None:
        """Write down a batch and its tasks before any is sent; this process is its owner.

        Args:
            batch: A name that no other batch has.
            tasks: In any order.
            about: What `claim` is to give back with the batch; JSON data.

        Raises:
            StoreWriteError: When it cannot be written: then nothing may be sent.
        """

        def write(db: sqlite3.Connection) -> None:
            row = (batch, time.time(), self._owner.hold(), self._form.encode(dict(about)))
            first = (db.execute(_BEGIN, row).lastrowid or 0) * SPAN
            request = self._form.request
            rows = (
                (first + t.index, request(t.request), t.model, t.seed, t.calls, t.slot)
                for t in tasks
            )
            db.executemany(_BEGIN_TASK, rows)

        await self._writer.do(write)

    async def intend(self, batch: str, task: int, variant: int, call: Call) -> int:
        """Write down that a call is about to be sent.

        Args:
            batch: Its batch.
            task: Index of its task.
            variant: 0-based number of the call in its task.
            call: What will be sent; its prompt and images are those of the task's request.

        Returns:
            The number of the call.
        """
        ref = call.ref
        row = (
            *(batch, task, variant, ref.provider, ref.model, ref.alias, call.seed, call.count),
            *(self._form.encode(call.arguments), call.image_field, call.mask_field, time.time()),
        )
        return await self._writer.do(lambda db: int(db.execute(_INTEND, row).lastrowid or 0))

    async def submitted(self, number: int, job_id: str) -> None:
        """Write down the provider's id of a call, before anything waits for it."""
        await self._told(_SUBMITTED, (job_id, number))

    async def settled(self, number: int, state: str, images: Sequence[ImageRecord] = ()) -> None:
        """Write down how a call ended: `done`, `failed`, `cancelled`, `unknown` or `absent`."""
        row = (state, self._form.encode(images) if images else None, number)
        await self._told(_SETTLED, row)

    async def finished(self, batch: str, result: Result) -> None:
        """Write down what became of a task; its request is the one that the batch began with."""
        row = self._result(batch, result)
        await self._writer.do(lambda db: _change(db, _FINISHED, row))

    async def ended(
        self, number: int, images: Sequence[ImageRecord], batch: str, result: Result
    ) -> None:
        """Write down in one piece that a call is done and its task with it."""
        call = ("done", self._form.encode(images) if images else None, number)
        task = self._result(batch, result)

        def write(db: sqlite3.Connection) -> None:
            _change(db, _SETTLED, call)
            _change(db, _FINISHED, task)

        await self._writer.do(write)

    async def end(self, batch: str, state: str) -> None:
        """Write down that nobody runs a batch any more.

        Args:
            batch: Its name.
            state: `done`, `cancelled`, or `open`: some tasks were never sent.
        """
        statement = "UPDATE batch SET state = ? WHERE id = ?"
        await self._told(statement, (state, batch))

    async def _told(self, statement: str, row: tuple[Any, ...]) -> None:
        """Change a row; what the disk does not take is made up for when something is claimed."""
        try:
            await self._writer.do(lambda db: _change(db, statement, row))
        except StoreWriteError:
            self._missed.append((statement, row))
            raise

    def _result(self, batch: str, result: Result) -> tuple[Any, ...]:
        return (self._form.result(result), result.status is Status.OK, batch, result.index)

    # ------------------------------------------------------------------ what was left

    async def claim(
        self, batch: str | None = None, *, remaining: bool = False
    ) -> tuple[Claimed, ...]:
        """Take over batches that nobody runs; no two kernels ever get the same.

        Args:
            batch: Only this one, whatever is left of it; None: all that have paid work left.
            remaining: Also broken ones that only have tasks that were never sent.

        Returns:
            Oldest first. This process is their owner now and must `end` them.
        """

        def lives(token: str) -> bool:
            return alive(owners(self._path), token, patience_s=PATIENCE_S)

        def write(db: sqlite3.Connection) -> tuple[Claimed, ...]:
            self._make_up(db)
            if batch is not None:
                return self._named(db, batch, lives)
            found = []
            for number, state, paid, unsent in list(remainders(db, lives)):
                if paid or (remaining and unsent):
                    found.append(self._taken(db, number))
                elif state == "running" and not unsent:  # died after all was done
                    db.execute("UPDATE batch SET state = 'done' WHERE number = ?", (number,))
            return tuple(found)

        claimed = await self._writer.do(write)
        self._missed.clear()
        return claimed

    async def forget(self, batch: str | None = None) -> dict[str, int]:
        """Give up what batches that nobody runs have left: it is neither fetched nor sent, nor counted.

        Args:
            batch: Only this one; None: all that have anything left.

        Returns:
            Id of a batch → how many of its calls were or may be paid for and are given up.
        """

        def lives(token: str) -> bool:
            return alive(owners(self._path), token, patience_s=PATIENCE_S)

        def write(db: sqlite3.Connection) -> dict[str, int]:
            self._make_up(db)
            given_up = {}
            for number, _, paid, unsent in list(remainders(db, lives)):
                (name,) = db.execute("SELECT id FROM batch WHERE number = ?", (number,)).fetchone()
                if batch not in (None, name) or not (paid or unsent):
                    continue
                db.execute(_FORGET, (number * SPAN, (number + 1) * SPAN))
                db.execute("UPDATE batch SET state = 'cancelled' WHERE number = ?", (number,))
                given_up[name] = paid
            return given_up

        given_up = await self._writer.do(write)
        self._missed.clear()
        return given_up

    def _make_up(self, db: sqlite3.Connection) -> None:
        """Write down what a full disk did not take."""
        for statement, row in self._missed:
            db.execute(statement, row)

    def _named(
        self, db: sqlite3.Connection, batch: str, lives: Callable[[str], bool]
    ) -> tuple[Claimed, ...]:
        row = db.execute("SELECT number, owner, state FROM batch WHERE id = ?", (batch,)).fetchone()
        if row is None or (row[2] == "running" and lives(row[1])):
            return ()
        return (self._taken(db, row[0]),)

    def _taken(self, db: sqlite3.Connection, number: int) -> Claimed:
        """Read a whole batch and make it ours."""
        first, end, form = number * SPAN, (number + 1) * SPAN, self._form
        name, at_utc, state, about = db.execute(
            "SELECT id, at_utc, state, about FROM batch WHERE number = ?", (number,)
        ).fetchone()
        calls: dict[int, list[tuple[Any, ...]]] = {}
        for task, *row in db.execute(_CALLS, (first, end)):
            calls.setdefault(task, []).append(tuple(row))
        tasks = []
        for task, text, model, seed, count, result in db.execute(
            "SELECT id, request, model, seed, calls, result FROM task WHERE id >= ? AND id < ?",
            (first, end),
        ):
            request = form.read_request(text)
            made = form.read_result(result, task - first, text) if result else None
            sent = tuple(form.read_call(row, request) for row in calls.get(task, ()))
            tasks.append(ClaimedTask(task - first, request, model, seed, count, made, sent))
        db.execute(
            "UPDATE batch SET owner = ?, state = 'running' WHERE number = ?",
            (self._owner.hold(), number),
        )
        return Claimed(name, form.read_about(about), at_utc, state, tuple(tasks))

    # ------------------------------------------------------------------ what was made

    async def find(self, slots: Sequence[str]) -> dict[str, Result]:
        """Return the newest whole result of each slot that has one: of the batch begun last."""

        def query(db: sqlite3.Connection) -> dict[str, Result]:
            return {
                slot: self._form.read_result(result, task % SPAN, request)
                for first in range(0, len(slots), _AT_ONCE)
                for slot, result, task, request in db.execute(
                    _FIND, (self._form.encode(slots[first : first + _AT_ONCE]),)
                )
            }

        return await asyncio.to_thread(read, self._path, query, {}) if slots else {}

    async def batches(self) -> tuple[str, ...]:
        """Return the ids of all batches, the latest first."""

        def query(db: sqlite3.Connection) -> tuple[str, ...]:
            return tuple(
                name for (name,) in db.execute("SELECT id FROM batch ORDER BY number DESC")
            )

        return await asyncio.to_thread(read, self._path, query, ())

    async def batch_of_job(self, job_id: str) -> str | None:
        """Return the batch that a provider's job belongs to, or None."""

        def query(db: sqlite3.Connection) -> str | None:
            row = db.execute(
                "SELECT id FROM batch WHERE number = (SELECT task >> 24 FROM call "
                "WHERE job_id = ? ORDER BY number DESC LIMIT 1)",
                (job_id,),
            ).fetchone()
            return str(row[0]) if row else None

        return await asyncio.to_thread(read, self._path, query, None)

    def close(self) -> None:
        """Write what is waiting, close the file, and let go of what is still open."""
        self._writer.close()
        self._owner.release()


def _change(db: sqlite3.Connection, statement: str, row: tuple[Any, ...]) -> None:
    """Change exactly one row.

    Raises:
        StoreWriteError: When it is not there: the file was deleted while it was in use.
    """
    if db.execute(statement, row).rowcount != 1:
        raise StoreWriteError(
            "the journal no longer knows what it is told about: it was deleted meanwhile.",
            hint="Nothing is lost that is in memory; start the call anew to have it in a journal.",
        )
