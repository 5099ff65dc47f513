import asyncio
import os
import threading
import time

import pytest

from nbimg.concurrency.loops import CALLER
from nbimg.concurrency.portal import Portal
from nbimg.errors import NbimgError


@pytest.fixture
def portal():
    one = Portal("nbimg-test")
    yield one
    one.close()


async def double(value):
    await asyncio.sleep(0)
    return 2 * value


def test_it_works_from_a_thread_from_a_loop_and_from_several_at_once(portal):
    async def inside():
        return portal.call(double, 3)  # blocks this loop, not the portal's

    assert portal.call(double, 2) == 4
    assert asyncio.run(inside()) == 6
    found = []
    threads = [
        threading.Thread(target=lambda k=k: found.append(portal.call(double, k))) for k in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(found) == [0, 2, 4, 6, 8, 10, 12, 14]
    assert sum(t.name == "nbimg-test" for t in threading.enumerate()) == 1


def test_an_error_comes_out_as_it_is(portal):
    async def fail():
        raise ZeroDivisionError("here")

    with pytest.raises(ZeroDivisionError, match="here"):
        portal.call(fail)


def test_cancelling_the_future_cancels_the_work(portal):
    ended = threading.Event()

    async def long():
        try:
            await asyncio.sleep(60)
        finally:
            ended.set()

    future = portal.submit(long)
    time.sleep(0.02)
    future.cancel()
    assert ended.wait(2)


def test_close_ends_what_runs_and_the_next_call_starts_anew(portal):
    ended = threading.Event()

    async def long():
        try:
            await asyncio.sleep(60)
        finally:
            ended.set()

    portal.submit(long)
    time.sleep(0.02)
    portal.close()
    assert ended.is_set()
    assert not any(t.name == "nbimg-test" for t in threading.enumerate())
    assert portal.call(double, 1) == 2
    portal.close()
    portal.close()


def test_close_ends_what_cleans_up_after_what_ran(portal):
    ended = []

    async def clean_up():
        try:
            await asyncio.sleep(60)
        finally:
            ended.append("clean-up")

    async def long():
        try:
            await asyncio.sleep(60)
        finally:
            ended.append(asyncio.create_task(clean_up()))
            await asyncio.sleep(0)

    portal.submit(long)
    time.sleep(0.02)
    portal.close()
    assert ended[1:] == ["clean-up"]


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_process_has_a_loop_of_its_own(portal):
    assert portal.call(double, 1) == 2
    child = os.fork()
    if child == 0:
        os._exit(0 if portal.call(double, 21) == 42 else 1)
    assert os.waitpid(child, 0)[1] == 0


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_fork_in_the_middle_of_a_call_does_not_inherit_the_lock(portal):
    portal.loop()
    with portal._lock:
        child = os.fork()
        if child == 0:
            os._exit(0 if portal.call(double, 21) == 42 else 1)
    assert os.waitpid(child, 0)[1] == 0


def test_a_call_from_its_own_loop_is_refused_and_not_waited_for(portal):
    async def inside():
        portal.call(double, 1)

    with pytest.raises(NbimgError, match="would wait for itself"):
        portal.call(inside)


def test_the_work_knows_which_loop_ran_where_it_was_called(portal):
    async def caller():
        return CALLER.get()

    async def main():
        return portal.call(caller), asyncio.get_running_loop()

    found, loop = asyncio.run(main())
    assert found is loop
    assert portal.call(caller) is None
    assert CALLER.get() is None
