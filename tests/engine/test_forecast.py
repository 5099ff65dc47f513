import math

import pytest

from nbimg.config import Rate, Settings
from nbimg.engine.forecast import Forecast, forecast
from nbimg.engine.limits import Limits

MINUTE = Rate(600, 60)


def test_nothing_is_said_when_all_fit_at_once():
    assert forecast(8, at_once=8, rate=MINUTE, each_s=5.0) == Forecast(5.0, "")
    assert forecast(0, at_once=8, rate=MINUTE, each_s=5.0) == Forecast(0.0, "")
    assert forecast(8, at_once=8, rate=MINUTE) == Forecast(None, "")


def test_the_window_binds_when_many_may_be_under_way():
    told = forecast(1200, at_once=2000, rate=MINUTE, each_s=5.0)
    assert told.text == "1,200 tasks, 600 a minute: about 1 min 5 s"
    assert told.seconds == pytest.approx(65, abs=0.2)
    assert forecast(1201, at_once=2000, rate=MINUTE, each_s=5.0).seconds > 125


def test_the_permits_bind_when_calls_are_slow():
    told = forecast(1200, at_once=8, rate=MINUTE, each_s=5.0)
    assert told == Forecast(750.0, "1,200 tasks, 8 at once: about 12 min")


def test_both_together_take_at_least_as_long_as_each_alone():
    for calls in (10, 601, 1500):
        for at_once in (1, 30, 700):
            for each_s in (0.05, 2.0, 30.0):
                both = forecast(calls, at_once=at_once, rate=MINUTE, each_s=each_s).seconds
                waves = math.ceil(calls / at_once) * each_s
                fed = (calls - 1) // 600 * 60 + each_s
                assert max(waves, fed) - 1e-6 <= both <= waves + fed * 1.01


def test_what_was_sent_before_counts():
    told = forecast(10, at_once=20, rate=Rate(10, 60), leaves_s=[30.0] * 10, each_s=2.0)
    assert told == Forecast(32.0, "10 tasks, 10 a minute: about 32 s")


def test_without_a_known_time_it_promises_no_more_than_it_knows():
    assert (
        forecast(1200, at_once=800, rate=MINUTE).text == "1,200 tasks, 600 a minute: at least 1 min"
    )
    assert forecast(100, at_once=8, rate=MINUTE) == Forecast(None, "100 tasks, 8 at once")


@pytest.mark.parametrize(
    ("rate", "said"),
    [
        (Rate(5, 1), "5 a second"),
        (Rate(2, 10), "2 in 10 s"),
        (Rate(3600, 3600), "3,600 an hour"),
        (Rate(1, 86400), "1 a day"),
    ],
)
def test_a_rate_is_said_as_people_say_it(rate, said):
    assert said in forecast(4000, at_once=9000, rate=rate, each_s=0.1).text


def test_an_account_counts_what_it_has_sent_and_the_smallest_of_its_limits():
    import asyncio

    async def go():
        own = Limits(Settings({"NBIMG_REPLICATE_RATE": "5/60s"}))
        lane = own.lane("replicate", 8, {"create": MINUTE})
        assert lane.forecast(5, 1.0).text == ""
        (await lane.turn("create"))()
        assert lane.forecast(5, 1.0).text == "5 tasks, 5 a minute: about 1 min 1 s"
        told = own.forecast("replicate", 4, 100.0, default=8, rates={}, asked=2, noun="call")
        assert told == Forecast(200.0, "4 calls, 2 at once: about 3 min 20 s")

    asyncio.run(go())
