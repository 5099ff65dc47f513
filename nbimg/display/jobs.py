"""The jobs of a kernel as a table.

Stage: display. Comes in: what is known of each job. Goes out: HTML, text. Must not: look at the clock, or
know an engine.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from nbimg.calls.progress import Fold
from nbimg.display.html import element
from nbimg.display.progress import render_numbers

__all__ = ["JobRow", "JobTable"]

_HEAD = ("id", "state", "progress", "begun", "about")
_CELL = {"text-align": "left"}


@dataclass(frozen=True, slots=True)
class JobRow:
    """What is known of a job.

    Attributes:
        id: Its name in the journal.
        status: Where it stands, in a word.
        progress: Its numbers.
        begun_utc: Unix time at which it was started.
        about: What it makes.
    """

    id: str
    status: str
    progress: Fold
    begun_utc: float
    about: str


class JobTable:
    """Shows itself as a table in a notebook and as lines in a terminal; it does not change by itself.

    Args:
        rows: One a job, in the order in which they are shown.
        now_utc: The time that their numbers are of.
        note: A line below.
    """

    def __init__(self, rows: Sequence[JobRow], now_utc: float, note: str = "") -> None:
        self._rows = [
            (
                row.id,
                row.status,
                " · ".join(render_numbers(row.progress, now_utc)),
                time.strftime("%H:%M:%S", time.localtime(row.begun_utc)),
                row.about,
            )
            for row in rows
        ]
        self._note = note

    def __repr__(self) -> str:
        if not self._rows:
            return "\n".join(filter(None, ("No job was started in this kernel.", self._note)))
        widths = [max(len(row[column]) for row in (_HEAD, *self._rows)) for column in range(4)]
        lines = [
            "  ".join([*map(str.ljust, row[:4], widths), row[4]]).rstrip()
            for row in (_HEAD, *self._rows)
        ]
        return "\n".join([*lines, *([self._note] if self._note else [])])

    def _repr_mimebundle_(self, **_: Any) -> dict[str, str]:
        note = element("div", self._note) if self._note else None
        if not self._rows:
            return {"text/plain": repr(self)}
        head = element("tr", *(element("th", title, style=_CELL) for title in _HEAD))
        rows = [
            element("tr", *(element("td", value, style=_CELL) for value in row))
            for row in self._rows
        ]
        return {
            "text/plain": repr(self),
            "text/html": element("div", element("table", element("tbody", head, *rows)), note),
        }
