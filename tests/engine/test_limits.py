import asyncio
import time

import pytest

import nbimg
from nbimg.config import Rate, Settings
from nbimg.engine.limits import MARGIN, Account, Limits, Window
from nbimg.errors import SettingError
from nbimg.testing import RateLimit
from nbimg.types import Status

RATES = {"create": Rate(600, 60)}


def limits(**environ):
    return Limits(Settings({f"NBIMG_{k}": v for k, v in environ.items()}))


async def most_at_once(*lanes, each=10):
    busy, most = 0, 0

    async def work(lane):
        nonlocal busy, most
        async with lane.permit():
            busy += 1
            most = max(most, busy)
            await asyncio.sleep(0.001)
            busy -= 1

    await asyncio.gather(*(work(lane) for lane in lanes for _ in range(each)))
    return most


@pytest.mark.parametrize(
    ("environ", "asked", "most"),
    [
        ({}, None, 4),
        ({}, 2, 2),
        ({}, 7, 7),
        ({"REPLICATE_CONCURRENCY": "3"}, 7, 3),
        ({"REPLICATE_CONCURRENCY": "3"}, 2, 2),
        ({"REPLICATE_CONCURRENCY": "6"}, None, 6),
        ({"CONCURRENCY": "5"}, None, 5),
        ({"CONCURRENCY": "5", "REPLICATE_CONCURRENCY": "2"}, 9, 2),
    ],
)
def test_concurrency_of_a_call_replaces_the_default_but_never_the_users_own(environ, asked, most):
    async def go():
        return await most_at_once(limits(**environ).lane("replicate", 4, RATES, asked))

    assert asyncio.run(go()) == most


def test_calls_with_different_concurrency_share_the_account():
    async def go():
        own = limits()
        lanes = [own.lane("replicate", 4, RATES, asked) for asked in (None, 2, 3)]
        return await most_at_once(*lanes)

    assert asyncio.run(go()) == 4


def test_a_permit_that_is_waited_for_in_vain_comes_back():
    async def go():
        account = Account()
        async with account.permit(1):
            waiting = asyncio.create_task(account.permit(1).__aenter__())
            await asyncio.sleep(0)
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)
        async with asyncio.timeout(1), account.permit(1):
            return True

    assert asyncio.run(go())


def test_a_permit_given_to_one_who_is_cancelled_at_that_moment_comes_back():
    async def go():
        account = Account()

        async def hold():
            async with account.permit(1):
                await asyncio.sleep(10)

        first = asyncio.create_task(hold())
        await asyncio.sleep(0)
        second = asyncio.create_task(hold())
        await asyncio.sleep(0)
        first.cancel()
        await asyncio.sleep(0)  # the permit goes to the second …
        second.cancel()  # … which never takes it
        await asyncio.gather(first, second, return_exceptions=True)
        async with asyncio.timeout(1), account.permit(1):
            return True

    assert asyncio.run(go())


@pytest.mark.parametrize("value", ["0", "-1", "many"])
def test_a_limit_that_means_nothing_is_refused(value):
    with pytest.raises(SettingError, match="concurrency"):
        limits(REPLICATE_CONCURRENCY=value).lane("replicate", 4, RATES)


def test_no_window_of_the_length_of_the_rate_ever_holds_more_than_its_count():
    passed = []

    async def go():
        own = limits(REPLICATE_RATE="5/0.1s")
        lane = own.lane("replicate", 100, RATES)

        async def send(_):
            await lane.turn("create")
            passed.append(time.monotonic())

        await asyncio.gather(*map(send, range(23)))

    asyncio.run(go())
    assert len(passed) == 23
    assert all(later - earlier >= 0.1 for earlier, later in zip(passed, passed[5:], strict=False))
    assert passed[-1] - passed[0] < 0.1 * (1 + MARGIN) * 5 + 0.2


def test_a_batch_that_fits_the_window_starts_at_once():
    async def go():
        lane = limits().lane("replicate", 8, RATES)
        began = time.monotonic()
        for _ in range(600):
            await lane.turn("create")
        return time.monotonic() - began

    assert asyncio.run(go()) < 1


def test_the_window_is_the_accounts_whatever_concurrency_a_call_asks_for():
    async def go():
        own = limits(REPLICATE_RATE="2/10s")
        for asked in (None, 3):
            await own.lane("replicate", 8, RATES, asked).turn("create")
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await own.lane("replicate", 8, RATES, 5).turn("create")

    asyncio.run(go())


def test_a_pause_holds_back_every_call_of_the_account_and_then_ends():
    async def go():
        own = limits()
        one, other = (own.lane("replicate", 8, RATES, asked) for asked in (None, 2))
        one.pause(0.1)
        one.pause(0.01)  # a shorter one does not end a longer one
        began = time.monotonic()
        await asyncio.gather(other.turn("create"), other.turn("read"))
        return time.monotonic() - began

    assert 0.095 < asyncio.run(go()) < 0.5


def test_a_pause_that_begins_while_the_window_is_waited_for_is_obeyed():
    async def go():
        lane = limits(REPLICATE_RATE="1/0.05s").lane("replicate", 8, RATES)
        await lane.turn("create")
        began = time.monotonic()
        waiting = asyncio.create_task(lane.turn("create"))
        await asyncio.sleep(0.01)
        lane.pause(0.2)
        await waiting
        return time.monotonic() - began

    assert asyncio.run(go()) > 0.2


def test_those_who_wait_for_a_pause_do_not_all_go_when_it_ends():
    async def go():
        lane = limits().lane("replicate", 8, RATES)
        lane.pause(0.05)
        sent, over = [], asyncio.Event()

        async def create(number):
            with lane.passage() as passage:
                await lane.turn("create", passage)
                sent.append(number)
                await over.wait()

        tasks = [asyncio.create_task(create(number)) for number in range(5)]
        await asyncio.sleep(0.15)
        assert sent == [0]
        over.set()
        await asyncio.gather(*tasks)
        assert sent == [0, 1, 2, 3, 4]

    asyncio.run(go())


def test_those_in_the_queue_of_the_window_heed_a_gate_that_narrows_and_take_no_room():
    async def go():
        own = limits(REPLICATE_RATE="4/0.2s")
        lane = own.lane("replicate", 8, RATES)
        for _ in range(4):
            await lane.turn("create")
        sent, over = [], asyncio.Event()

        async def create(number):
            with lane.passage() as passage:
                await lane.turn("create", passage)
                sent.append(number)
                await over.wait()

        tasks = [asyncio.create_task(create(number)) for number in range(4)]
        await asyncio.sleep(0.02)
        lane.pause(0.01)
        await asyncio.sleep(0.3)
        assert len(sent) == 1
        began = time.monotonic()
        over.set()
        await asyncio.gather(*tasks)
        return time.monotonic() - began

    assert asyncio.run(go()) < 0.1


def test_a_rate_that_is_changed_holds_from_the_next_call_on(monkeypatch):
    environ = {"NBIMG_REPLICATE_RATE": "1/60s"}

    async def go():
        own = Limits(Settings(environ))
        await own.lane("replicate", 8, RATES).turn("create")
        environ["NBIMG_REPLICATE_RATE"] = "3/60s"
        async with asyncio.timeout(1):
            await own.lane("replicate", 8, RATES).turn("create")
        return True

    assert asyncio.run(go())


def test_a_window_forgets_what_is_past():
    window = Window(Rate(1, 0.01))
    window.take()
    assert window.rest_s() > 0
    time.sleep(0.02)
    assert window.rest_s() <= 0


def test_the_server_is_never_asked_faster_than_it_allows(server, monkeypatch):
    server.create_limit = RateLimit(per_minute=1200, burst=10)  # 20 a second
    monkeypatch.setenv("NBIMG_REPLICATE_RATE", "5/0.25s")
    results = nbimg.generate([f"p{k}" for k in range(25)], model="flux-dev")
    assert all(result.status is Status.OK for result in results)
    assert results.usage.rate_limited == 0
    assert server.count("POST", "*/predictions") == 25
