"""The real journal on a database in memory, and an output folder in memory, for the property test.

Stage: below the property test. They keep the promises of those on disk: a write is kept once its time has
come, whether anybody waits for it or not; what was kept outlives the kernel; a full disk refuses.
"""

import asyncio
import functools
import sqlite3
from pathlib import Path
from typing import NamedTuple

from nbimg.errors import ImageInputError, NbimgError, StoreWriteError
from nbimg.store import schema
from nbimg.store.journal import Journal
from nbimg.types import ImageRecord

__all__ = ["Disk", "MemoryJournal", "MemoryStore", "Row"]


class Row(NamedTuple):
    """A call in the journal."""

    batch: str
    task: int
    variant: int
    state: str
    job_id: str | None

    @property
    def key(self):
        """As the provider's ledger calls it."""
        return f"{self.batch}/{self.task}", self.variant


class Disk:
    """What outlives a kernel.

    Attributes:
        folder: For the images, which are empty files.
        images: Paths that hold a whole image.
        full: Called to know whether the disk is full now.
    """

    def __init__(self, folder):
        self.folder = folder
        self.db = sqlite3.connect(":memory:", isolation_level=None)
        self.db.deserialize(_empty())
        self.images = set()
        self.full = lambda: False

    @property
    def rows(self):
        """Every call, oldest first."""
        return [
            Row(*row)
            for row in self.db.execute(
                "SELECT batch.id, task & 16777215, variant, call.state, job_id "
                "FROM call JOIN batch ON batch.number = task >> 24 ORDER BY call.number"
            )
        ]

    def batches(self):
        """Id of a batch → its state."""
        return dict(self.db.execute("SELECT id, state FROM batch"))

    def intends(self, key):
        """Whether a call was written down and is not settled."""
        batch, _, task = key[0].partition("/")
        found = self.db.execute(
            "SELECT 1 FROM call WHERE task = (SELECT number << 24 FROM batch WHERE id = ?) + ? "
            "AND variant = ? AND state = 'intended'",
            (batch, int(task), key[1]),
        )
        return found.fetchone() is not None

    def noted(self, job_id):
        """Whether a job's id was written down."""
        found = self.db.execute("SELECT 1 FROM call WHERE job_id = ?", (job_id,))
        return found.fetchone() is not None


class MemoryJournal(Journal):
    """The journal as one kernel has it open.

    Args:
        disk: Shared by all kernels.
        clock: Virtual.
        rng: Decides how long a write takes.
        on_intend: Told of each call before it is written: a permit is held from here on.
    """

    def __init__(self, disk, clock, rng, on_intend):
        super().__init__(disk.folder / ".nbimg" / "journal.sqlite3")
        self._owner = _Owner()
        self._writer = Writer(disk, clock, rng)
        self._on_intend = on_intend

    async def intend(self, batch, task, variant, call):
        self._on_intend(call)
        return await super().intend(batch, task, variant, call)

    def result(self, batch, index):
        """The result that is written down of a task, or None."""
        found = self._writer.disk.db.execute(
            "SELECT result, request FROM task "
            "WHERE id = (SELECT number << 24 FROM batch WHERE id = ?) + ?",
            (batch, index),
        ).fetchone()
        if found is None or found[0] is None:
            return None
        return self._form.read_result(found[0], index, found[1])

    def die(self):
        """The kernel was killed: what is not on disk will never be."""
        self._writer.dead = True


class _Owner:
    """This kernel: nobody ever finds it alive, for all that it ran has ended when others look."""

    def hold(self):
        return "nobody"

    def release(self):
        return


class Writer:
    """Writes one piece after the other, as one thread does, each in its time."""

    def __init__(self, disk, clock, rng):
        self.disk, self.dead = disk, False
        self._clock, self._rng, self._last = clock, rng, 0.0

    def do(self, run):
        loop = asyncio.get_running_loop()
        done = loop.create_future()
        self._last = max(self._last, self._clock.now + 0.01 * self._rng.random())
        loop.call_at(self._last, self._commit, run, done)
        return done

    def _commit(self, run, done):
        value, failure, db = None, None, self.disk.db
        if self.dead:
            return
        if self.disk.full():
            failure = StoreWriteError("the journal cannot be written: disk full.")
        else:
            db.execute("BEGIN")
            try:
                value = run(db)
                db.execute("COMMIT")
            except NbimgError as error:
                failure = error
                db.execute("ROLLBACK")
        if done.done():
            return
        if failure is None:
            done.set_result(value)
        else:
            done.set_exception(failure)

    def close(self):
        return


class MemoryStore:
    """The output folder.

    Args:
        disk: Shared by all kernels.
    """

    def __init__(self, disk):
        self.disk = disk
        self.folder = disk.folder
        self.hidden = disk.folder / ".nbimg"

    def ready(self):
        if self.disk.full():
            raise StoreWriteError("the disk is full.")

    def put(self, image, template, values, *, variant=None, text=None, cover=None):
        if not image.data.startswith(b"whole "):
            raise ImageInputError("the image is truncated.")
        if self.disk.full():
            raise StoreWriteError("the disk is full.")
        path = self.folder / image.data.decode().removeprefix("whole ").replace("/", "-")
        path.touch()
        self.disk.images.add(path)
        return ImageRecord(path=path, url=image.url, seed=image.seed)

    def thumb(self, record, side_px):
        return None


@functools.cache
def _empty():
    """A database without a row, as bytes."""
    db = sqlite3.connect(":memory:", isolation_level=None)
    schema.prepare(db, Path.cwd() / "journal.sqlite3")
    data = db.serialize()
    db.close()
    return data
