"""A request window that no server which counts arrivals can find too full: a sliding log.

Stage: below the limits. Comes in: a rate, and when requests are sent and answered. Goes out: when one more
fits. Must not: wait, or look at the wall clock.

A request arrives at the server after it was sent and before it is answered. So it counts while it is under
way, however long, and for the length of the window after its answer: whatever moment between the two the
server wrote down, it has left the server's window when it leaves this one.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable

from nbimg.config import Rate

__all__ = ["MARGIN", "Mark", "Window"]

#: A window is kept this much longer than it says: two clocks do not run quite alike.
MARGIN = 0.002


class Mark:
    """One request: to be called when its answer came, or when nobody waits for it any longer.

    Args:
        window: Where it counts.
    """

    __slots__ = ("_round", "_window")

    def __init__(self, window: Window) -> None:
        self._window: Window | None = window
        self._round = window.round

    def __call__(self) -> None:
        """The request is over; again has no effect."""
        if self._window is not None:
            self._window.answered(self._round)
            self._window = None


class Window:
    """At most `rate.count` requests in any `rate.seconds` seconds, and how many are under way.

    Args:
        rate: None: any number; may be changed, what has passed is remembered.
        heard: Called after each answer.

    Attributes:
        rate: As given.
        flying: How many are under way.
        round: Number of the round that requests sent now belong to.
    """

    def __init__(self, rate: Rate | None = None, heard: Callable[[], None] = lambda: None) -> None:
        self.rate = rate
        self._heard = heard
        self.flying = 0
        self.round = 0
        self._before = 0  # under way since before this round
        self._landed: deque[float] = deque()

    def take(self) -> Mark:
        """Write down that a request is sent now; what it returns is called when it was answered."""
        self.flying += 1
        return Mark(self)

    def answered(self, number: int) -> None:
        """A request of that round is over; called by its mark."""
        self.flying -= 1
        self._before -= number < self.round
        if self.rate is not None:
            self._landed.append(time.monotonic())
        self._heard()

    def rest_s(self) -> float:
        """Return the seconds until one more fits; 0: now; infinite: not before one is answered."""
        if self.rate is None:
            return 0.0
        over = self._forget() + self.flying - self.rate.count
        if over < 0:
            return 0.0
        if over >= len(self._landed):
            return math.inf
        return self._landed[over] + _span_s(self.rate) - time.monotonic()

    def used(self) -> float:
        """Return which share of the window is taken, from 0 to 1; 0 where there is no window."""
        if self.rate is None:
            return 0.0
        return min(1.0, (self._forget() + self.flying) / self.rate.count)

    def leaves_s(self) -> list[float]:
        """Return in how many seconds each that counts leaves the window, were all answered now."""
        if self.rate is None:
            return []
        self._forget()
        span, now = _span_s(self.rate), time.monotonic()
        return [at + span - now for at in self._landed] + [span] * self.flying

    def next_round(self) -> bool:
        """Begin a round, if nothing that was sent before this one is still under way."""
        if self._before:
            return False
        self._before = self.flying
        self.round += 1
        return True

    def _forget(self) -> int:
        """Drop what has left; return how many that were answered still count."""
        assert self.rate is not None
        gone = time.monotonic() - _span_s(self.rate)
        while self._landed and self._landed[0] <= gone:
            self._landed.popleft()
        return len(self._landed)


def _span_s(rate: Rate) -> float:
    return rate.seconds * (1 + MARGIN)
