"""How long calls take at the limits, said before they are sent.

Stage: below the limits. Comes in: how many calls, the limits, what was sent in the last minute. Goes out:
seconds, and the words of the plan. Must not: know an account.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from nbimg.config import Rate
from nbimg.display import words
from nbimg.engine.window import MARGIN

__all__ = ["Forecast", "forecast"]

_UNITS = {1.0: "a second", 60.0: "a minute", 3600.0: "an hour", 86400.0: "a day"}


@dataclass(frozen=True, slots=True)
class Forecast:
    """How long calls take at the limits.

    Attributes:
        seconds: From the first that is sent to the last that is done; None: not known.
        text: Which limit they wait for, and how long; empty when all fit at once.
    """

    seconds: float | None
    text: str


def forecast(
    calls: int,
    *,
    at_once: int,
    rate: Rate | None = None,
    leaves_s: Sequence[float] = (),
    each_s: float | None = None,
    noun: str = "task",
) -> Forecast:
    """Return how long `calls` take.

    >>> forecast(1200, at_once=600, rate=Rate(600, 60), each_s=5.0).text
    '1,200 tasks, 600 a minute: about 1 min 5 s'
    >>> forecast(100, at_once=8, each_s=6.0).text
    '100 tasks, 8 at once: about 1 min 18 s'

    Args:
        calls: How many.
        at_once: How many may be under way.
        rate: The window of the creates.
        leaves_s: In how many seconds each that counts in it now leaves it, first to last.
        each_s: How long one takes; None: not known.
        noun: What a call is called.
    """
    fed_s = _last_start_s(calls, None, rate, leaves_s, 0.0)  # as if any number could be under way
    many = words.count(calls, noun)
    if each_s is None:
        if fed_s > 0 and rate is not None:
            return Forecast(None, f"{many}, {_said(rate)}: at least {words.duration(fed_s)}")
        return Forecast(None, f"{many}, {at_once:,} at once" if calls > at_once else "")
    if calls <= at_once and fed_s <= 0:
        return Forecast(each_s if calls else 0.0, "")
    whole_s = each_s + _last_start_s(calls, at_once, rate, leaves_s, each_s)
    by_rate = fed_s > 0 and fed_s >= (math.ceil(calls / at_once) - 1) * each_s
    limit = _said(rate) if by_rate and rate is not None else f"{at_once:,} at once"
    return Forecast(whole_s, f"{many}, {limit}: about {words.duration(whole_s)}")


def _last_start_s(
    calls: int, at_once: int | None, rate: Rate | None, leaves_s: Sequence[float], each_s: float
) -> float:
    """Return when the last of them can be sent, in seconds from now."""
    starts: list[float] = []
    leaves = list(leaves_s)
    at = 0.0
    for number in range(calls):
        if at_once is not None and number >= at_once:
            at = max(at, starts[number - at_once] + each_s)
        starts.append(at)
        if rate is not None:
            if (over := len(leaves) - rate.count) >= 0:
                at = max(at, leaves[over])
                starts[-1] = at
            leaves.append(at + rate.seconds * (1 + MARGIN))
    return at


def _said(rate: Rate) -> str:
    """Return a rate as a person says it: `600 a minute`, `2 in 10 s`."""
    return f"{rate.count:,} {_UNITS.get(rate.seconds) or 'in ' + words.duration(rate.seconds)}"
