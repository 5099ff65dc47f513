"""What dead kernels left behind: counted for `%load_ext`, found for `resume`.

Stage: beside the journal. Comes in: its file. Goes out: counts. Must not: write, or import anything that
would slow `%load_ext` down.

A call *stands* when it is paid for or may be: all but those that failed, were cancelled or never arrived.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from nbimg.errors import NbimgError
from nbimg.store.owner import alive

if TYPE_CHECKING:
    import sqlite3

__all__ = ["Left", "Remainder", "left", "owners", "remainders"]


class Left(NamedTuple):
    """What can be taken up in a folder.

    Attributes:
        batches: How many batches have any of it.
        paid: Calls that are or may be paid for, of batches that nobody runs.
        unsent: Tasks of broken batches that were not sent, or not all of them.
    """

    batches: int = 0
    paid: int = 0
    unsent: int = 0


class Remainder(NamedTuple):
    """What is left of one batch that nobody runs.

    Attributes:
        number: Of the batch in its file.
        state: How it ended; `running`: its process died.
        paid: Calls that stand, of which no result tells.
        unsent: Tasks without result of which a part stands for no call; 0 when the user stopped it.
    """

    number: int
    state: str
    paid: int
    unsent: int


def left(path: Path) -> Left:
    """Return what can be taken up; a file that is missing, damaged or foreign has nothing.

    Args:
        path: The journal's file.
    """
    if not path.is_file():
        return Left()
    from nbimg.store.database import read

    folder = owners(path)

    def count(db: sqlite3.Connection) -> Left:
        found = [
            r for r in remainders(db, lambda token: alive(folder, token)) if r.paid or r.unsent
        ]
        return Left(len(found), sum(r.paid for r in found), sum(r.unsent for r in found))

    try:
        return read(path, count, Left(), timeout_s=0.1)
    except (NbimgError, OSError):
        return Left()


def owners(path: Path) -> Path:
    """Return the folder with the lock files of those who write the journal at `path`."""
    return path.parent / "owners"


def remainders(db: sqlite3.Connection, lives: Callable[[str], bool]) -> Iterator[Remainder]:
    """Find what is left of every batch that nobody runs, oldest first.

    Args:
        db: A connection to the journal.
        lives: Says whether the process that holds a token lives.
    """
    known: dict[str, bool] = {}
    for number, owner, state in db.execute(_BATCHES).fetchall():
        if state == "running":
            if owner not in known:
                known[owner] = lives(owner)
            if known[owner]:
                continue
        yield _remainder(db, number, state)


def _remainder(db: sqlite3.Connection, number: int, state: str) -> Remainder:
    tasks = _range(number)
    ((open_calls,),) = db.execute(_OPEN_CALLS, tasks)
    ((unsent,),) = db.execute(_UNSENT, tasks) if state in ("running", "open") else ((0,),)
    # of a broken batch nobody has seen what was fetched; an open one has been given back so far
    ((fetched,),) = db.execute(_FETCHED, tasks) if state == "running" else ((0,),)
    return Remainder(number, state, open_calls + fetched, unsent)


def _range(number: int) -> dict[str, Any]:
    return {"first": number << 24, "end": (number + 1) << 24}


_BATCHES = """
SELECT number, owner, state FROM batch WHERE state IN ('running', 'open') OR number IN (
    SELECT task >> 24 FROM call WHERE state IN ('intended', 'submitted')) ORDER BY number"""
_OPEN_CALLS = """
SELECT count(*) FROM call
WHERE state IN ('intended', 'submitted') AND task >= :first AND task < :end"""
#: Settled calls that stand, of tasks without result.
_FETCHED = """
SELECT count(*) FROM task JOIN call ON call.task = task.id
WHERE task.result IS NULL AND task.id >= :first AND task.id < :end AND call.state IN ('done', 'unknown')"""
#: Tasks without result of which a part stands for no call.
_UNSENT = """
SELECT count(*) FROM task
WHERE result IS NULL AND id >= :first AND id < :end AND calls > (
    SELECT count(DISTINCT variant) FROM call
    WHERE task = task.id
    AND state IN ('intended', 'submitted', 'done', 'unknown', 'gone', 'forgotten'))"""
