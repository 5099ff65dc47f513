"""What there is to see of an output folder: a light row an image, kept in memory, read from the journal.

Stage: above the journal's file. Comes in: its table of tasks, only what has changed since the last time. Goes
out: `Entry`s, the oldest first, and the whole `Result` of one when it is asked for. Must not: write, open an
image, or hold more of a task than a search needs: there are tens of thousands.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from nbimg.store.database import read
from nbimg.store.rows import Form
from nbimg.store.schema import SPAN
from nbimg.types import ImageRecord, Result

if TYPE_CHECKING:
    import sqlite3

__all__ = ["Entry", "Index", "Listed", "Source", "key_of"]

_PAGE = 2000
_CHANGED = """
SELECT task.id, request, result, ok, batch.at_utc FROM task JOIN batch ON batch.number = task.id >> 24
WHERE task.id > :last OR task.id IN (SELECT value FROM json_each(:open))"""


@dataclass(frozen=True, slots=True)
class Entry:
    """An image, or a task that has none.

    Attributes:
        number: Of the row; it does not change while the index lives.
        task: Of its source.
        variant: Which image of the task; None: it has none.
        key: What marks refer to, the content where there is one.
        prompt: As it was sent.
        model: Full name.
        status: Of the task.
        at_utc: Unix time in seconds at which the image was there.
        width: Pixels; 0: not known.
        height: Pixels.
        seed: Where it is known.
        kind: `image` or `video`.
        edit: Whether it was made from an image.
        cached: Whether it came from the store.
        seconds: How long its task ran, for an image of it.
    """

    number: int
    task: int
    variant: int | None
    key: str
    prompt: str
    model: str
    status: str
    at_utc: float
    width: int = 0
    height: int = 0
    seed: int | None = None
    kind: str = "image"
    edit: bool = False
    cached: bool = False
    seconds: float = 0.0


class Source(Protocol):
    """Where a gallery has its images from."""

    def refresh(self) -> bool:
        """Look for what is new; whether there was anything."""
        ...

    @property
    def entries(self) -> Sequence[Entry]:
        """All rows, the oldest first."""
        ...

    def entry(self, number: int) -> Entry:
        """Return a row by its number."""
        ...

    def result(self, entry: Entry) -> Result:
        """Return the whole task of a row."""
        ...


class _Rows:
    """Rows by their number; those of a task are replaced as one."""

    def __init__(self) -> None:
        self._all: list[Entry] = []
        self._gone: set[int] = set()
        self._of_task: dict[int, tuple[int, ...]] = {}
        self._shown: tuple[Entry, ...] | None = ()

    @property
    def entries(self) -> Sequence[Entry]:
        """All rows that stand, the oldest first."""
        if self._shown is None:
            there = [entry for entry in self._all if entry.number not in self._gone]
            self._shown = tuple(sorted(there, key=lambda entry: entry.at_utc))
        return self._shown

    def entry(self, number: int) -> Entry:
        """Return a row, whether it still stands or not."""
        return self._all[number]

    def put(
        self, task: int, data: Mapping[str, Any], request: Mapping[str, Any], at: float
    ) -> None:
        """Take in what became of a task."""
        self._gone.update(self._of_task.get(task, ()))
        new = tuple(_entries(len(self._all), task, data, request, at))
        self._all += new
        self._of_task[task] = tuple(entry.number for entry in new)
        self._shown = None


class Index:
    """The rows of an output folder.

    Args:
        folder: The output folder.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._path = folder / ".nbimg" / "journal.sqlite3"
        self._form = Form(folder)
        self._lock = threading.Lock()
        self._forget()

    def _forget(self) -> None:
        self._rows = _Rows()
        self._last = -1
        self._oldest: tuple[str] | None = None  # id of the first batch: which journal it is
        self._open: set[int] = set()  # tasks that may still get a result, or a better one
        self._state: tuple[Any, ...] = ()

    @property
    def entries(self) -> Sequence[Entry]:
        """All rows, the oldest first."""
        with self._lock:
            return self._rows.entries

    def entry(self, number: int) -> Entry:
        """Return a row by its number.

        Raises:
            IndexError: When there is none.
        """
        return self._rows.entry(number)

    def refresh(self) -> bool:
        """Read what has changed in the journal; whether anything has.

        Raises:
            StoreError: When the journal is damaged.
        """
        with self._lock:
            state = tuple(map(_stamp, (self._path, self._path.with_name(f"{self._path.name}-wal"))))
            if state == self._state:
                return False
            changed = read(self._path, self._take, missing=False)
            self._state = state
            return changed

    def _take(self, db: sqlite3.Connection) -> bool:
        oldest = db.execute("SELECT id FROM batch ORDER BY number LIMIT 1").fetchone()
        if self._oldest not in (None, oldest):
            self._forget()  # another journal in the same place
        self._oldest = oldest
        values = {"last": self._last, "open": json.dumps(sorted(self._open))}
        rows, changed = db.execute(_CHANGED, values), False
        while page := rows.fetchmany(_PAGE):
            for task, request, result, ok, at_utc in page:
                self._last = max(self._last, task)
                (self._open.discard if ok else self._open.add)(task)
                if result is not None:
                    self._rows.put(task, json.loads(result), json.loads(request), at_utc)
                    changed = True
        return changed

    def result(self, entry: Entry) -> Result:
        """Return the whole task of a row.

        Raises:
            KeyError: When the journal does not have it any more.
            StoreError: When the journal is damaged.
        """

        def query(db: sqlite3.Connection) -> Result | None:
            statement = "SELECT request, result FROM task WHERE id = ? AND result IS NOT NULL"
            row = db.execute(statement, (entry.task,)).fetchone()
            return self._form.read_result(row[1], entry.task % SPAN, row[0]) if row else None

        result = read(self._path, query, missing=None)
        if result is None:
            raise KeyError(entry.task)
        return result


class Listed:
    """The rows of results that are at hand.

    Args:
        results: In order; a gallery shows the first one first.
    """

    def __init__(self, results: Sequence[Result]) -> None:
        self._results = tuple(results)
        self._all: list[Entry] = []
        for task, result in enumerate(self._results):
            request = result.request.to_dict()
            self._all += _entries(len(self._all), task, result.to_dict(), request, 0.0)

    def refresh(self) -> bool:
        """Nothing is ever new."""
        return False

    @property
    def entries(self) -> Sequence[Entry]:
        """All rows, the last one first."""
        return self._all[::-1]

    def entry(self, number: int) -> Entry:
        """Return a row by its number."""
        return self._all[number]

    def result(self, entry: Entry) -> Result:
        """Return the whole task of a row."""
        return self._results[entry.task]


def key_of(image: ImageRecord) -> str:
    """Return what marks call an image: its content, or its address where it was not downloaded."""
    return image.sha256 or image.url or ""


def _entries(
    number: int, task: int, data: Mapping[str, Any], request: Mapping[str, Any], begun: float
) -> Iterator[Entry]:
    attempts = data["attempts"]
    at_utc = attempts[-1]["at_utc"] + attempts[-1]["seconds"] if attempts else begun
    common = (request["prompt"], data["model"], data["status"], at_utc)
    seconds = data["seconds"]["running"] / max(1, len(data["images"]))
    edit, cached = bool(request.get("image")), bool(data["cached"])
    for variant, image in enumerate(data["images"]):
        yield Entry(
            number + variant,
            task,
            variant,
            image["sha256"] or image["url"] or "",
            *common,
            image["width"],
            image["height"],
            image["seed"],
            image["kind"],
            edit,
            cached,
            seconds,
        )
    if not data["images"]:
        seed = request.get("seed")
        yield Entry(number, task, None, f"task:{task}", *common, seed=seed, edit=edit)


def _stamp(path: Path) -> tuple[int, ...]:
    try:
        state = path.stat()
    except OSError:
        return ()
    return (state.st_ino, state.st_mtime_ns, state.st_size)
