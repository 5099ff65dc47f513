"""How the tasks of one batch stand: what is still to be fetched, and with which seeds they were sent.

Stage: beside the journal. Comes in: the name of a batch. Goes out: a line a task, in order. Must not: change
anything, or take the batch over.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from nbimg.store.database import read
from nbimg.store.schema import SPAN

if TYPE_CHECKING:
    import sqlite3

__all__ = ["Standing", "standing"]

_TASKS = """
SELECT
    EXISTS (SELECT 1 FROM call WHERE task = t.id AND state IN ('submitted', 'intended')),
    EXISTS (SELECT 1 FROM call WHERE task = t.id AND state = 'unknown'),
    (SELECT seed - variant FROM call
        WHERE task = t.id AND seed >= variant ORDER BY number LIMIT 1)
FROM task t WHERE id >= ? AND id < ? ORDER BY id"""


class Standing(NamedTuple):
    """How a task stands.

    Attributes:
        owed: Whether a call of it may be paid for and can perhaps be fetched.
        unknown: Whether nobody can ever tell of a call whether it was accepted.
        seed: The base seed that was sent; None: none was.
    """

    owed: bool
    unknown: bool
    seed: int | None


def standing(path: Path, batch: str) -> tuple[Standing, ...]:
    """Return how each task of a batch stands, in order; nothing for a batch that is not there.

    Args:
        path: The journal's file.
        batch: The name of the batch.
    """

    def query(db: sqlite3.Connection) -> tuple[Standing, ...]:
        row = db.execute("SELECT number FROM batch WHERE id = ?", (batch,)).fetchone()
        if row is None:
            return ()
        span = row[0] * SPAN, (row[0] + 1) * SPAN
        return tuple(
            Standing(bool(owed), bool(unknown), seed)
            for owed, unknown, seed in db.execute(_TASKS, span)
        )

    return read(path, query, ())
