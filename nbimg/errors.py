"""Every error that nbimg raises on purpose, and how one looks in a notebook.

Stage: below everything. Comes in: a message and a hint. Goes out: an exception that a cell shows as
one line and a hint. Must not: import anything of nbimg, or hold a credential.

    NbimgError                      message, hint; shows itself in a cell as one line + hint
    ├─ InputError                   what the user typed or passed does not fit
    │  ├─ CellSyntaxError           line, column: the text of a cell
    │  ├─ OptionError               allowed: an option or its value
    │  ├─ UnknownNameError          closest: a model, variable, key or file that is not there
    │  └─ ImageInputError           an image that cannot be read
    ├─ SetupError                   something is missing before any work can start
    │  ├─ KeyMissingError           no credential for a provider
    │  ├─ DependencyMissingError    an extra that is not installed
    │  ├─ SettingError              a setting with a value that does not fit
    │  └─ OfflineError              NbImg.offline is set, and it is not in the store
    ├─ BudgetError                  it would cost more than the budget, or nobody knows what it costs
    ├─ BackendError                 backend, model, job_id, http_status, retry_after_s; resubmit
    │  ├─ UnreachableError          before acceptance: may be sent again
    │  ├─ BusyError                 429/503: may be sent again after retry_after_s
    │  ├─ RejectedError             never sent again
    │  │  ├─ KeyRejectedError       the credential is wrong
    │  │  ├─ QuotaExceededError     no money, no quota
    │  │  └─ ContentRefusedError    the prompt or the picture was refused
    │  ├─ JobFailedError            accepted, then failed there; `transient` says it may pass
    │  ├─ OutcomeUnknownError       lost after acceptance, may have been charged: never sent again unasked
    │  └─ ReplyError                the reply does not fit: where, never what was secret
    ├─ StoreError                   the results on disk
    │  ├─ StoreWriteError           disk full, read-only, not permitted
    │  ├─ ResultMissingError        a file that should be there is not
    │  └─ ResultDamagedError        a file is not what was written
    └─ GenerationError              a single call failed: .result holds the Result, __cause__ the error
"""

from __future__ import annotations

import difflib
import traceback
from collections.abc import Iterable, Sequence
from typing import Any, ClassVar

__all__ = [
    "BackendError",
    "BudgetError",
    "BusyError",
    "CellSyntaxError",
    "ContentRefusedError",
    "DependencyMissingError",
    "GenerationError",
    "ImageInputError",
    "InputError",
    "JobFailedError",
    "KeyMissingError",
    "KeyRejectedError",
    "NbimgError",
    "OfflineError",
    "OptionError",
    "OutcomeUnknownError",
    "QuotaExceededError",
    "RejectedError",
    "ReplyError",
    "ResultDamagedError",
    "ResultMissingError",
    "SettingError",
    "SetupError",
    "StoreError",
    "StoreWriteError",
    "UnknownNameError",
    "UnreachableError",
    "closest",
]


class NbimgError(Exception):
    """Base of all. `str(error)` is one line; `hint` says what to do about it."""

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.debug = False  # set by --debug: the cell then shows the whole traceback

    def __str__(self) -> str:
        return f"{self.message} {self.hint}" if self.hint else self.message

    def _render_traceback_(self) -> list[str]:
        """Lines that IPython shows in place of a traceback."""
        if self.debug:
            return [line.rstrip("\n") for line in traceback.format_exception(self)]
        lines = [f"{type(self).__name__}: {self.message}"]
        if self.hint:
            lines.append(f"  {self.hint}")
        return lines


class InputError(NbimgError):
    """What the user typed or passed does not fit."""


class CellSyntaxError(InputError):
    """The text of a cell cannot be read.

    Args:
        message: What is wrong.
        line: 1-based line in the body of the cell (0: the `%%` line).
        column: 1-based column in that line.
        hint: What to write instead.
    """

    def __init__(self, message: str, *, line: int, column: int, hint: str | None = None) -> None:
        place = f"line {line}" if line else "on the line of the magic"
        super().__init__(f"{place}, column {column}: {message}", hint=hint)
        self.line = line
        self.column = column


class OptionError(InputError):
    """An option, or the value of one, is not allowed; `allowed` lists what is."""

    def __init__(
        self, message: str, *, allowed: Sequence[str] = (), hint: str | None = None
    ) -> None:
        super().__init__(message, hint=hint)
        self.allowed = tuple(allowed)


class UnknownNameError(InputError):
    """A name that does not exist; `closest` holds the nearest ones that do.

    Args:
        kind: What sort of name: `model`, `variable`, `file`, `key` …
        name: What was asked for.
        known: The names that exist.
        hint: What to do, when no known name is near.
    """

    def __init__(
        self, kind: str, name: str, *, known: Iterable[str] = (), hint: str | None = None
    ) -> None:
        self.closest = closest(name, known)
        near = f"Did you mean {' or '.join(self.closest)}?" if self.closest else None
        super().__init__(
            f"no {kind} {name!r}.", hint=" ".join(part for part in (near, hint) if part) or None
        )
        self.kind = kind
        self.name = name


class ImageInputError(InputError):
    """An image that was given cannot be read as one."""


class SetupError(NbimgError):
    """Something is missing before any work can start."""


class KeyMissingError(SetupError):
    """No credential for a provider in any of the three tiers."""


class DependencyMissingError(SetupError):
    """An optional package is not installed; the hint is the command that installs it."""


class SettingError(SetupError):
    """A setting has a value that does not fit, and where it came from."""


class OfflineError(SetupError):
    """`NbImg.offline` is set, and what was asked for is not in the store."""


class BudgetError(NbimgError):
    """A call would cost more than its budget, or its price is unknown; nothing was sent."""


class BackendError(NbimgError):
    """A model or its provider did not do what was asked.

    Attributes:
        resubmit: Whether sending the same request again can never be charged twice.
        transient: Whether it can pass by itself.
        backend: Name of the backend, for example `replicate`.
        model: The provider's model id.
        job_id: The provider's job id, where one was given.
        http_status: The HTTP status, where there was one.
        retry_after_s: Seconds that the provider asked to wait.
    """

    resubmit: ClassVar[bool] = False
    transient: bool = False

    def __init__(
        self,
        message: str,
        *,
        hint: str | None = None,
        backend: str | None = None,
        model: str | None = None,
        job_id: str | None = None,
        http_status: int | None = None,
        retry_after_s: float | None = None,
        transient: bool | None = None,
    ) -> None:
        super().__init__(message, hint=hint)
        self.backend = backend
        self.model = model
        self.job_id = job_id
        self.http_status = http_status
        self.retry_after_s = retry_after_s
        if transient is not None:
            self.transient = transient


class UnreachableError(BackendError):
    """The request never reached the provider: it may be sent again."""

    resubmit = True
    transient = True


class BusyError(BackendError):
    """The provider asks to wait (429, 503): it may be sent again after `retry_after_s`.

    Attributes:
        crowded: Whether it said that too many are under way at once, not that they came too fast.
        sparse: Whether it said that it takes only one create at a time, and seconds apart.
    """

    resubmit = True
    transient = True

    def __init__(self, message: str, *, crowded: bool = False, **known: Any) -> None:
        super().__init__(message, **known)
        self.crowded = crowded
        self.sparse = False


class RejectedError(BackendError):
    """The provider refused the request; the same one is never sent again."""


class KeyRejectedError(RejectedError):
    """The provider does not accept the credential."""


class QuotaExceededError(RejectedError):
    """The account has no money or no quota left."""


class ContentRefusedError(RejectedError):
    """The prompt or the picture was refused by the provider's content rules."""


class JobFailedError(BackendError):
    """The job was accepted and failed there; `transient` where its provider says it may pass."""


class OutcomeUnknownError(BackendError):
    """The request may have been accepted and charged, but no job id came back."""


class ReplyError(BackendError):
    """The reply does not have the form that the provider documents."""


class StoreError(NbimgError):
    """The results on disk."""


class StoreWriteError(StoreError):
    """A file cannot be written: disk full, read-only, not permitted."""


class ResultMissingError(StoreError):
    """A file that should be there is not."""


class ResultDamagedError(StoreError):
    """A file is not what was written."""


class GenerationError(NbimgError):
    """A call with a single prompt failed.

    Attributes:
        result: The `Result`, with its attempts and what was kept.
    """

    def __init__(self, message: str, *, result: Any = None, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.result = result


def closest(name: str, known: Iterable[str], *, limit: int = 3) -> tuple[str, ...]:
    """Return the known names that are near `name`, nearest first.

    >>> closest("flux-dve", ["flux-dev", "imagen-4-ultra"])
    ('flux-dev',)
    """
    return tuple(difflib.get_close_matches(name, list(known), n=limit, cutoff=0.6))
