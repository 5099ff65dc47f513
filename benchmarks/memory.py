"""Memory a task: what a batch of many small images holds beyond a batch of few.

The peak of the whole process is read from the system for both sizes, each in a process of its own; the
difference is divided by the difference in tasks. It holds everything: the requests, the tasks under way, the
results. With `--trace` the same by Python's own count (slow, and without what is not Python's).

    python benchmarks/memory.py              200 and 2,000 tasks
    python benchmarks/memory.py --full       1,000 and 50,000 tasks, some minutes
"""

from __future__ import annotations

import argparse
from dataclasses import replace

from rivals import TITLES, WAYS, Work, measure, serving

WANTED_BYTES = 2048


def main() -> None:
    """Run each way with few and with many tasks and print bytes a task."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--few", type=int, default=200)
    parser.add_argument("--many", type=int, default=2000)
    parser.add_argument("--at-once", type=int, default=32)
    parser.add_argument("--only", choices=WAYS, help="one of the ways")
    parser.add_argument("--trace", action="store_true", help="count Python's allocations")
    parser.add_argument("--full", action="store_true", help="1,000 and 50,000 tasks")
    known = parser.parse_args()
    if known.full:
        known.few, known.many = 1000, 50_000
    few = Work(known.few, known.at_once, trace=known.trace)
    print(f"from {known.few:,} to {known.many:,} tasks, {known.at_once} at once")
    for way in [known.only] if known.only else WAYS:
        with serving(image_side_px=16) as server:  # one each: it remembers every call
            small = measure(way, few, server)
            large = measure(way, replace(few, tasks=known.many), server)
        more = known.many - known.few
        each = (large.peak_bytes - small.peak_bytes) / more
        traced = (large.traced_bytes - small.traced_bytes) / more
        print(
            f"  {TITLES[way]:18} {small.peak_bytes / 1e6:6.1f} -> {large.peak_bytes / 1e6:6.1f} MB"
            f"  {each:7.0f} bytes a task"
            + (f" ({traced:.0f} traced)" if known.trace else "")
            + f"  lost {large.lost}"
        )
    print(f"  (wanted of nbimg: at most {WANTED_BYTES} bytes a task)")


if __name__ == "__main__":
    main()
