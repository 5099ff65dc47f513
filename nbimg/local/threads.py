"""How many threads a model on the CPU gets.

Stage: around the import of torch, and around a call of a pipeline. Comes in: what else the processors do.
Goes out: a number of threads, for one call. Must not: override what a user has set.

Threads that work on one small step after the other wait for the slowest of them. When two share a core, each
step takes as long as the core is away: a picture that takes 0.2 s on one thread took 2 s on two of which one
had to share (two cores, one of them busy). So a thread is not started for a core that others use.
"""

from __future__ import annotations

import contextlib
import functools
import os
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["Cores", "gentle", "shared"]

#: Variables by which a user decides.
CHOSEN_BY = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")
#: A core that others use for less than this share of the time counts as free.
STRAY = 0.3
#: Shortest time over which use is counted, in seconds; at first, and later.
FIRST_S, COUNTED_S = 0.1, 0.5
#: How often a thread of OpenMP looks for work before it sleeps. By itself it burns the core for
#: milliseconds, which the thread that it waits for may need: steps on two threads of which one had to share
#: took 1.4 s, and 0.3 to 0.6 s like this; on a quiet machine 0.27 s instead of 0.21 s.
SPINS = "2000"


@contextlib.contextmanager
def gentle() -> Iterator[None]:
    """Have OpenMP, which is read in with torch inside, wait without burning the core."""
    if "torch" in sys.modules:
        yield
        return
    _counted()  # the import takes seconds, over which the others are seen
    if any(name in os.environ for name in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")):
        yield
        return
    os.environ["GOMP_SPINCOUNT"] = SPINS
    try:
        yield
    finally:
        os.environ.pop("GOMP_SPINCOUNT", None)  # no business of whatever the kernel starts


@dataclass
class Cores:
    """Counts what other processes do on the cores that this one may use."""

    _at_s: float = 0.0
    _busy_s: float = 0.0
    _own_s: float = 0.0
    _others: float = 0.0
    _known: bool = False

    def __post_init__(self) -> None:
        self._at_s, self._busy_s, self._own_s = self._look()

    def free(self) -> float:
        """Return how many cores nobody else has used since the last look, or the one before it."""
        at_s, busy_s, own_s = self._look()
        if not self._known and at_s - self._at_s < FIRST_S:
            time.sleep(FIRST_S)
            at_s, busy_s, own_s = self._look()
        if not self._known or at_s - self._at_s >= COUNTED_S:
            self._known = True
            others_s = (busy_s - self._busy_s) - (own_s - self._own_s)
            self._others = max(0.0, others_s / (at_s - self._at_s))
            self._at_s, self._busy_s, self._own_s = at_s, busy_s, own_s
        return _allowed() - self._others

    @staticmethod
    def _look() -> tuple[float, float, float]:
        """Time, time that our cores were busy, time that they were busy for this process; seconds."""
        import psutil

        mine = _affinity()
        busy = 0.0
        for number, times in enumerate(psutil.cpu_times(percpu=True)):
            if mine is None or number in mine:
                away = times.idle + getattr(times, "iowait", 0.0)
                busy += sum(times[: min(len(times), 8)]) - away  # guests are counted in user time
        own = time.process_time()
        return time.monotonic(), busy, own


@functools.cache
def _counted() -> Cores:
    """The count of this process."""
    return Cores()


@contextlib.contextmanager
def shared(torch: Any) -> Iterator[int]:
    """Let torch use as many threads as there are free cores, inside; yield how many.

    A number that the user has set, by a variable or by `torch.set_num_threads`, stays.
    """
    before = torch.get_num_threads()
    if before == 1 or before not in _defaults() or any(name in os.environ for name in CHOSEN_BY):
        yield before
        return
    wanted = max(1, min(before, int(_counted().free() + STRAY)))
    torch.set_num_threads(wanted)
    try:
        yield wanted
    finally:
        torch.set_num_threads(before)


def _affinity() -> set[int] | None:
    return os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else None


def _allowed() -> float:
    """How many cores this process may use; a container may have less than it sees."""
    count = float(len(_affinity() or range(os.cpu_count() or 1)))
    with contextlib.suppress(OSError, ValueError):
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text("ascii").split()
        count = min(count, int(quota) / int(period))  # "max" is no number: no limit
    return count


def _defaults() -> set[int]:
    """What torch starts with when nobody says anything: all cores, or all that are whole ones."""
    import psutil

    every = len(_affinity() or range(os.cpu_count() or 1))
    return {every, os.cpu_count() or 1, psutil.cpu_count(logical=False) or every}
