from hypothesis import given
from hypothesis import strategies as st

from nbimg.engine.pace import LONGEST_S, Pace

SECONDS = st.floats(0, 4000, allow_nan=False)


@given(st.lists(st.tuples(SECONDS, st.integers(1, 50))), SECONDS, st.integers(0, 500))
def test_a_wait_is_never_negative_and_never_long_enough_to_miss_an_end(jobs, elapsed, polls):
    pace = Pace()
    for job in jobs:
        pace.learn(*job)
    assert 0 <= pace.wait_s(elapsed, polls) <= LONGEST_S


def test_an_unknown_model_is_asked_soon_and_then_less_often():
    waits = [Pace().wait_s(0, polls) for polls in range(30)]
    assert waits == sorted(waits)
    assert waits[-1] == LONGEST_S


def test_a_known_model_is_asked_when_it_should_be_ready():
    pace = Pace()
    pace.learn(4.0, 5)
    assert 3.5 < pace.wait_s(0.0, 0) < 4.0
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
