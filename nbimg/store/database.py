"""The journal's file: opened, checked, written in transactions, read without a trace.

Stage: below the journal. Comes in: what to do with a connection. Goes out: values, or one `StoreError` that
says what to do. On a drive where a write-ahead log is unsafe the file has a rollback journal instead. Must
not: overwrite what it does not know, or carry a connection across a fork (SQLite's locks would be wrong in
both processes).
"""

from __future__ import annotations

import contextlib
import functools
import os
import shutil
import sqlite3
import threading
import weakref
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from nbimg.errors import NbimgError, StoreWriteError
from nbimg.store.schema import BUSY_S, VERSION, prepare

__all__ = ["Database", "Outcome", "read"]

T = TypeVar("T")


class Outcome(NamedTuple):
    """What became of one piece of a transaction."""

    value: Any
    error: NbimgError | None


class Database:
    """The file, for one thread at a time; opened when it is first needed.

    Args:
        path: The file; its folder is made.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._db: sqlite3.Connection | None = None
        self._is = (0, 0)  # device and number of the file that is open

    def transact(self, works: Sequence[Callable[[sqlite3.Connection], Any]]) -> list[Outcome]:
        """Do all in one transaction; when that fails one for each, so that one costs no other."""
        with _writing:
            try:
                return self._transact(self._ready(), works)
            except Exception as error:  # whatever it is, those who wait must hear of it
                self._close()
                return [Outcome(None, _failure(self._path, error))] * len(works)

    def close(self) -> None:
        """Close the file."""
        with _writing:
            self._close()

    def _transact(
        self, db: sqlite3.Connection, works: Sequence[Callable[[sqlite3.Connection], Any]]
    ) -> list[Outcome]:
        db.execute("BEGIN IMMEDIATE")
        try:
            values = [work(db) for work in works]
            db.execute("COMMIT")
        except Exception as error:
            if db.in_transaction:
                db.execute("ROLLBACK")
            if len(works) == 1:
                return [Outcome(None, _failure(self._path, error))]
            return [outcome for work in works for outcome in self._transact(db, [work])]
        return [Outcome(value, None) for value in values]

    def _ready(self) -> sqlite3.Connection:
        if self._db is not None:
            with contextlib.suppress(OSError):
                now = os.stat(self._path)  # noqa: PTH116  # at every commit
                if (now.st_dev, now.st_ino) == self._is:
                    return self._db
            self._close()  # the folder was deleted or replaced: what is written there would be lost
        _guard_forks()
        self._path.parent.mkdir(parents=True, exist_ok=True)
        db = sqlite3.connect(
            self._path, timeout=BUSY_S, isolation_level=None, check_same_thread=False
        )
        try:
            prepare(db, self._path)
            now = os.stat(self._path)  # noqa: PTH116
        except BaseException:
            db.close()
            raise
        self._db, self._is = db, (now.st_dev, now.st_ino)
        _databases.add(self)
        return db

    def _close(self) -> None:
        db, self._db = self._db, None
        if db is not None:
            with contextlib.suppress(sqlite3.Error):
                db.close()


def _failure(path: Path, error: Exception) -> NbimgError:
    if isinstance(error, NbimgError):
        return error
    name = getattr(error, "sqlite_errorname", None) or ""
    what = f"cannot be written: {getattr(error, 'strerror', None) or error}"
    hint = "Choose another folder: %config NbImg.output_dir = '…'"
    if name in ("SQLITE_NOTADB", "SQLITE_CORRUPT") or name.startswith("SQLITE_CORRUPT_"):
        what = f"is damaged: {error}"
        hint = "Move it away together with its -wal and -shm files; a new one is begun then."
    elif name == "SQLITE_FULL" or (name.startswith("SQLITE_IOERR") and _full(path)):
        what = "cannot be written: the disk is full"
        hint = f"Free some room. {hint}"
    elif name == "SQLITE_BUSY":
        what = f"is held by another program for more than {BUSY_S:g} s"
        hint = "Try again."
    failure = StoreWriteError(f"the journal {path} {what}.", hint=hint)
    failure.__cause__ = error
    return failure


def _full(path: Path) -> bool:
    with contextlib.suppress(OSError):
        return shutil.disk_usage(path.parent).free < 1 << 16
    return False


def read(
    path: Path, query: Callable[[sqlite3.Connection], T], missing: T, *, timeout_s: float = BUSY_S
) -> T:
    """Return what a query finds, without changing or making any file.

    Args:
        path: The file.
        query: Takes a connection that can only read.
        missing: What is returned when there is no file, or none of this version.
        timeout_s: How long to wait for a writer that shuts readers out.

    Raises:
        StoreWriteError: When the file is damaged.
    """

    def asked(mode: str) -> T:
        db = sqlite3.connect(
            f"{path.absolute().as_uri()}?mode=ro{mode}", uri=True, timeout=timeout_s
        )
        try:
            known = db.execute("PRAGMA user_version").fetchone()[0] == VERSION
            return query(db) if known else missing
        finally:
            db.close()

    log = path.with_name(f"{path.name}-wal")
    with _reading:
        try:
            if not path.is_file() or path.stat().st_size == 0:
                return missing
            if _has_wal(path) and not log.exists():
                # nobody has it open; a plain reader would make the log and its shared memory
                with contextlib.suppress(sqlite3.DatabaseError):
                    found = asked("&immutable=1")
                    if not log.exists():
                        return found
            with contextlib.suppress(sqlite3.OperationalError):
                return asked("&readonly_shm=1")
            return asked("")
        except Exception as error:
            raise _failure(path, error) from error


def _has_wal(path: Path) -> bool:
    """Byte 18 of the header: 2 with a write-ahead log (https://www.sqlite.org/fileformat.html, 1.3.3)."""
    with path.open("rb") as file:
        return file.read(20)[18:19] == b"\x02"


_writing = threading.Lock()
_reading = threading.Lock()
_databases: weakref.WeakSet[Database] = weakref.WeakSet()


@functools.cache
def _guard_forks() -> None:
    """A fork waits until nobody is inside of SQLite, and finds every file closed."""
    import filelock  # noqa: F401  # its own guard must be asked after ours: ours may wait for a lock

    if hasattr(os, "register_at_fork"):
        os.register_at_fork(
            before=_before_fork, after_in_parent=_after_fork, after_in_child=_after_fork
        )


def _before_fork() -> None:
    _writing.acquire()
    _reading.acquire()
    for database in list(_databases):
        database._close()  # noqa: SLF001  # of this module; it is opened again when it is needed


def _after_fork() -> None:
    _reading.release()
    _writing.release()
