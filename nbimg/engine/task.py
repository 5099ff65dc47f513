"""The state of one task while it runs, and the result it becomes.

Stage: below the engine's run. Comes in: what happened to each of its calls. Goes out: one `Result`.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

from nbimg.errors import ContentRefusedError, OutcomeUnknownError, ReplyError
from nbimg.plan import Planned
from nbimg.types import Attempt, ErrorRecord, ImageRecord, Result, Seconds, Status

__all__ = ["Task"]


class Task:
    """One task: each of its calls ends with images, with an error, or (a part of them) with both.

    Args:
        planned: The task.
    """

    def __init__(self, planned: Planned) -> None:
        self.planned = planned
        self.attempts: list[Attempt] = []
        self.download_s = 0.0
        self._begun = time.monotonic()
        self._started: float | None = None
        self._images: dict[int, tuple[ImageRecord, ...]] = {}
        self._errors: dict[int, Exception] = {}
        self._cancelled: set[int] = set()

    @property
    def started(self) -> bool:
        """Whether any call has had its permit."""
        return self._started is not None

    def start(self) -> None:
        """The first call has its permit."""
        self._started = self._started or time.monotonic()

    def done(self, variant: int, images: Sequence[ImageRecord]) -> None:
        """A call ended with images, all on disk."""
        self._images[variant] = tuple(images)

    def failed(self, variant: int, error: Exception) -> None:
        """A call ended with an error."""
        self._errors[variant] = error

    def cancelled(self, variant: int) -> None:
        """A call was stopped by the user."""
        if variant not in self._images and variant not in self._errors:
            self._cancelled.add(variant)

    def tried(self, stage: str, at: float, error: BaseException | None, job_id: str | None) -> None:
        """Write down one try of one stage; `at` is the Unix time when it began."""
        self.attempts.append(
            Attempt(
                self.planned.ref.full,
                stage,
                at,
                round(time.time() - at, 4),
                "ok" if error is None else type(error).__name__,
                getattr(error, "http_status", None),
                job_id or getattr(error, "job_id", None),
            )
        )

    @property
    def settled(self) -> bool:
        """Whether every call has ended."""
        return not self.open_variants()

    def open_variants(self) -> tuple[int, ...]:
        """Return the calls that have not ended."""
        ended = {*self._images, *self._errors, *self._cancelled}
        return tuple(k for k in range(len(self.planned.calls)) if k not in ended)

    def result(self) -> Result:
        """Return what became of the task."""
        planned = self.planned
        images = tuple(image for k in sorted(self._images) for image in self._images[k])
        error = next((self._errors[k] for k in sorted(self._errors)), None)
        asked = planned.request.n
        if error is None and not self._cancelled and len(images) < asked:
            error = ReplyError(f"{planned.ref} made {len(images)} of {asked} images.")
        cost = planned.cost_usd
        if cost is not None:
            cost *= min(1.0, len(images) / asked)
        now = time.monotonic()
        started = self._started if self._started is not None else now
        return Result(
            index=planned.index,
            request=planned.request,
            model=planned.ref.full,
            model_asked=planned.asked,
            status=self._status(images, error),
            images=images,
            error=None if error is None else ErrorRecord.of(error),
            attempts=tuple(self.attempts),
            notices=planned.notices,
            seconds=Seconds(
                round(started - self._begun, 3),
                round(max(0.0, now - started - self.download_s), 3),
                round(self.download_s, 3),
            ),
            cost_usd=cost,
        )

    def _status(self, images: Sequence[ImageRecord], error: Exception | None) -> Status:
        if error is None and not self._cancelled:
            return Status.OK
        if images:
            return Status.PARTIAL
        if any(isinstance(e, OutcomeUnknownError) for e in self._errors.values()):
            return Status.UNKNOWN
        if isinstance(error, ContentRefusedError):
            return Status.REFUSED
        return Status.CANCELLED if error is None else Status.FAILED
