"""How much may be under way: permits and request windows, one lane for each provider account.

Stage: below the engine's run. Comes in: a backend and the settings. Goes out: something to wait on.
Everything here belongs to the kernel's one loop thread, so that all cells share it.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

from nbimg.config import Rate, Settings
from nbimg.errors import SettingError

__all__ = ["Lane", "Limits", "Window"]

#: A server counts arrivals, not departures: the window is kept this much longer than it says.
MARGIN = 0.02


class Window:
    """At most `rate.count` passes in any `rate.seconds` seconds: a sliding log, with a margin."""

    def __init__(self, rate: Rate) -> None:
        self.rate = rate
        self._passed: deque[float] = deque()
        self._turn = asyncio.Lock()

    async def wait(self) -> None:
        """Return when one more request fits; first come, first served."""
        async with self._turn:
            span = self.rate.seconds * (1 + MARGIN)
            while len(self._passed) >= self.rate.count:
                rest = self._passed[0] + span - time.monotonic()
                if rest <= 0:
                    self._passed.popleft()
                else:
                    await asyncio.sleep(rest)
            self._passed.append(time.monotonic())


class Lane:
    """The limits of one account.

    Args:
        name: The account's.
        limit: Calls at once.
        rates: Stage (`create`, `read`) → request window.
    """

    def __init__(self, name: str, limit: int, rates: Mapping[str, Rate]) -> None:
        self.name = name
        self.limit = limit
        self._permits = asyncio.Semaphore(limit)
        self._windows = {stage: Window(rate) for stage, rate in rates.items()}
        self._paused_until = 0.0

    @asynccontextmanager
    async def permit(self) -> AsyncIterator[None]:
        """Hold one of the account's permits."""
        async with self._permits:
            yield

    async def turn(self, stage: str) -> None:
        """Wait for a request of that stage to fit: no pause, and room in the window."""
        while (rest := self._paused_until - time.monotonic()) > 0:
            await asyncio.sleep(rest)
        if stage in self._windows:
            await self._windows[stage].wait()

    def pause(self, seconds: float) -> None:
        """Hold back the whole account: a 429 concerns every task of it."""
        self._paused_until = max(self._paused_until, time.monotonic() + seconds)


class Limits:
    """The lanes of a kernel.

    Args:
        settings: Where the user's own limits are.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._lanes: dict[tuple[str, int], Lane] = {}

    def lane(
        self, account: str, default: int, rates: Mapping[str, Rate], asked: int | None = None
    ) -> Lane:
        """Return the lane of an account.

        Args:
            account: Its name.
            default: The backend's own number of calls at once.
            rates: The backend's own windows.
            asked: `concurrency=` of the call: replaces the default, never a limit that the user set.
        """
        own = self._settings.provider(account, "concurrency") or self._settings.get("concurrency")
        try:
            limit = min(int(own), asked or int(own)) if own else (asked or default)
        except ValueError:
            raise SettingError(f"concurrency {own!r} of {account} is not a number.") from None
        if limit < 1:
            raise SettingError(f"concurrency {limit} of {account} is below 1.")
        rate = self._settings.provider(account, "rate")
        if rate:
            rates = {**rates, "create": Rate.parse(rate)}
        key = (account, limit)
        if key not in self._lanes:
            self._lanes[key] = Lane(account, limit, rates)
        return self._lanes[key]
