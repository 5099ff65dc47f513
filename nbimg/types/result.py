"""What became of a task: how it ended, what was tried, what it cost.

Stage: part of the vocabulary (`nbimg.types`). Must not: hold the bytes of an image.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, Self

from nbimg import errors
from nbimg.errors import NbimgError
from nbimg.types.image import ImageRecord
from nbimg.types.plain import NOTHING, plain_fields, put
from nbimg.types.request import Request

__all__ = ["Attempt", "ErrorRecord", "Result", "Seconds", "Status"]


class Status(StrEnum):
    """How a task ended."""

    OK = "ok"
    PARTIAL = "partial"
    FAILED = "failed"
    REFUSED = "refused"
    CANCELLED = "cancelled"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class ErrorRecord:
    """Why a task failed, as data.

    Attributes:
        kind: Name of the error class in `nbimg.errors`.
        message: One line.
        hint: What to do about it.
        http_status: Where there was one.
        job_id: The provider's job id, where there was one.
    """

    kind: str
    message: str
    hint: str | None = None
    http_status: int | None = None
    job_id: str | None = None

    @classmethod
    def of(cls, error: BaseException) -> ErrorRecord:
        """Record an exception; one that is not ours keeps its class name."""
        message = error.message if isinstance(error, NbimgError) else str(error)
        return cls(
            type(error).__name__,
            message or type(error).__name__,
            getattr(error, "hint", None),
            getattr(error, "http_status", None),
            getattr(error, "job_id", None),
        )

    def exception(self) -> NbimgError:
        """Return the error as an exception of its own class, for `raise … from`."""
        kind = getattr(errors, self.kind, None)
        if isinstance(kind, type) and issubclass(kind, errors.BackendError):
            return kind(
                self.message, hint=self.hint, http_status=self.http_status, job_id=self.job_id
            )
        return errors.NbimgError(f"{self.kind}: {self.message}", hint=self.hint)

    def __str__(self) -> str:
        return f"{self.message} {self.hint}" if self.hint else self.message


@dataclass(frozen=True, slots=True)
class Attempt:
    """One try of one stage.

    Attributes:
        model: The full name of the model that was tried.
        stage: `create`, `run`, `download` or `local`.
        at_utc: Unix time in seconds when it began.
        seconds: How long it took; on this machine its share of a call that several tasks share.
        outcome: `ok`, or the name of the error class.
        http_status: Where there was one.
        job_id: The provider's job id, where there was one.
        peak_memory_bytes: The most memory that it took on this machine's device; 0: nobody counted.
    """

    model: str
    stage: str
    at_utc: float
    seconds: float
    outcome: str
    http_status: int | None = None
    job_id: str | None = None
    peak_memory_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Seconds:
    """Where the time of a task went, in seconds."""

    queued: float = 0.0
    running: float = 0.0
    download: float = 0.0


@dataclass(frozen=True, slots=True)
class Result:
    """What became of one task.

    Attributes:
        index: 0-based place of the task in its batch.
        request: What was asked.
        model: Full name of the model that was used.
        model_asked: What the user (or the default) asked for.
        status: How it ended.
        images: What was made, variants in order.
        error: Why it failed, if it did.
        attempts: Every try, oldest first.
        notices: What was translated, dropped or replaced, and why.
        seconds: Queued, running, download.
        cost_usd: What it cost; None where the price is unknown.
        cached: Whether it came from the store at no cost.
        usage: What the providers counted, added up over its calls: `input_tokens`, `output_tokens` …;
            empty where they tell nothing.
    """

    index: int
    request: Request
    model: str
    model_asked: str | None = None
    status: Status = Status.OK
    images: tuple[ImageRecord, ...] = ()
    error: ErrorRecord | None = None
    attempts: tuple[Attempt, ...] = ()
    notices: tuple[str, ...] = ()
    seconds: Seconds = Seconds()
    cost_usd: float | None = None
    cached: bool = False
    usage: Mapping[str, int] = field(default_factory=lambda: NOTHING, hash=False)

    def __post_init__(self) -> None:
        if not self.usage:
            put(self, "usage", NOTHING)

    def __reduce__(self) -> tuple[Any, ...]:
        return (Result.from_dict, (self.to_dict(),))

    def to_dict(self) -> dict[str, Any]:
        """Return JSON data, from which `from_dict` builds an equal result."""
        return plain_fields(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Build a result from what `to_dict` gave."""
        values = dict(data)
        values["request"] = Request.from_dict(values["request"])
        values["status"] = Status(values["status"])
        values["images"] = tuple(
            ImageRecord(**{**image, "path": Path(image["path"]) if image["path"] else None})
            for image in values["images"]
        )
        values["error"] = ErrorRecord(**values["error"]) if values["error"] else None
        values["attempts"] = tuple(Attempt(**attempt) for attempt in values["attempts"])
        values["notices"] = tuple(values["notices"])
        values["seconds"] = Seconds(**values["seconds"])
        return cls(**values)
