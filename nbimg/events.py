"""What can happen to a task, as frozen values with a time.

Stage: the engine and the backends emit them; `notebook.live` folds them into what is shown. Must
not: carry an open file, a live object or a credential.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from nbimg.types import ImageRecord, Result

__all__ = [
    "Event",
    "Finished",
    "Listener",
    "Notice",
    "Planned",
    "Preview",
    "Retrying",
    "Saved",
    "Started",
    "Step",
    "Submitted",
    "Waiting",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Something that happened.

    Attributes:
        task: 0-based index of the task; None where it concerns the whole batch.
        at_utc: Unix time in seconds.
    """

    task: int | None = None
    at_utc: float = field(default_factory=time.time)


@dataclass(frozen=True, slots=True, kw_only=True)
class Planned(Event):
    """The batch is about to begin: `tasks` tasks, `images` images."""

    tasks: int
    images: int
    cost_usd: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Started(Event):
    """The task has its permit and is on its way."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Submitted(Event):
    """The provider has accepted the task as `job_id`; it is in the journal."""

    job_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting(Event):
    """Nothing can be sent before `until_utc`, for `reason`."""

    reason: str
    until_utc: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Retrying(Event):
    """Try number `attempt` of `stage` follows in `in_s` seconds, because of `reason`."""

    stage: str
    attempt: int
    in_s: float
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Step(Event):
    """Denoising step `done` of `total`, of one image of the task."""

    done: int
    total: int
    variant: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Preview(Event):
    """What the picture looks like so far: a small WebP or JPEG file."""

    data: bytes
    variant: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Saved(Event):
    """One more image of the task is whole on disk."""

    image: ImageRecord


@dataclass(frozen=True, slots=True, kw_only=True)
class Notice(Event):
    """A line that a person should read, once."""

    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished(Event):
    """The task has ended, whichever way; the files of `result` are on disk."""

    result: Result


Listener = Callable[[Event], None]
