"""How much may be under way: permits and request windows, shared by all that uses one account.

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
from nbimg.engine.gate import Gate, Passage
from nbimg.errors import SettingError

__all__ = ["Account", "Lane", "Limits", "Window"]

#: A server counts arrivals, not departures: the window is kept this much longer than it says.
MARGIN = 0.02


class Window:
    """At most `rate.count` passes in any `rate.seconds` seconds: a sliding log, with a margin."""

    def __init__(self, rate: Rate) -> None:
        self.rate = rate
        self._passed: deque[float] = deque()

    def rest_s(self) -> float:
        """Return the seconds until one more request fits; 0 or less: now."""
        now, span = time.monotonic(), self.rate.seconds * (1 + MARGIN)
        while self._passed and self._passed[0] + span <= now:
            self._passed.popleft()
        over = len(self._passed) - self.rate.count
        return self._passed[over] + span - now if over >= 0 else 0.0

    def take(self) -> None:
        """Write down a request."""
        self._passed.append(time.monotonic())


class Account:
    """What all calls to one account share: how many are under way, the windows, a pause, the gate."""

    def __init__(self) -> None:
        self._busy = 0
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()
        self._turns: dict[str, asyncio.Lock] = {}
        self._windows: dict[str, Window] = {}
        self._paused_until = 0.0
        self._gate = Gate()

    def limit(self, rates: Mapping[str, Rate]) -> None:
        """Set the windows; what has passed is remembered."""
        for stage, rate in rates.items():
            self._windows.setdefault(stage, Window(rate)).rate = rate

    @asynccontextmanager
    async def permit(self, ceiling: int) -> AsyncIterator[None]:
        """Hold a permit; it is given while fewer than `ceiling` are held, first come, first served."""
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((ceiling, turn))
        self._wake()
        try:
            await turn
            yield
        finally:
            if turn.done() and not turn.cancelled():
                self._busy -= 1
            self._wake()

    def _wake(self) -> None:
        """Give free permits to those who wait, and forget those who went away."""
        for entry in list(self._waiting):
            ceiling, turn = entry
            if turn.done():
                self._waiting.remove(entry)
            elif self._busy < ceiling:
                self._busy += 1
                self._waiting.remove(entry)
                turn.set_result(None)

    async def turn(self, stage: str, passage: Passage | None = None) -> None:
        """Wait for a request of that stage to fit: through the gate, no pause, room in the window."""
        window = self._windows.get(stage)
        while True:
            if passage is not None:
                await passage.enter()
            async with self._turns.setdefault(stage, asyncio.Lock()):  # first come, first served
                while (rest := self._rest_s(window)) > 0:  # noqa: ASYNC110  # nobody sets the clock
                    await asyncio.sleep(rest)
                if passage is None or passage.free:  # the gate may have narrowed meanwhile
                    if window is not None:
                        window.take()
                    return

    def passage(self) -> Passage:
        """Return the way of one create through the gate."""
        return Passage(self._gate)

    def _rest_s(self, window: Window | None) -> float:
        pause = self._paused_until - time.monotonic()
        return max(pause, window.rest_s()) if window is not None else pause

    def pause(self, seconds: float) -> None:
        """Hold back the whole account, and let its creates go one at a time then."""
        self._paused_until = max(self._paused_until, time.monotonic() + seconds)
        self._gate.narrow()


class Lane:
    """An account as one call may use it.

    Args:
        account: Shared with all other calls.
        limit: How many of this lane's may be under way at once.
        ceiling: How many of the account's, whoever asks.
    """

    def __init__(self, account: Account, limit: int, ceiling: int) -> None:
        self.limit = limit
        self._account, self._ceiling = account, ceiling
        self._own = asyncio.Semaphore(limit)

    @asynccontextmanager
    async def permit(self) -> AsyncIterator[None]:
        """Hold one of the account's permits."""
        async with self._own, self._account.permit(self._ceiling):
            yield

    def passage(self) -> Passage:
        """Return the way of one create, with all its tries, through the account's gate."""
        return self._account.passage()

    async def turn(self, stage: str, passage: Passage | None = None) -> None:
        """Wait for a request of that stage (`create`, `read`) to fit.

        Args:
            stage: Which window it counts in.
            passage: That of a create.
        """
        await self._account.turn(stage, passage)

    def pause(self, seconds: float) -> None:
        """Hold back the whole account: a 429 concerns every task of it."""
        self._account.pause(seconds)


class Limits:
    """The accounts of a kernel.

    Args:
        settings: Where the user's own limits are; read anew at each call.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._accounts: dict[str, Account] = {}
        self._lanes: dict[tuple[str, int, int], Lane] = {}

    def lane(
        self, account: str, default: int, rates: Mapping[str, Rate], asked: int | None = None
    ) -> Lane:
        """Return the lane of an account.

        Args:
            account: Its name.
            default: The backend's own number of calls at once.
            rates: The backend's own windows.
            asked: `concurrency=` of the call: replaces the default, never a limit that the user set.

        Raises:
            SettingError: When a limit is no whole number from 1, or a rate has no known form.
        """
        own = self._own(account)
        ceiling = own or max(default, asked or 0)
        limit = min((n for n in (own, asked) if n is not None), default=default)
        if limit < 1:
            raise SettingError(f"concurrency {limit} of {account} is below 1.")
        rate = self._settings.provider(account, "rate")
        if rate is not None:
            rates = {**rates, "create": Rate.parse(str(rate))}
        shared = self._accounts.setdefault(account, Account())
        shared.limit(rates)
        return self._lanes.setdefault((account, limit, ceiling), Lane(shared, limit, ceiling))

    def _own(self, account: str) -> int | None:
        """The user's own limit of calls at once, or None."""
        own = self._settings.provider(account, "concurrency")
        own = self._settings.get("concurrency") if own is None else own
        try:
            limit = None if own is None else int(own)
        except (TypeError, ValueError):
            raise SettingError(f"concurrency {own!r} of {account} is not a number.") from None
        if limit is not None and limit < 1:
            raise SettingError(f"concurrency {limit} of {account} is below 1.")
        return limit
