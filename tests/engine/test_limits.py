import asyncio
import contextlib
import time

import pytest

import nbimg
from nbimg.concurrency import semaphore
from nbimg.config import Rate, Settings
from nbimg.engine.limits import Limits
from nbimg.engine.window import MARGIN
from nbimg.errors import OptionError, SettingError, UnknownNameError
from nbimg.testing import RateLimit
from nbimg.types import Status
from tests.engine.virtual import Clock, VirtualLoop, virtual_time

RATES = {"create": Rate(600, 60), "read": Rate(3000, 60)}


@pytest.fixture(autouse=True)
def no_semaphores(monkeypatch):
    monkeypatch.setattr(semaphore, "_known", {})


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


def test_a_call_that_asks_for_more_has_it_as_long_as_it_runs():
    async def go():
        own = limits()
        more, usual = own.lane("replicate", 4, RATES, 7), own.lane("replicate", 4, RATES)
        assert await most_at_once(more, usual) == 7
        assert await most_at_once(usual, own.lane("replicate", 4, RATES, 3)) == 4

    asyncio.run(go())


def test_a_permit_that_is_waited_for_in_vain_comes_back():
    async def go():
        lane = limits().lane("replicate", 1, RATES)
        async with lane.permit():
            waiting = asyncio.create_task(lane.permit().__aenter__())
            await asyncio.sleep(0)
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)
        async with asyncio.timeout(1), lane.permit():
            return True

    assert asyncio.run(go())


def test_own_code_shares_the_permits_of_the_account():
    async def go():
        lane = limits().lane("replicate", 2, RATES)
        async with nbimg.get_semaphore("replicate"):
            assert await most_at_once(lane) == 1
        assert await most_at_once(lane) == 2

    asyncio.run(go())


def test_an_account_can_be_held_before_it_was_used(monkeypatch):
    assert nbimg.get_semaphore("replicate").limit == 8
    assert nbimg.get_semaphore("local").limit == 1
    monkeypatch.setenv("NBIMG_HUNYUAN_CONCURRENCY", "5")
    assert nbimg.get_semaphore("hunyuan").limit == 5


def test_the_default_of_an_account_is_its_backends():
    from nbimg.backends.base import Context
    from nbimg.backends.registry import BUILT_IN, Registry
    from nbimg.credentials.keys import Keys

    registry = Registry(Context(Settings({}), Keys({})))
    for name in BUILT_IN:
        assert semaphore.ACCOUNTS[name] == registry.get(name).concurrency


@pytest.mark.parametrize(("asked", "most"), [(None, 3), (7, 3), (2, 2)])
def test_a_limit_that_was_registered_is_the_users_own(asked, most):
    async def go():
        nbimg.register_semaphore("replicate", 3)
        return await most_at_once(limits().lane("replicate", 8, RATES, asked))

    assert asyncio.run(go()) == most


def test_a_limit_that_is_registered_while_calls_run_holds_at_once():
    async def go():
        lane = limits().lane("replicate", 6, RATES, 9)
        running = asyncio.create_task(most_at_once(lane, each=30))
        await asyncio.sleep(0)
        nbimg.register_semaphore("replicate", 2)
        assert await running == 2
        nbimg.register_semaphore("replicate", 20)
        assert await most_at_once(limits().lane("replicate", 6, RATES), each=30) == 20

    asyncio.run(go())


def test_a_semaphore_of_the_call_is_held_as_well():
    async def go():
        nbimg.register_semaphore("few", 3)
        own = limits()
        named = own.lane("replicate", 8, RATES, None, "few")
        other = own.lane("replicate", 8, RATES, None, asyncio.Semaphore(2))
        assert await most_at_once(named) == 3
        assert await most_at_once(other) == 2
        assert await most_at_once(named, own.lane("hunyuan", 8, {}, None, "few")) == 3
        with pytest.raises(UnknownNameError):
            own.lane("replicate", 8, RATES, None, "fwe")
        with pytest.raises(OptionError):
            own.lane("replicate", 8, RATES, None, 3)

    asyncio.run(go())


def test_naming_the_account_itself_waits_for_nothing_twice():
    async def go():
        nbimg.register_semaphore("replicate", 1)
        async with asyncio.timeout(1):
            return await most_at_once(limits().lane("replicate", 8, RATES, None, "replicate"))

    assert asyncio.run(go()) == 1


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
            mark = await lane.turn("create")
            passed.append(time.monotonic())
            mark()

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


def test_a_user_sets_the_window_of_creates_and_that_of_all_other_requests():
    async def most(stage, **environ):
        lane, count = limits(**environ).lane("replicate", 8, RATES), 0
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0.05):
                while count < 10:
                    await lane.turn(stage)
                    count += 1
        return count

    assert asyncio.run(most("create", REPLICATE_RATE="3/10s")) == 3
    assert asyncio.run(most("read", REPLICATE_RATE="3/10s")) == 10
    assert asyncio.run(most("read", REPLICATE_READ_RATE="4/10s")) == 4
    assert asyncio.run(most("create", REPLICATE_READ_RATE="4/10s")) == 10


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
        (await lane.turn("create"))()
        began = time.monotonic()
        waiting = asyncio.create_task(lane.turn("create"))
        await asyncio.sleep(0.01)
        lane.pause(0.2)
        await waiting
        return time.monotonic() - began

    assert asyncio.run(go()) > 0.2


def test_a_refused_read_pauses_the_account_and_narrows_no_creates():
    async def go():
        lane = limits().lane("replicate", 8, RATES)
        lane.pause(0.05, creates=False)
        began, over = time.monotonic(), asyncio.Event()
        sent = []

        async def create(number):
            with lane.passage() as passage:
                await lane.turn("create", passage)
                sent.append(time.monotonic() - began)
                await over.wait()

        tasks = [asyncio.create_task(create(number)) for number in range(3)]
        await asyncio.sleep(0.15)
        assert len(sent) == 3
        assert min(sent) >= 0.05
        over.set()
        await asyncio.gather(*tasks)

    asyncio.run(go())


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
            (await lane.turn("create"))()
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


def test_one_more_waits_until_the_first_has_been_answered_for_the_length_of_the_window():
    async def go():
        lane = limits(REPLICATE_RATE="3/0.2s").lane("replicate", 8, RATES)
        marks = [await lane.turn("create") for _ in range(3)]
        waiting = asyncio.create_task(lane.turn("create"))
        await asyncio.sleep(0.25)
        assert not waiting.done()  # none has been answered: who knows when they arrived
        answered = time.monotonic()
        marks[1]()
        await waiting
        return time.monotonic() - answered

    assert 0.2 < asyncio.run(go()) < 0.4


def test_a_wall_clock_that_jumps_changes_nothing(monkeypatch):
    jumps = iter([0.0, 1e9, -1e9] * 1000)
    monkeypatch.setattr(time, "time", lambda: next(jumps))
    passed = []

    async def go():
        lane = limits(REPLICATE_RATE="4/0.1s").lane("replicate", 8, RATES)
        for _ in range(10):
            (await lane.turn("create"))()
            passed.append(time.monotonic())

    asyncio.run(go())
    assert all(b - a >= 0.1 for a, b in zip(passed, passed[4:], strict=False))
    assert passed[-1] - passed[0] < 0.5


# ---------------------------------------------------------------- a limit that the server shows


def virtually(work):
    """Run it in virtual time: how busy the machine is decides nothing."""
    clock = Clock()
    loop = VirtualLoop(clock)
    with virtual_time(clock), contextlib.closing(loop):
        return loop.run_until_complete(work)


async def talk(lane, allowed, calls, *, over_s=0.001):
    """Calls against a server that has only so many jobs at once; returns how many it refused."""
    jobs, refused = 0, 0

    async def call():
        nonlocal jobs, refused
        async with lane.permit():
            while True:
                mark = await lane.turn("create")
                await asyncio.sleep(over_s)
                taken = jobs < allowed
                jobs += taken
                if not taken:
                    refused += 1
                    lane.crowded()
                mark()
                if taken:
                    break
                await asyncio.sleep(5 * over_s)
            lane.went()
            await asyncio.sleep(over_s)
            jobs -= 1

    await asyncio.gather(*(call() for _ in range(calls)))
    return refused


def test_calls_that_are_refused_together_are_one_sign():
    async def go():
        lane = limits().lane("replicate", 8, RATES)
        marks = [await lane.turn("create") for _ in range(8)]
        async with contextlib.AsyncExitStack() as held:
            for _ in range(8):
                await held.enter_async_context(lane.permit())
            for mark in marks:
                lane.crowded()
                mark()
        assert nbimg.get_semaphore("replicate").limit == 4

    asyncio.run(go())


def test_it_goes_down_from_what_was_under_way_and_never_below_one():
    async def go():
        lane = limits().lane("replicate", 8, RATES)
        async with lane.permit(), lane.permit():
            lane.crowded()
        permits = nbimg.get_semaphore("replicate")
        assert permits.limit == 1
        for _ in range(5):
            lane.crowded()
        assert permits.limit == 1

    asyncio.run(go())


def test_it_goes_up_again_slowly_to_what_was_set_and_no_further():
    async def go():
        lane = limits().lane("replicate", 8, RATES)
        permits, levels = nbimg.get_semaphore("replicate"), []
        async with lane.permit():
            lane.crowded()
        for _ in range(60):
            levels.append(permits.limit)
            lane.went()
        assert [levels.count(level) for level in range(1, 8)] == [1, 2, 3, 4, 5, 6, 7]
        assert levels[-1] == permits.limit == 8

    asyncio.run(go())


def test_the_server_is_asked_less_and_less_often_whether_it_takes_more():
    async def go():
        lane = limits().lane("replicate", 8, {})
        early = await talk(lane, 2, 40)
        late = await talk(lane, 2, 200)
        assert nbimg.get_semaphore("replicate").limit <= 4
        assert late / 200 < early / 40
        return late

    assert virtually(go()) <= 20


def test_a_limit_of_the_server_that_is_lifted_is_found():
    async def go():
        lane = limits().lane("replicate", 8, {})
        await talk(lane, 2, 50)
        await talk(lane, 100, 400)
        return nbimg.get_semaphore("replicate").limit

    assert virtually(go()) == 8


def test_what_was_learned_holds_for_calls_that_ask_for_more():
    async def go():
        own = limits()
        lane = own.lane("replicate", 4, RATES)
        async with lane.permit(), lane.permit(), lane.permit(), lane.permit():
            lane.crowded()
        return await most_at_once(own.lane("replicate", 4, RATES, 16), each=30)

    assert asyncio.run(go()) == 2


def test_the_server_is_never_asked_faster_than_it_allows(server, monkeypatch):
    server.create_limit = RateLimit(per_minute=1200, burst=10)  # 20 a second
    monkeypatch.setenv("NBIMG_REPLICATE_RATE", "5/0.25s")
    results = nbimg.generate([f"p{k}" for k in range(25)], model="flux-dev")
    assert all(result.status is Status.OK for result in results)
    assert results.usage.rate_limited == 0
    assert server.count("POST", "*/predictions") == 25


# ------------------------------------------------------------------ what is told of a wait


@pytest.fixture
def soon(monkeypatch):
    monkeypatch.setattr("nbimg.engine.limits.SOON_S", 0.05)


def test_a_wait_for_a_pause_the_window_or_the_gate_is_told_once_with_its_end(soon):
    async def go():
        told = []
        lane = limits(REPLICATE_RATE="1/0.3s").lane("replicate", 8, RATES)
        (await lane.turn("create", tell=lambda *said: told.append(said)))()
        assert told == []
        (await lane.turn("create", tell=lambda *said: told.append(said)))()
        ((reason, until_utc),) = told
        assert reason == "replicate takes 1 requests in 0.3 s"
        assert until_utc == pytest.approx(time.time(), abs=0.1)
        told.clear()
        lane.pause(0.2)
        await lane.turn("read", tell=lambda *said: told.append(said))
        ((reason, until_utc),) = told
        assert reason == "replicate asked to slow down"
        assert until_utc == pytest.approx(time.time(), abs=0.1)

    asyncio.run(go())


def test_a_wait_behind_the_one_that_may_go_through_the_gate_is_told(soon):
    async def go():
        told, over = [], asyncio.Event()
        lane = limits().lane("replicate", 8, RATES)
        lane.pause(0.0)

        async def create(tell=None):
            with lane.passage() as passage:
                await lane.turn("create", passage, tell)
                await over.wait()

        first = asyncio.create_task(create())
        await asyncio.sleep(0.01)
        second = asyncio.create_task(create(lambda *said: told.append(said)))
        await asyncio.sleep(0.15)
        assert told == [("replicate takes one request at a time now", None)]
        over.set()
        await asyncio.gather(first, second)

    asyncio.run(go())


def test_a_wait_for_permits_that_others_hold_is_told_and_one_for_its_own_is_not(soon):
    async def go():
        told = []
        own = limits()
        one, other = (own.lane("replicate", 1, RATES) for _ in range(2))
        gpu = nbimg.register_semaphore("gpu", 1)
        also = own.lane("openai", 4, RATES, semaphore="gpu")

        async def hold(lane):
            async with lane.permit(lambda *said: told.append(said)):
                await asyncio.sleep(0.12)

        await asyncio.gather(hold(one), hold(one))
        assert told == []
        await asyncio.gather(hold(one), hold(other))
        assert told == [("other calls hold the permits of replicate", None)]
        told.clear()
        async with gpu:
            waiting = asyncio.create_task(hold(also))
            await asyncio.sleep(0.1)
        await waiting
        assert told == [("other calls hold the permits of gpu", None)]

    asyncio.run(go())


def test_a_short_wait_and_one_that_is_given_up_are_not_told():
    async def go():
        told = []
        lane = limits().lane("replicate", 1, RATES)
        lane.pause(0.1)
        await lane.turn("read", tell=lambda *said: told.append(said))
        lane.pause(30)
        waiting = asyncio.create_task(lane.turn("read", tell=lambda *said: told.append(said)))
        await asyncio.sleep(0.05)
        waiting.cancel()
        await asyncio.sleep(0.6)
        assert told == []

    asyncio.run(go())
