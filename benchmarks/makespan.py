"""How long a large batch takes, beside the shortest time that is possible.

Without a rate window: every task takes 5 s at the provider, 200 are under way at a time; beside the ideal (no
time between two tasks), a bare asyncio + httpx loop that creates, polls and saves, and the official client in
a gather with a semaphore. Then with a window of creates: beside what a window of that kind allows at best.
There nbimg must see no 429, and what the official client loses is counted.

    python benchmarks/makespan.py            a quick look, about two minutes
    python benchmarks/makespan.py --full     2,000 tasks; the window in real time, about ten minutes
"""

from __future__ import annotations

import argparse
import heapq
import math
from collections import deque

from rivals import TITLES, Measure, Server, Work, measure, serving

from nbimg.testing import RateLimit

WANTED = 0.97
#: Requests a minute that are no creates, as Replicate documents them.
READS = 3000


def ideal_s(tasks: int, at_once: int, latency_s: float, count: float, window_s: float) -> float:
    """Return the shortest time for tasks of equal length.

    Args:
        tasks: How many.
        at_once: How many may be under way.
        latency_s: How long each takes.
        count: How many may begin in any window.
        window_s: Its length.
    """
    running: list[float] = []
    begun: deque[float] = deque()
    now = 0.0
    for _ in range(tasks):
        if len(running) == at_once:
            now = max(now, heapq.heappop(running))
        if len(begun) == count:
            now = max(now, begun.popleft() + window_s)
        begun.append(now)
        heapq.heappush(running, now + latency_s)
    return max(running)


def compare(ideal: float, work: Work, server: Server, ways: tuple[str, ...]) -> dict[str, Measure]:
    """Run the ways in turn and print a line each."""
    print(f"  {'ideal':18} {ideal:7.2f} s")
    rows = {}
    for way in ways:
        rows[way] = row = measure(way, work, server)
        share = (
            f"{ideal / row.seconds:6.1%} of the ideal" if not row.lost else "did not do it all   "
        )
        print(
            f"  {TITLES[way]:18} {row.seconds:7.2f} s  {share}"
            f"  429s {row.refused:5}  lost {row.lost:5}  jobs {row.creates}"
        )
    return rows


def main() -> None:
    """Run both comparisons."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tasks", type=int, default=400, help="without a window")
    parser.add_argument("--at-once", type=int, default=200)
    parser.add_argument("--latency", type=float, default=5.0, help="seconds of a job")
    parser.add_argument("--window-tasks", type=int, default=2000, help="with a window; 0: not")
    parser.add_argument("--count", type=int, default=600, help="creates a minute")
    parser.add_argument("--speed", type=float, default=10.0, help="of the clock with a window")
    parser.add_argument("--full", action="store_true", help="2,000 tasks, the clock at speed 1")
    known = parser.parse_args()
    if known.full:
        known.tasks, known.speed = 2000, 1.0
    latency = known.latency

    print(f"{known.tasks} tasks of {latency:g} s, {known.at_once} at once")
    work = Work(known.tasks, known.at_once, poll_s=0.5, hold=True, warm=0)
    ideal = ideal_s(known.tasks, known.at_once, latency, math.inf, 0)
    with serving(starting_s=0, running_s=latency, image_side_px=16) as server:
        rows = compare(ideal, work, server, ("bare", "official", "nbimg"))
    against = rows["bare"].seconds / rows["nbimg"].seconds
    print(f"  nbimg has {against:.1%} of the bare loop's speed (wanted: {WANTED:.0%})")
    if not known.window_tasks:
        return

    window_s = 60 / known.speed
    print(
        f"{known.window_tasks} tasks of {latency / known.speed:g} s, {known.at_once} at once, "
        f"{known.count} creates in {window_s:g} s"
    )
    work = Work(
        known.window_tasks,
        known.at_once,
        poll_s=0.5 / known.speed,
        hold=True,
        rate=f"{known.count}/{window_s:g}s",
        reads=f"{READS}/{window_s:g}s",
        warm=0,
    )
    ideal = ideal_s(known.window_tasks, known.at_once, latency / known.speed, known.count, window_s)
    knobs = {
        "running_s": latency,
        "image_side_px": 16,
        "speed": known.speed,
        "create_limit": RateLimit(known.count, known.count),
        "other_limit": RateLimit(READS, READS),
    }
    with serving(**knobs) as server:
        nbimg = compare(ideal, work, server, ("nbimg",))["nbimg"]
    with serving(**knobs) as server:  # a window that nobody has used
        compare(ideal, work, server, ("official",))
    print(
        f"  nbimg has {ideal / nbimg.seconds:.1%} of what the window allows (wanted: {WANTED:.0%}),"
        f" and {nbimg.refused} calls were refused (wanted: 0)"
    )


if __name__ == "__main__":
    main()
