import pytest

from nbimg.engine.breaker import FAILURES, LONGEST_S, PERIOD_S, Breaker, Breakers
from nbimg.errors import (
    BusyError,
    ContentRefusedError,
    InputError,
    JobFailedError,
    KeyRejectedError,
    OutcomeUnknownError,
    QuotaExceededError,
    RejectedError,
    ReplyError,
    StoreWriteError,
    UnreachableError,
)


class Clock:
    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def breaker(clock):
    return Breaker(clock)


def fail(breaker, times=FAILURES, error=None):
    for _ in range(times):
        breaker.failed(error or JobFailedError("it broke."))


def test_it_is_closed_until_three_calls_in_a_row_have_failed(breaker):
    fail(breaker, 2)
    breaker.worked()
    fail(breaker, 2)
    assert breaker.closed
    assert breaker.allow()
    fail(breaker, 1)
    assert not breaker.closed
    assert not breaker.allow()
    assert breaker.last_error.message == "it broke."


@pytest.mark.parametrize(
    "error",
    [
        JobFailedError("x"),
        UnreachableError("x"),
        BusyError("x"),
        ReplyError("x"),
        OutcomeUnknownError("x"),
        KeyRejectedError("x", http_status=401),
        QuotaExceededError("x", http_status=402),
        RejectedError("x", http_status=404),
    ],
)
def test_what_says_that_a_model_cannot_be_used_opens_it(breaker, error):
    fail(breaker, error=error)
    assert not breaker.closed
    assert breaker.last_error is error


@pytest.mark.parametrize(
    "error",
    [
        RejectedError("x", http_status=422),
        RejectedError("x", http_status=400),
        ContentRefusedError("x"),
        InputError("x"),
        StoreWriteError("x"),
        ZeroDivisionError(),
    ],
)
def test_what_says_nothing_of_the_model_does_not_count(breaker, error):
    fail(breaker, 2)
    fail(breaker, 5, error)
    assert breaker.closed
    assert breaker.last_error.message == "it broke."
    fail(breaker, 1)
    assert not breaker.closed


def test_after_a_minute_one_call_may_try_and_the_next_only_a_period_later(breaker, clock):
    fail(breaker)
    clock.now += PERIOD_S - 1
    assert not breaker.allow()
    clock.now += 1
    assert [breaker.allow() for _ in range(3)] == [True, False, False]
    clock.now += PERIOD_S  # nobody heard how it ended: it was cancelled
    assert [breaker.allow() for _ in range(2)] == [True, False]


def test_a_try_that_works_closes_it_and_one_that_fails_doubles_the_time(breaker, clock):
    fail(breaker)
    waits = []
    for _ in range(6):
        began = clock.now
        while not breaker.allow():
            clock.now += 1
        waits.append(clock.now - began)
        fail(breaker, 1)
    assert waits == [60, 120, 240, 480, LONGEST_S, LONGEST_S]
    clock.now += LONGEST_S
    assert breaker.allow()
    breaker.worked()
    assert breaker.closed
    assert breaker.last_error is None
    fail(breaker, 2)
    assert breaker.closed
    fail(breaker, 1)
    clock.now += PERIOD_S  # as short as at first
    assert breaker.allow()


def test_calls_that_were_under_way_when_it_opened_do_not_lengthen_it(breaker, clock):
    fail(breaker, 8)
    clock.now += PERIOD_S
    assert breaker.allow()


def test_a_batch_of_500_tries_a_broken_model_a_few_times(breaker):
    tried = 0
    for _ in range(500):
        if breaker.allow():
            tried += 1
            fail(breaker, 1)
    assert tried == FAILURES


def test_each_model_has_its_own_and_those_that_rest_are_named(clock):
    breakers = Breakers(clock)
    fail(breakers.of("a"))
    fail(breakers.of("b"), 2)
    assert breakers.of("a") is breakers.of("a")
    assert breakers.resting() == {"a"}
    clock.now += PERIOD_S
    assert breakers.resting() == frozenset()
