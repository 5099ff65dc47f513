"""Thousands of random schedules in virtual time, and what must hold after each.

`SCHEDULES=20000 pytest tests/engine/test_properties.py` looks longer; `SCHEDULES=17:18` looks at seed 17 alone.
"""

import os
import random

import pytest

from nbimg.engine import pace
from tests.engine import schedules
from tests.engine.invariants import wrongs
from tests.engine.schedules import draw

BLOCKS = 8


@pytest.fixture(autouse=True)
def unhurried(isolated, monkeypatch):
    """Time costs nothing here: what vanishes in other tests has its own length."""
    monkeypatch.setattr(pace, "FIRST_S", 0.5)
    monkeypatch.setattr(pace, "SHORTEST_S", 0.2)


def seeds():
    first, _, last = os.environ.get("SCHEDULES", "1200").rpartition(":")
    return range(int(first or 0), int(last))


def run(schedule, empty):
    """What is wrong after a schedule."""
    state = random.getstate()
    try:
        return wrongs(schedules.run(schedule, empty))
    except AssertionError as error:  # it hangs, or never ends
        return [f"{type(error).__name__}: {error}"]
    finally:
        random.setstate(state)


def simplest(schedule, empty, most=300):
    """Take away whatever is not needed for a schedule to go wrong."""
    tries = iter(range(most))
    again = True
    while again:
        again = False
        for simpler in schedule.simpler():
            if next(tries, None) is None:
                return schedule
            if run(simpler, empty):
                schedule, again = simpler, True
                break
    return schedule


def test_a_seed_always_gives_the_same_run(tmp_path):
    for seed in range(5):
        one, other = (schedules.run(draw(seed), tmp_path) for _ in range(2))
        assert one.server.jobs == other.server.jobs
        assert one.disk.rows == other.disk.rows
        assert one.clock.now == other.clock.now


@pytest.mark.parametrize("block", range(BLOCKS))
def test_whatever_goes_wrong_nothing_paid_is_lost_and_no_limit_is_passed(block, tmp_path):
    for seed in seeds()[block::BLOCKS]:
        schedule = draw(seed)
        if run(schedule, tmp_path):
            schedule = simplest(schedule, tmp_path)
            text = "\n".join(run(schedule, tmp_path))
            pytest.fail(f"SCHEDULES={seed}:{seed + 1}\n{schedule}\n{text}", pytrace=False)
