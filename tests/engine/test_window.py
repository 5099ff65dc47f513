import bisect
import math
import random
import time

import pytest

from nbimg.config import Rate
from nbimg.engine import window as module
from nbimg.engine.window import MARGIN, Window


class Clock:
    """Time as the test wants it; the wall clock jumps about."""

    def __init__(self):
        self.now = 1000.0

    def monotonic(self):
        return self.now

    def time(self):
        raise AssertionError("a window looks at the wall clock")


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(module, "time", clock)
    return clock


def test_a_batch_of_the_windows_size_fits_at_once_and_one_more_when_the_first_was_answered_long_ago(
    clock,
):
    window = Window(Rate(600, 60))
    marks = []
    for _ in range(600):
        assert window.rest_s() == 0
        marks.append(window.take())
    assert window.rest_s() == math.inf  # nobody knows when the first arrives
    clock.now += 5
    marks[0]()
    assert window.rest_s() == pytest.approx(60 * (1 + MARGIN))
    clock.now += 60.0
    assert 0 < window.rest_s() < 0.2
    clock.now += 60 * MARGIN + 1e-9
    assert window.rest_s() <= 0


def test_a_request_counts_as_long_as_it_is_under_way(clock):
    window = Window(Rate(1, 10))
    mark = window.take()
    clock.now += 1e6
    assert window.rest_s() == math.inf
    mark()
    assert window.rest_s() > 10


def test_a_mark_counts_once_however_often_it_is_called(clock):
    window = Window(Rate(3, 10))
    mark = window.take()
    for _ in range(5):
        mark()
    assert window.flying == 0
    window.take(), window.take()
    assert 10 < window.rest_s() < 11


def test_a_window_forgets_what_is_past(clock):
    window = Window(Rate(2, 10))
    for _ in range(50):
        window.take()()
        clock.now += 6
        assert window.rest_s() <= 0
    assert len(window._landed) <= 2


def test_a_rate_may_be_changed_and_what_has_passed_is_remembered(clock):
    window = Window(Rate(1, 60))
    window.take()()
    window.rate = Rate(3, 60)
    window.take()()
    window.take()()
    assert window.rest_s() > 59
    window.rate = None
    assert window.rest_s() == 0


def test_it_says_when_what_counts_will_leave(clock):
    window = Window(Rate(10, 60))
    window.take()()
    clock.now += 20
    window.take()
    first, second = window.leaves_s()
    assert (first, second) == pytest.approx((40.12, 60.12))


def test_what_was_sent_together_is_one_round(clock):
    window = Window()
    marks = [window.take() for _ in range(8)]
    assert window.next_round()
    soon, late = window.take(), window.take()
    soon()
    for mark in marks:
        assert not window.next_round()  # refused as well: they were sent before
        mark()
    assert window.next_round()
    assert not window.next_round()
    late()
    assert window.next_round()


@pytest.mark.parametrize("seed", range(30))
def test_no_server_that_counts_arrivals_ever_finds_more_than_the_rate(seed, clock):
    """The request may arrive at any moment between when it is sent and when it is answered."""
    chance = random.Random(seed)
    rate = Rate(chance.choice([1, 2, 5, 20]), chance.choice([0.5, 10.0, 60.0]))
    window, flying, arrivals = Window(rate), [], []
    slow = rate.seconds * chance.choice([0.001, 0.3, 3])
    for _ in range(400):
        if chance.random() < 0.6 and window.rest_s() <= 0:
            flying.append((clock.now, clock.now + chance.expovariate(1 / slow), window.take()))
        ends = min((end for _, end, _ in flying), default=math.inf)
        rest = window.rest_s()
        steps = [ends - clock.now, rest if 0 < rest < math.inf else math.inf]
        step = min(*steps, chance.expovariate(1 / rate.seconds))
        clock.now += max(step, 1e-9)
        for one in [one for one in flying if one[1] <= clock.now]:
            flying.remove(one)
            arrivals.append(chance.choice([one[0], one[1], chance.uniform(one[0], one[1])]))
            one[2]()
    arrivals.sort()
    assert len(arrivals) > 20
    for place, at in enumerate(arrivals):
        inside = bisect.bisect_left(arrivals, at + rate.seconds) - place
        assert inside <= rate.count


def test_fifty_thousand_requests_cost_little():
    window = Window(Rate(50_000, 60))
    began = time.perf_counter()
    for _ in range(50_000):
        assert window.rest_s() == 0
        window.take()()
    assert time.perf_counter() - began < 2


def test_it_says_which_share_of_it_is_taken_by_what_flies_and_what_has_landed():
    window = Window(Rate(4, 60))
    assert window.used() == 0
    first = window.take()
    window.take()
    first()
    assert window.used() == 0.5
    for _ in range(6):
        window.take()
    assert window.used() == 1
    assert Window().used() == 0
