"""When to ask a provider how a job stands: learned from how long the model's jobs have taken.

Stage: below the engine's run. Comes in: durations. Goes out: how long to wait before the next poll.
"""

from __future__ import annotations

__all__ = ["Pace"]

FIRST_S = 0.5
SHORTEST_S = 0.2
LONGEST_S = 5.0
#: A model this quick is asked at once: waiting would cost more than a request.
INSTANT_S = 0.05


class Pace:
    """The pace of one model: an exponential average of its jobs' seconds, from create to end."""

    def __init__(self) -> None:
        self._expected_s: float | None = None

    @property
    def expected_s(self) -> float | None:
        """How long a job takes, in seconds; None: nothing is known yet."""
        return self._expected_s

    def learn(self, seconds: float, polls: int) -> None:
        """Take in a job that had ended when it was asked for the `polls`-th time.

        One that had ended at the first look took any time up to that: half of it is the best guess,
        and a model that is quicker than the guess brings it down job by job.
        """
        guess = seconds / 2 if polls == 1 else seconds
        known = self._expected_s
        self._expected_s = guess if known is None else 0.7 * known + 0.3 * guess

    def wait_s(self, elapsed_s: float, polls: int) -> float:
        """Return the seconds to wait before the next poll.

        Args:
            elapsed_s: Since the job was created.
            polls: How many there were.
        """
        expected = self._expected_s
        if expected is None:
            return min(LONGEST_S, FIRST_S * 1.3**polls)
        if polls == 0:
            rest = 0.9 * expected - elapsed_s
            # one cold start must not make the next jobs, which are quick, wait as long
            return 0.0 if expected < INSTANT_S else min(LONGEST_S, max(SHORTEST_S, rest))
        overdue = max(0.0, elapsed_s - expected)
        return min(LONGEST_S, max(SHORTEST_S, 0.08 * expected + 0.15 * overdue))
