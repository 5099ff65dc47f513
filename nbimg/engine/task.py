"""The state of one task while it runs, and the result it becomes.

Stage: below the engine's run. Comes in: what happened to each of its calls. Goes out: one `Result`.
"""

from __future__ import annotations

import functools
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence

from nbimg.backends.base import Call
from nbimg.errors import ContentRefusedError, OutcomeUnknownError, ReplyError
from nbimg.planning.plan import Planned
from nbimg.types import Attempt, ErrorRecord, ImageRecord, Result, Seconds, Status

__all__ = ["Task"]


class Task:
    """One task: each of its calls ends with images, with an error, or (a part of them) with both.

    Args:
        planned: The task.
        began: When its batch began, as `time.monotonic` tells.

    Attributes:
        attempts: Every try of a stage, oldest first.
        download_s: The longest download of its calls, in seconds.
        span: Told the result at the end, when somebody traces.
        unsent: Whether a part of it was left unsent, to be sent another time.
    """

    def __init__(self, planned: Planned, began: float) -> None:
        self.planned = planned
        self.attempts: list[Attempt] = []
        self.download_s = 0.0
        self.span: Callable[[Result], None] | None = None
        self.unsent = False
        self._begun = began
        self._started: float | None = None
        self._images: dict[int, tuple[ImageRecord, ...]] = {}
        self._errors: dict[int, Exception] = {}
        self._cancelled: set[int] = set()
        self._owed: dict[int, Planned] = {}
        self._used: dict[int, Planned] = {}
        self._notices: list[str] = list(planned.notices)
        self._usage: Counter[str] = Counter()

    @functools.cached_property
    def calls(self) -> tuple[Call, ...]:
        """What is sent, variants in order."""
        return self.planned.calls()

    @property
    def started(self) -> bool:
        """Whether any call has had its permit."""
        return self._started is not None

    def start(self) -> None:
        """The first call has its permit."""
        self._started = self._started or time.monotonic()

    def done(
        self, variant: int, images: Sequence[ImageRecord], planned: Planned | None = None
    ) -> None:
        """A call ended with images, all on disk; `planned` is the one whose model made them."""
        self._images[variant] = tuple(images)
        self._used[variant] = planned or self.planned
        self.note(self._used[variant].notices)

    def failed(self, variant: int, error: Exception) -> None:
        """A call ended with an error."""
        self._errors[variant] = error

    def cancelled(self, variant: int) -> None:
        """A call was stopped by the user."""
        if variant not in self._images and variant not in self._errors:
            self._cancelled.add(variant)

    def spent(self, usage: Mapping[str, int]) -> None:
        """Add what a provider counted for one of the calls."""
        self._usage.update(usage)

    def owe(self, variant: int, planned: Planned) -> None:
        """A call failed of which a job is left that is or may be paid for."""
        self._owed[variant] = planned

    def left_s(self, limit_s: float) -> float:
        """How much is left of the time that the whole task may take, in seconds."""
        begun = time.monotonic() if self._started is None else self._started
        return limit_s - (time.monotonic() - begun)

    def note(self, notices: Iterable[str]) -> None:
        """Add lines for the reader, each once."""
        self._notices += [text for text in notices if text not in self._notices]

    def tried(
        self,
        model: str,
        stage: str,
        at: float,
        error: BaseException | None,
        job_id: str | None,
        peak_memory_bytes: int = 0,
        took_s: float | None = None,
    ) -> None:
        """Write down one try of one stage; `at` is when it began, in Unix time; None: it took until now."""
        self.attempts.append(
            Attempt(
                model,
                stage,
                at,
                round(time.time() - at if took_s is None else took_s, 4),
                "ok" if error is None else type(error).__name__,
                getattr(error, "http_status", None),
                job_id or getattr(error, "job_id", None),
                peak_memory_bytes,
            )
        )

    @property
    def settled(self) -> bool:
        """Whether every call has ended."""
        ended = len(self._images.keys() | self._errors.keys() | self._cancelled)
        return ended >= self.planned.number

    def open_variants(self) -> tuple[int, ...]:
        """Return the calls that have not ended."""
        ended = {*self._images, *self._errors, *self._cancelled}
        return tuple(k for k in range(self.planned.number) if k not in ended)

    def result(self) -> Result:
        """Return what became of the task."""
        planned = self.planned
        images = tuple(image for k in sorted(self._images) for image in self._images[k])
        error = next((self._errors[k] for k in sorted(self._errors)), None)
        asked = planned.request.n
        if error is None and not self._cancelled and len(images) < asked:
            error = ReplyError(f"{planned.ref} made {len(images)} of {asked} images.")
        used = {other.ref.full for other in self._used.values()}
        now = time.monotonic()
        started = self._started if self._started is not None else now
        return Result(
            index=planned.index,
            request=planned.request,
            model=used.pop() if len(used) == 1 else planned.ref.full,
            model_asked=planned.asked,
            status=self._status(images, error),
            images=images,
            error=None if error is None else ErrorRecord.of(error),
            attempts=tuple(self.attempts),
            notices=tuple(self._notices),
            seconds=Seconds(
                round(started - self._begun, 3),
                round(max(0.0, now - started - self.download_s), 3),
                round(self.download_s, 3),
            ),
            cost_usd=self._cost_usd(),
            usage=dict(self._usage),
        )

    def _cost_usd(self) -> float | None:
        """What it cost, each call at the price of the model that made it, or was to make it."""
        total, n = 0.0, self.planned.request.n
        for variant, planned in {**self._owed, **self._used}.items():
            if planned.cost_usd is None:
                return None
            owed = n / self.planned.number  # images of one call
            images = len(self._images.get(variant, ())) if variant in self._used else owed
            total += planned.cost_usd * min(1.0, images / planned.request.n)
        return total if self._used or self.planned.cost_usd is not None else None

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
