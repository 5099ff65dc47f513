"""Leave out a model that keeps failing, for a while, so that a batch of 500 does not try it 500 times.

Stage: below the engine's workers. Comes in: how calls ended. Goes out: whether a model may be tried.
All of it runs on the one loop thread. Must not: wait, or choose the model that stands in.

A breaker is closed (all calls pass) until three calls in a row have failed; then it is open for a minute.
After that one call a period may try; when that works it is closed, when that fails the period doubles.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from nbimg.errors import (
    BackendError,
    ContentRefusedError,
    KeyRejectedError,
    NbimgError,
    QuotaExceededError,
    RejectedError,
)

__all__ = ["Breaker", "Breakers", "tells_of_the_model"]

#: So many failures in a row open it.
FAILURES = 3
#: How long it is open at first, in seconds.
PERIOD_S = 60.0
#: The longest that it is open, in seconds.
LONGEST_S = 600.0
#: The model is gone or not for this account: 404 and its kin. A 422 tells of one request only.
_GONE = (404, 405, 410)


class Breaker:
    """One model.

    Args:
        clock: Seconds that never go back.

    Attributes:
        last_error: The failure that counted last; None since it last worked.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.last_error: NbimgError | None = None
        self._clock = clock
        self._failures = 0
        self._period_s = 0.0  # 0: closed
        self._until = 0.0
        self._probing = False

    @property
    def closed(self) -> bool:
        """Whether every call may pass."""
        return not self._period_s

    @property
    def resting(self) -> bool:
        """Whether no call at all may pass now."""
        return not self.closed and self._clock() < self._until

    def allow(self) -> bool:
        """Whether this call may pass; when it is open, one a period may, to see if the model works.

        The next one may a period later even if nobody hears how this one ended.
        """
        if self.resting:
            return False
        if not self.closed:
            self._probing = True
            self._until = self._clock() + self._period_s
        return True

    def failed(self, error: BaseException) -> None:
        """A call failed for good; an error that tells nothing of the model changes nothing."""
        if not isinstance(error, NbimgError) or not tells_of_the_model(error):
            return
        self.last_error = error
        self._failures += 1
        if self.closed and self._failures < FAILURES:
            return
        if self.closed or self._probing:  # not one of those that were under way when it opened
            self._period_s = min(LONGEST_S, self._period_s * 2 or PERIOD_S)
            self._until = self._clock() + self._period_s
            self._probing = False

    def worked(self) -> None:
        """A call worked: closed, whatever was before."""
        self.last_error, self._failures, self._period_s, self._probing = None, 0, 0.0, False


class Breakers:
    """The breakers of a kernel, by the full name of the model.

    Args:
        clock: Seconds that never go back.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._breakers: dict[str, Breaker] = {}

    def of(self, model: str) -> Breaker:
        """Return the breaker of a model."""
        if model not in self._breakers:
            self._breakers[model] = Breaker(self._clock)
        return self._breakers[model]

    def resting(self) -> frozenset[str]:
        """Return the models that may not be tried now: no stand-ins for another one either."""
        return frozenset(model for model, one in self._breakers.items() if one.resting)


def tells_of_the_model(error: NbimgError) -> bool:
    """Whether an error says that the model, its provider or the account cannot be used now."""
    if isinstance(error, ContentRefusedError):
        return False
    if isinstance(error, RejectedError):
        account = isinstance(error, KeyRejectedError | QuotaExceededError)
        return account or error.http_status in _GONE
    return isinstance(error, BackendError)
