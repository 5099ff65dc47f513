"""The engine's own cost: 1,000 tasks of zero latency, beside a bare asyncio + httpx loop.

All post, poll, download and save the same small images from the same local server, with the same number of
tasks at once, each in a process of its own. The bare loop retries nothing, journals nothing and flushes
nothing to the disk. Then the same 1,000 tasks once more in the same folder, which the store answers.

    python benchmarks/engine.py [--tasks 1000] [--at-once 32] [--rounds 3]
"""

from __future__ import annotations

import argparse
import statistics

from rivals import TITLES, Measure, Work, measure, serving


def show(way: str, measured: Measure, tasks: int) -> None:
    """Print what a way took in one round."""
    each = measured.cpu_s / tasks * 1000
    print(
        f"  {TITLES[way]:18} {measured.seconds:6.2f} s  {tasks / measured.seconds:6.0f} tasks/s"
        f"  {each:6.2f} ms of processor a task  lost {measured.lost}"
    )


def main() -> None:
    """Run all in turn and print seconds, processor seconds and their ratios."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tasks", type=int, default=1000)
    parser.add_argument("--at-once", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=3)
    known = parser.parse_args()
    work = Work(known.tasks, known.at_once)
    rounds = []
    with serving(image_side_px=16) as server:
        for number in range(known.rounds):
            print(f"round {number + 1}")
            row = {
                "bare": measure("bare", work, server),
                "official": measure("official", work, server),
                "nbimg": measure("nbimg", Work(known.tasks, known.at_once, again=True), server),
            }
            for way, measured in row.items():
                show(way, measured, known.tasks)
            rounds.append(row)

    def ratio(name: str, way: str) -> float:
        return statistics.median(
            getattr(row["nbimg"], name) / getattr(row[way], name) for row in rounds
        )

    print(f"{known.tasks} tasks, {known.at_once} at once, median of {known.rounds} rounds:")
    for way in ("bare", "official"):
        print(
            f"  nbimg takes {ratio('cpu_s', way):5.2f} x the processor time and"
            f" {ratio('seconds', way):5.2f} x the time of the {TITLES[way]}"
        )
    print("  (wanted: at most 1.50 x the processor time of the bare loop, better 1.20)")
    again = statistics.median(row["nbimg"].again_s for row in rounds)
    cached = min(row["nbimg"].cached for row in rounds)
    print(
        f"  once more: {again:.2f} s, {cached} of {known.tasks} from the store (wanted: below 1 s)"
    )


if __name__ == "__main__":
    main()
