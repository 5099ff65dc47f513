import asyncio
import random
import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbimg.engine import pace as module
from nbimg.engine.pace import LONGEST_S, Pace

OWN = module.FIRST_S, module.SHORTEST_S  # before the tests' own make waits vanish
SECONDS = st.floats(0, 4000, allow_nan=False)


@given(st.lists(st.tuples(SECONDS, st.integers(1, 50))), SECONDS, st.integers(0, 500))
def test_a_wait_is_never_negative_and_never_long_enough_to_miss_an_end(jobs, elapsed, polls):
    pace = Pace()
    for job in jobs:
        pace.learn(*job)
    assert 0 <= pace.wait_s(elapsed, polls) <= LONGEST_S


def test_an_unknown_model_is_asked_soon_and_then_less_often():
    waits = [Pace().wait_s(0, polls) for polls in range(150)]
    assert waits == sorted(waits)
    assert waits[-1] == LONGEST_S


def test_a_known_model_is_asked_when_it_should_be_ready():
    pace = Pace()
    pace.learn(4.0, 5)
    assert 3.0 < pace.wait_s(0.0, 0) < 4.0
    assert pace.wait_s(3.6, 1) < 1


def test_one_cold_start_does_not_make_the_next_jobs_wait_as_long():
    pace = Pace()
    pace.learn(300.0, 60)
    assert pace.wait_s(0.0, 0) <= LONGEST_S


def test_a_model_that_is_quicker_than_thought_is_soon_known_to_be():
    pace = Pace()
    pace.learn(4.0, 5)
    for _ in range(12):
        pace.learn(pace.wait_s(0.0, 0), 1)
    assert pace.wait_s(0.0, 0) < 1


@pytest.fixture
def own(monkeypatch):
    """The waits as they are outside of tests."""
    monkeypatch.setattr(module, "FIRST_S", OWN[0])
    monkeypatch.setattr(module, "SHORTEST_S", OWN[1])


def kept(mean, spread, jobs=200, seed=1, used=0.0):
    """How late the ends are seen on average, in seconds, and how often a job is asked for."""
    drawn, pace = random.Random(seed), Pace()
    late, looks = [], []
    for number in range(jobs):
        end, now, polls = mean * max(0.3, drawn.gauss(1, spread)), 0.0, 0
        while now < end:
            last = pace.wait_s(now, polls, used)
            now, polls = now + last, polls + 1
        pace.learn(now, polls, last)
        if number >= 20:
            late.append(now - end)
            looks.append(polls)
    return statistics.fmean(late), statistics.fmean(looks)


@pytest.mark.parametrize("mean", [1.5, 3, 8, 20])
@pytest.mark.parametrize("spread", [0.0, 0.03, 0.1])
def test_an_end_is_seen_three_times_as_soon_as_by_half_seconds_at_no_more_looks(mean, spread, own):
    found = [kept(mean, spread, seed=seed) for seed in range(6)]
    late, looks = map(statistics.fmean, zip(*found, strict=True))
    assert late <= 0.25 / 3
    assert looks <= mean / 0.5 + 0.5


def test_jobs_of_very_different_length_cost_no_more_than_half_seconds(own):
    late, looks = kept(3, 0.5)
    assert late <= 0.4
    assert looks <= 8


def test_jobs_that_begin_together_do_not_look_together():
    pace = Pace()
    first = [pace.wait_s(0.0, 0) for _ in range(20)]
    assert len({round(wait, 4) for wait in first}) == 20


def test_one_early_end_does_not_make_a_model_quick():
    pace = Pace()
    for _ in range(20):
        pace.learn(4.0, 5)
    pace.learn(pace.wait_s(0.0, 0), 1)
    assert pace.expected_s > 3.8


def test_the_fewer_requests_are_left_the_fewer_looks_a_job_gets(own):
    plenty, half, none = (kept(5, 0.05, used=used) for used in (0.0, 0.5, 1.0))
    assert plenty[1] > 1.3 * half[1] > 1.3 * none[1]
    assert plenty[0] < half[0] < none[0] < 1


def test_an_unknown_model_is_asked_less_often_when_few_requests_are_left(own):
    waits = [Pace().wait_s(0, 3, used) for used in (0.0, 0.5, 1.0)]
    assert waits == [0.5, 1.0, LONGEST_S]


def looks_until(pace, ends_s, began):
    """One job that is looked at until it has ended; when that was seen, and how often it was looked at."""

    async def watch():
        clock, polls = asyncio.get_running_loop().time, 0
        while (now := clock() - began()) < ends_s or not polls:
            last = await pace.rest(now, polls)
            polls += 1
        pace.learn(now := clock() - began(), polls, last)
        return now, polls

    return watch()


async def crowd(count, ends_s):
    """So many jobs of an unknown model that end at the same time."""
    pace, clock = Pace(), asyncio.get_running_loop().time
    start = clock()
    return await asyncio.gather(*(looks_until(pace, ends_s, lambda: start) for _ in range(count)))


@pytest.mark.parametrize("count", [5, 60])
def test_the_first_end_tells_all_that_wait_and_a_crowd_asks_no_more_than_a_few(
    count, own, monkeypatch
):
    monkeypatch.setattr(module, "FIRST_S", 0.2)
    found = asyncio.run(crowd(count, 0.6))
    seen, looks = zip(*found, strict=True)
    assert sum(looks) / count <= (5.5 if count == 5 else 3)
    assert statistics.fmean(seen) < 0.6 + 0.1
    assert max(seen) < 0.6 + 0.2
