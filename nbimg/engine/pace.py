"""When to ask a provider how a job stands: learned from how long the model's jobs have taken.

Stage: below the engine's run. Comes in: durations. Goes out: how long to wait before the next poll.

A client that looks every half second learns of an end a quarter of a second late, and asks all the time
before it for nothing. Here a job is left alone until the first of its kind are likely to have ended, and
the looks that this saves are spent around the time when it should end: closer, and no more of them.
"""

from __future__ import annotations

import asyncio
import math

__all__ = ["Pace"]

#: How often a model is asked of which nothing is known.
FIRST_S = 0.5
SHORTEST_S = 0.05
LONGEST_S = 5.0
#: A model this quick is asked at once: waiting would cost more than a request.
INSTANT_S = 0.05
#: How far jobs of one model are apart, as a share of their seconds: at least, and before it is known.
LEAST_SPREAD, FIRST_SPREAD = 0.02, 0.1
#: The least weight of a new job in the averages.
WEIGHT = 0.1
#: A model that ends so many jobs in a row before the first look is quicker than it was thought to be.
QUICKER = 3
#: An unknown model is asked at the same pace so many times, then less and less often.
STEADY, SLOWER = 10, 1.05
#: Looks become scarce with the requests that are left, to this share of their number at most.
LEAST_LEFT = 0.1
#: So many jobs of an unknown model are each asked at that pace, more of them less often: one end tells all.
CROWD = 10
#: How often a known model is asked in all, as if it were every so many seconds; a part of it is for those
#: that take longer than thought. A quick one is asked so often at least.
EVERY_S, SHARE, LOOKS = 0.5, 0.9, 1.3


class Pace:
    """The pace of one model: averages of its jobs' seconds, from create to end, and of their spread."""

    def __init__(self) -> None:
        self._expected_s: float | None = None
        self._variance = 0.0
        self._learned = 0
        self._begun = 0  # jobs that began while nothing was known
        self._waiting = 0  # of them, those that wait for their next look now
        self._early = 0  # jobs in a row that had ended at the first look
        self._first: asyncio.Event | None = None  # set when the first job has ended

    @property
    def expected_s(self) -> float | None:
        """How long a job takes, in seconds; None: nothing is known yet."""
        return self._expected_s

    def learn(self, seconds: float, polls: int, last_s: float = 0.0) -> None:
        """Take in a job that had ended when it was asked for the `polls`-th time.

        Args:
            seconds: From its create to that look.
            polls: How many looks there were; 0: it was answered at once, and has no spread to learn.
            last_s: The wait before the last one, in which it ended; half of it is the best guess.
        """
        known = self._expected_s
        self._learned += 1
        self._early = self._early + 1 if polls == 1 else 0
        if known is None:
            self._expected_s = seconds / 2 if polls == 1 else seconds - last_s / 2
            self._variance = (FIRST_SPREAD * self._expected_s) ** 2
            if self._first is not None:
                self._first.set()
            return
        if self._early >= QUICKER:
            guess, weight = seconds / 2, 3 * WEIGHT
        else:
            guess = seconds if polls <= 1 else seconds - last_s / 2
            weight = max(WEIGHT, 1 / self._learned)
        self._expected_s = known + weight * (guess - known)
        away = max(-known, min(guess - known, known))  # one cold start tells little of the spread
        weight = max(WEIGHT, 1 / (self._learned + 3))
        self._variance = (1 - weight) * (self._variance + weight * away**2)

    def wait_s(self, elapsed_s: float, polls: int, used: float = 0.0) -> float:
        """Return the seconds to wait before the next poll.

        Args:
            elapsed_s: Since the job was created.
            polls: How many there were.
            used: Which share of the account's requests is spent, 0 to 1: the scarcer, the fewer looks.
        """
        expected, scarce = self._expected_s, max(LEAST_LEFT, 1 - used)
        if expected is None:
            return min(LONGEST_S, self._unknown_s(polls) / scarce)
        if polls == 0 and expected < INSTANT_S:
            return 0.0
        spread = max(math.sqrt(self._variance), LEAST_SPREAD * expected)
        looks = max(LOOKS, SHARE * (expected / EVERY_S - 1) * scarce)
        # of normal times, 1 in 2 * looks ends before this: as late as a look apart costs on average
        ahead = (math.sqrt(2 * math.log(looks)) - 0.3) * spread
        early = expected - ahead - elapsed_s
        overdue = max(0.0, elapsed_s - expected - 3 * spread)
        apart = ahead / looks
        wait = early if early > apart else max(SHORTEST_S / scarce, apart + 0.1 * overdue)
        return min(LONGEST_S, wait)

    async def rest(self, elapsed_s: float, polls: int, used: float = 0.0) -> float:
        """Wait until the next poll; the first end of a model's jobs tells all that wait when to look.

        Args:
            elapsed_s: Since the job was created.
            polls: How many there were.
            used: See `wait_s`.

        Returns:
            The seconds since the last look, or since the call.
        """
        waited = 0.0
        if self._expected_s is None:
            waited = await self._until_known(self.wait_s(elapsed_s, polls, used))
            if self._expected_s is None:
                return waited
        wait = self.wait_s(elapsed_s + waited, polls, used)
        await asyncio.sleep(wait)
        return waited + wait

    async def _until_known(self, wait_s: float) -> float:
        """Wait so long, or until the first job has ended; return the seconds."""
        self._first = self._first or asyncio.Event()
        clock = asyncio.get_running_loop().time
        began = clock()
        self._waiting += 1
        try:
            async with asyncio.timeout(wait_s):
                await self._first.wait()
        except TimeoutError:
            pass
        finally:
            self._waiting -= 1
        return clock() - began

    def _unknown_s(self, polls: int) -> float:
        each = FIRST_S * max(1.0, self._waiting / CROWD)
        if polls:
            return min(LONGEST_S, each * max(1.0, SLOWER ** (polls - STEADY)))
        self._begun += 1  # not all at the same time, so that one of them sees the first end soon
        return min(LONGEST_S, each) * (self._begun * 0.618 % 1)
