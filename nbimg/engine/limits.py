"""How much may be under way: permits and request windows, shared by all that uses one account.

Stage: below the engine's run. Comes in: a backend and the settings. Goes out: something to wait on.
The windows and the gate belong to the kernel's one loop thread; the permits are a semaphore
(`semaphore`), which the user's own code may hold as well.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

from nbimg.concurrency.foreign import Adapted, adapt
from nbimg.concurrency.semaphore import Semaphore, account_semaphore, own_limit
from nbimg.config import Rate, Settings
from nbimg.engine.forecast import Forecast, forecast
from nbimg.engine.gate import Gate, Passage
from nbimg.engine.window import Mark, Window
from nbimg.errors import SettingError

__all__ = ["Account", "Lane", "Limits", "Tell"]

#: A limit that was learned is tried again one higher after `limit` successes, after twice as many when
#: that was wrong, and so on up to this factor: each try that is wrong costs a refused request.
PATIENCE = 8

#: A wait that is longer than that is told, in seconds.
SOON_S = 0.5

#: The shortest sleep, in seconds: a remainder that the clock cannot show would never end.
SHORTEST_S = 1e-4

#: Told what is waited for, and until when as Unix time where that is known.
Tell = Callable[[str, float | None], None]

NOTHING: contextlib.nullcontext[None] = contextlib.nullcontext()


class Account:
    """What all calls to one account share: how many are under way, the windows, a pause, the gate.

    Args:
        semaphore: Its permits.

    Attributes:
        semaphore: As given.
        base: How many at once, when no call asks for more.
    """

    def __init__(self, semaphore: Semaphore) -> None:
        self.semaphore = semaphore
        self.base = semaphore.limit
        self._asked: Counter[int] = Counter()  # by the calls that are under way
        self._learned: int | None = None
        self._row = 0  # successes since it was learned, or last raised
        self._patience = 1
        self._turns: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._windows: dict[str, Window] = {}
        self._answered = asyncio.Event()
        self._paused_until = 0.0
        self._went_at = -math.inf  # when the last create was accepted
        self._gate = Gate()
        self._own: dict[int, Semaphore] = {}

    # ------------------------------------------------------------------ how many at once

    def own(self, limit: int) -> Semaphore:
        """Return the permits that all calls with that `concurrency` share."""
        if limit not in self._own:
            self._own[limit] = Semaphore(f"{self.semaphore.name} {limit}", limit)
        return self._own[limit]

    def ask(self, ceiling: int) -> None:
        """One more is under way of a call that may have so many of the account's permits."""
        self._asked[ceiling] += 1
        if self._asked[ceiling] == 1:
            self.fit()

    def unask(self, ceiling: int) -> None:
        """That one has ended."""
        self._asked[ceiling] -= 1
        if not self._asked[ceiling]:
            del self._asked[ceiling]
            self.fit()

    def fit(self) -> None:
        """Set the limit of the semaphore: what was asked for, what the user allows, what was learned."""
        limit = min(self._most(), self._learned or self._most())
        if limit != self.semaphore.limit:
            self.semaphore.limit = limit

    def crowded(self) -> None:
        """The server showed that fewer may be under way: half as many, once for what was sent together."""
        if not self._window("create").next_round():
            return
        if self._learned is not None:
            self._patience = min(2 * self._patience, PATIENCE)
        under_way = min(self.semaphore.limit, max(self.semaphore.held, 1))
        self._learned, self._row = (under_way + 1) // 2, 0
        self.fit()

    def went(self) -> None:
        """A create went through: after enough of them in a row, one more may be under way."""
        self._went_at = time.monotonic()
        if self._learned is None:
            return
        self._row += 1
        if self._row >= self._learned * self._patience:
            self._learned, self._row = self._learned + 1, 0
            if self._learned >= self._most():
                self._learned, self._patience = None, 1
            self.fit()

    def _most(self) -> int:
        most = max(self.base, *self._asked, 1)
        return min(most, self.semaphore.registered or most)

    # ------------------------------------------------------------------ how fast

    def limit(self, rates: Mapping[str, Rate]) -> None:
        """Set the windows; what has passed is remembered."""
        for stage, rate in rates.items():
            self._window(stage).rate = rate

    async def turn(
        self, stage: str, passage: Passage | None = None, tell: Tell | None = None
    ) -> Mark:
        """Wait for a request of that stage to fit: through the gate, no pause, room in the window."""
        window = self._window(stage)
        free = passage is None or passage.free
        if free and not self._turns[stage].locked() and self._rest_s(window, passage) <= 0:
            return window.take()
        with _told(tell, lambda: self._why(window, passage)):
            while True:
                if passage is not None:
                    await passage.enter()
                async with self._turns[stage]:  # first come, first served
                    await self._rest(window, passage)
                    if passage is None or passage.free:  # the gate may have narrowed meanwhile
                        return window.take()

    def used(self, stage: str) -> float:
        """Return which share of the window of a stage is taken, from 0 to 1."""
        return self._window(stage).used()

    def _rest_s(self, window: Window, passage: Passage | None) -> float:
        return max(self._ready_at(passage) - time.monotonic(), window.rest_s())

    def _why(self, window: Window, passage: Passage | None) -> tuple[str, float | None]:
        """Say what a request waits for, and until when; others that wait before it come on top."""
        name, rest_s = self.semaphore.name, self._rest_s(window, passage)
        until_utc = time.time() + rest_s if 0 < rest_s < math.inf else None
        if self._paused_until > time.monotonic():
            return f"{name} asked to slow down", until_utc
        if window.rate is not None and window.rest_s() > 0:
            rate = window.rate
            return f"{name} takes {rate.count} requests in {rate.seconds:g} s", until_utc
        return f"{name} takes one request at a time now", until_utc

    async def _rest(self, window: Window, passage: Passage | None) -> None:
        while (rest := self._rest_s(window, passage)) > 0:
            if rest == math.inf:
                self._answered.clear()
                await self._answered.wait()
            else:
                await asyncio.sleep(max(rest, SHORTEST_S))

    def _ready_at(self, passage: Passage | None) -> float:
        """When the pause is over and, for a create, the distance to the one before it is kept."""
        spaced = -math.inf if passage is None else self._went_at + self._gate.spacing_s
        return max(self._paused_until, spaced)

    def _window(self, stage: str) -> Window:
        if stage not in self._windows:
            self._windows[stage] = Window(heard=self._answered.set)
        return self._windows[stage]

    def passage(self) -> Passage:
        """Return the way of one create through the gate."""
        return Passage(self._gate)

    def pause(self, seconds: float, *, creates: bool = True, sparse: bool = False) -> None:
        """Hold back the whole account, and let its creates go one at a time then."""
        self._paused_until = max(self._paused_until, time.monotonic() + seconds)
        if creates:
            self._gate.narrow(seconds, sparse=sparse)

    def forecast(
        self, calls: int, at_once: int, each_s: float | None, noun: str = "task"
    ) -> Forecast:
        """Return how long so many calls take, after all that was sent before."""
        window = self._window("create")
        return forecast(
            calls,
            at_once=at_once if self._learned is None else min(at_once, self._learned),
            rate=window.rate,
            leaves_s=window.leaves_s(),
            each_s=each_s,
            noun=noun,
        )


class Lane:
    """An account as one call may use it.

    Args:
        account: Shared with all other calls.
        limit: How many of this lane's may be under way at once.
        ceiling: How many of the account's, whoever asks.
        also: A semaphore that each of this call's holds as well.
    """

    def __init__(
        self, account: Account, limit: int, ceiling: int, also: Semaphore | Adapted | None = None
    ) -> None:
        self.limit = limit
        self._account, self._ceiling = account, ceiling
        self._asks = ceiling > account.base
        self._own = account.own(limit)
        self._held = 0
        # the account's own is held anyway: twice would be to wait for oneself
        self._also = also if also is not account.semaphore else None

    @asynccontextmanager
    async def permit(self, tell: Tell | None = None) -> AsyncIterator[None]:
        """Hold one of the account's permits, and one of each other semaphore.

        Args:
            tell: Told once, when none is free for long and this lane holds none itself: that its own
                calls wait for each other is what a limit is for.
        """
        account = self._account
        async with AsyncExitStack() as held:
            with _told(tell if not self._held else None, self._why):
                await held.enter_async_context(self._own)
                if self._asks:
                    account.ask(self._ceiling)
                    held.callback(account.unask, self._ceiling)
                await held.enter_async_context(self._also or NOTHING)
                await held.enter_async_context(account.semaphore)
            self._held += 1
            try:
                yield
            finally:
                self._held -= 1

    def _why(self) -> tuple[str, None] | None:
        if self._held:
            return None
        full = [s for s in (self._also, self._account.semaphore) if isinstance(s, Semaphore)]
        name = next((s.name for s in full if s.held >= s.limit), None)
        if name is None and self._also is not None:
            return "a permit of the semaphore that was given is not free", None
        return f"other calls hold the permits of {name or self._account.semaphore.name}", None

    def passage(self) -> Passage:
        """Return the way of one create, with all its tries, through the account's gate."""
        return self._account.passage()

    async def turn(
        self, stage: str, passage: Passage | None = None, tell: Tell | None = None
    ) -> Mark:
        """Wait for a request of that stage (`create`, `read`) to fit, and write it down as sent.

        Args:
            stage: Which window it counts in.
            passage: That of a create.
            tell: Told once, when it has to wait for long.

        Returns:
            To be called when the request was answered, has failed or is given up, in every case: it
            counts as under way until then.
        """
        return await self._account.turn(stage, passage, tell)

    def used(self, stage: str) -> float:
        """Return which share of the window of a stage is taken, from 0 to 1."""
        return self._account.used(stage)

    def pause(self, seconds: float, *, creates: bool = True, sparse: bool = False) -> None:
        """Hold back the whole account: a 429 concerns every task of it.

        Args:
            seconds: For how long.
            creates: Whether it was a create that came too fast: they go one at a time then.
            sparse: Whether creates are taken only one at a time and seconds apart.
        """
        self._account.pause(seconds, creates=creates, sparse=sparse)

    def crowded(self) -> None:
        """The server showed that fewer may be under way; to be called before the create's mark is."""
        self._account.crowded()

    def went(self) -> None:
        """A create was accepted."""
        self._account.went()

    def forecast(self, calls: int, each_s: float | None = None, noun: str = "task") -> Forecast:
        """Return how long calls take at the limits.

        Args:
            calls: How many.
            each_s: How long one takes; None: not known.
            noun: What one is called in the text.
        """
        limit = self._also.limit if isinstance(self._also, Semaphore) else self.limit
        return self._account.forecast(calls, min(limit, self.limit), each_s, noun)


@contextlib.contextmanager
def _told(tell: Tell | None, why: Callable[[], tuple[str, float | None] | None]) -> Iterator[None]:
    """Tell once why it takes long, if what is done inside does; `why` gives None where nobody need know."""
    if tell is None:
        yield
        return

    def late() -> None:
        if (said := why()) is not None:
            tell(*said)

    timer = asyncio.get_running_loop().call_later(SOON_S, late)
    try:
        yield
    finally:
        timer.cancel()


class Limits:
    """The accounts of a kernel.

    Args:
        settings: Where the user's own limits are; read anew at each call.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._accounts: dict[str, Account] = {}

    def lane(
        self,
        account: str,
        default: int,
        rates: Mapping[str, Rate],
        asked: int | None = None,
        semaphore: Any = None,
    ) -> Lane:
        """Return the lane of an account.

        Args:
            account: Its name, and that of its semaphore: a provider's, or one with a slash behind it
                (`given.account`), to which the settings of the provider apply.
            default: The backend's own number of calls at once.
            rates: The backend's own windows.
            asked: `concurrency=` of the call: replaces the default, never a limit that the user set.
            semaphore: One that every call holds as well: see `foreign.adapt`.

        Raises:
            OptionError: When the semaphore is none.
            SettingError: When a limit is no whole number from 1, or a rate has no known form.
            UnknownNameError: When there is no semaphore of that name.
        """
        provider, _, _ = account.partition("/")
        permits = account_semaphore(account, default)
        own = min(
            filter(None, (own_limit(self._settings, provider), permits.registered)), default=None
        )
        ceiling = own or max(default, asked or 0)
        limit = min((n for n in (own, asked) if n is not None), default=default)
        if limit < 1:
            raise SettingError(f"concurrency {limit} of {account} is below 1.")
        rate = self._settings.provider(provider, "rate") or self._settings.get("rate")
        if rate is not None:
            rates = {**rates, "create": Rate.parse(str(rate))}
        reads = self._settings.provider(provider, "read_rate")
        if reads is not None:
            rates = {**rates, "read": Rate.parse(str(reads))}
        also = None if semaphore is None else adapt(semaphore)
        shared = self._accounts.get(account)
        if shared is None or shared.semaphore is not permits:
            shared = self._accounts[account] = Account(permits)
        shared.limit(rates)
        shared.base = own or default
        shared.fit()
        return Lane(shared, limit, ceiling, also)

    def forecast(
        self,
        account: str,
        calls: int,
        each_s: float | None = None,
        *,
        default: int,
        rates: Mapping[str, Rate],
        asked: int | None = None,
        semaphore: Any = None,
        noun: str = "task",
    ) -> Forecast:
        """Return how long calls take at the limits of an account.

        Args:
            account: As for `lane`, like `default`, `rates`, `asked` and `semaphore`.
            calls: How many.
            each_s: How long one takes, in seconds; None: not known.
            default: See `lane`.
            rates: See `lane`.
            asked: See `lane`.
            semaphore: See `lane`.
            noun: What a call is called in the text.
        """
        lane = self.lane(account, default, rates, asked, semaphore)
        return lane.forecast(calls, each_s, noun)
