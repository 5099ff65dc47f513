"""How the journal's file is laid out and written: its tables, its mode, its versions.

Stage: below the database. Comes in: a fresh connection. Goes out: one that is ready, or an error that names
the file. Must not: change a file that is not ours.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

from nbimg.errors import StoreWriteError
from nbimg.store import drive

if TYPE_CHECKING:
    import sqlite3

__all__ = ["BUSY_S", "SPAN", "VERSION", "prepare"]

#: Most tasks of a batch: the id of a task is `number of its batch << 24 | its index`.
SPAN = 1 << 24
#: How long to wait for another kernel's transaction, in seconds.
BUSY_S = 30.0
VERSION = 2
_SCHEMA = (
    """CREATE TABLE batch (
        number INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, at_utc REAL NOT NULL, owner TEXT NOT NULL,
        state TEXT NOT NULL, about TEXT NOT NULL)""",
    """CREATE TABLE task (
        id INTEGER PRIMARY KEY, request TEXT NOT NULL, model TEXT NOT NULL, seed INTEGER NOT NULL,
        calls INTEGER NOT NULL, slot TEXT, ok INTEGER NOT NULL DEFAULT 0, result TEXT)""",
    """CREATE TABLE call (
        number INTEGER PRIMARY KEY, task INTEGER NOT NULL, variant INTEGER NOT NULL,
        provider TEXT NOT NULL, model TEXT NOT NULL, alias TEXT, seed INTEGER, count INTEGER NOT NULL,
        arguments TEXT NOT NULL, image_field TEXT NOT NULL, mask_field TEXT NOT NULL,
        state TEXT NOT NULL, job_id TEXT, at_utc REAL NOT NULL, images TEXT)""",
    "CREATE INDEX calls_of_task ON call(task)",
    "CREATE INDEX open_calls ON call(task) WHERE state IN ('intended', 'submitted')",
    "CREATE INDEX open_tasks ON task(id) WHERE result IS NULL",
    "CREATE INDEX open_batches ON batch(number) WHERE state IN ('running', 'open')",
    "CREATE INDEX slots ON task(slot) WHERE ok = 1",
    f"PRAGMA user_version = {VERSION}",
)


def prepare(db: sqlite3.Connection, path: Path) -> None:
    """Set how the file is written, and make its tables; an unknown file is left as it is."""
    safe = drive.keeps_wal(path)
    if not safe:
        # a file that came here with a write-ahead log is read without its shared memory
        db.execute("PRAGMA locking_mode = EXCLUSIVE")
    _check(db, path)
    mode = _journal_mode(db, "WAL" if safe else "DELETE")
    if mode != "wal":
        mode = _journal_mode(db, "DELETE")
    db.execute("PRAGMA locking_mode = NORMAL")
    db.execute(f"PRAGMA synchronous = {'FULL' if mode == 'wal' else 'EXTRA'}")
    db.execute("BEGIN IMMEDIATE")
    try:
        if _check(db, path) != VERSION:
            for old in ("call", "task", "batch"):
                db.execute(f"DROP TABLE IF EXISTS {old}")
            for statement in _SCHEMA:
                db.execute(statement)
        db.execute("COMMIT")
    except BaseException:
        if db.in_transaction:
            db.execute("ROLLBACK")
        raise


def _journal_mode(db: sqlite3.Connection, mode: str) -> str:
    until = time.monotonic() + BUSY_S
    while True:
        try:
            return str(db.execute(f"PRAGMA journal_mode = {mode}").fetchone()[0])
        except Exception as error:
            # two that change it at once get this at once, whatever the time-out
            busy = getattr(error, "sqlite_errorname", "") == "SQLITE_BUSY"
            if not busy or time.monotonic() > until:
                raise
            time.sleep(0.01)


def _check(db: sqlite3.Connection, path: Path) -> int:
    """Return the version of the tables, 0 for an empty file.

    Raises:
        StoreWriteError: When the file is not ours to change.
    """
    version = int(db.execute("PRAGMA user_version").fetchone()[0])
    tables = {name for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    away = "Move it away, or choose another folder: %config NbImg.output_dir = '…'"
    if version > VERSION:
        raise StoreWriteError(
            f"the journal {path} was written by a newer nbimg.", hint=f"Upgrade nbimg. {away}"
        )
    if version == 0 and tables:
        raise StoreWriteError(f"{path} is a database of something else.", hint=away)
    if version == 1:
        unfinished = "SELECT 1 FROM call WHERE state IN ('intended', 'submitted')"
        if db.execute(unfinished).fetchone():
            raise StoreWriteError(
                f"the journal {path} was written by an older nbimg and holds unfinished work.",
                hint=away,
            )
    return version
