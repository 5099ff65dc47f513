import asyncio
import random
import threading
import time

import pytest

from nbimg.concurrency import semaphore as named
from nbimg.concurrency.foreign import STILL_S, adapt
from nbimg.concurrency.portal import Portal
from nbimg.errors import OptionError, UnknownNameError


@pytest.fixture
def engine():
    """A loop thread, as the engine has one."""
    portal = Portal()
    yield portal
    portal.close()


async def crowd(adapted, calls=12, seconds=0.005):
    busy = most = 0

    async def once():
        nonlocal busy, most
        async with adapted:
            busy += 1
            most = max(most, busy)
            await asyncio.sleep(seconds)
            busy -= 1

    await asyncio.gather(*(once() for _ in range(calls)))
    return most


def test_what_it_takes_and_what_it_refuses(monkeypatch):
    monkeypatch.setattr(named, "_known", {})
    made = named.register_semaphore("gpu", 2)
    assert adapt("gpu") is made
    assert adapt(made) is made
    adapted = adapt(threading.Semaphore())
    assert adapt(adapted) is adapted
    with pytest.raises(UnknownNameError, match="gpu"):
        adapt("gpo")
    for wrong in (3, None, object(), threading.Lock(), asyncio.Event()):
        with pytest.raises(OptionError, match="is not a semaphore"):
            adapt(wrong)


@pytest.mark.parametrize("kind", [threading.Semaphore, threading.BoundedSemaphore])
def test_one_of_threads_is_shared_with_threads_and_blocks_no_loop(kind, engine):
    foreign = kind(2)
    adapted = adapt(foreign)
    assert engine.call(crowd, adapted) == 2
    foreign.acquire(), foreign.acquire()
    waiting = engine.submit(crowd, adapted)
    time.sleep(0.1)
    engine.submit(asyncio.sleep, 0).result(timeout=1)  # the loop goes on
    assert not waiting.done()
    foreign.release()
    assert waiting.result(timeout=2) == 1
    foreign.release()
    assert [foreign.acquire(blocking=False) for _ in range(3)] == [True, True, False]


@pytest.mark.parametrize("kind", [asyncio.Semaphore, asyncio.BoundedSemaphore])
def test_one_of_another_loop_is_shared_with_its_tasks(kind, engine):
    async def user():
        foreign = kind(3)
        adapted = adapt(foreign)
        busy = most = 0

        async def own():
            nonlocal busy, most
            async with foreign:
                busy += 1
                most = max(most, busy)
                await asyncio.sleep(0.005)
                busy -= 1

        running = asyncio.wrap_future(engine.submit(crowd, adapted, 20))
        await asyncio.gather(*(own() for _ in range(30)))
        assert most <= 3
        assert await running <= 3
        async with asyncio.timeout(1):
            for _ in range(3):
                await foreign.acquire()
        return foreign.locked()

    assert asyncio.run(user())


def test_it_waits_while_the_users_own_code_holds_all(engine):
    async def user():
        foreign = asyncio.Semaphore(1)
        async with foreign:
            running = engine.submit(crowd, adapt(foreign), 1)
            await asyncio.sleep(3 * STILL_S)
            assert not running.done()
        return await asyncio.wrap_future(running)

    assert asyncio.run(user()) == 1


def test_a_blocking_call_in_the_semaphores_own_loop_does_not_wait_for_itself(engine):
    async def cell():
        foreign = asyncio.Semaphore(2)
        async with foreign:
            # the loop stands still until all is done
            most = engine.submit(crowd, adapt(foreign), 4).result(timeout=10)
        async with asyncio.timeout(1), foreign, foreign:
            return most

    assert asyncio.run(cell()) == 1


def test_one_without_a_loop_or_of_a_closed_one_is_taken_where_we_are(engine):
    foreign = asyncio.Semaphore(2)
    assert engine.call(crowd, adapt(foreign)) == 2

    async def make():
        return adapt(asyncio.Semaphore(2))

    assert engine.call(crowd, asyncio.run(make())) == 2


@pytest.mark.parametrize("seed", range(5))
def test_a_storm_of_cancellations_leaves_all_permits_where_they_were(seed, engine):
    chance = random.Random(seed)

    async def storm(adapted):
        async def once():
            async with adapted:
                await asyncio.sleep(0.001)

        tasks = [asyncio.create_task(once()) for _ in range(30)]
        for task in chance.sample(tasks, 25):
            await asyncio.sleep(chance.choice([0, 0, 0.001]))
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def user():
        foreign, threads = asyncio.Semaphore(2), threading.Semaphore(2)
        await asyncio.wrap_future(engine.submit(storm, adapt(foreign)))
        await asyncio.wrap_future(engine.submit(storm, adapt(threads)))
        await asyncio.sleep(2 * STILL_S)
        free = [threads.acquire(blocking=False) for _ in range(3)]
        return foreign._value, free

    assert asyncio.run(user()) == (2, [True, True, False])


def test_one_that_is_held_in_a_loop_that_is_closed_is_refused_and_not_waited_for_in_vain(engine):
    async def make():
        foreign = asyncio.Semaphore(1)
        await foreign.acquire()
        return adapt(foreign)

    adapted = asyncio.run(make())
    with pytest.raises(OptionError, match=r"the event loop of the semaphore is closed"):
        engine.submit(crowd, adapted, 1).result(timeout=2)


def test_one_that_is_held_in_a_closed_loop_is_refused_where_it_is_given():
    foreign = asyncio.Semaphore(1)

    async def hold():
        await foreign.acquire()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(foreign.acquire(), 0.01)  # from here on it knows its loop

    asyncio.run(hold())
    with pytest.raises(OptionError, match="is closed"):
        adapt(foreign)
