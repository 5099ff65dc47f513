import asyncio
import gc
import os
import random
import signal
import threading
import time

import pytest

from nbimg.concurrency.permits import Semaphore


class Busy:
    """Counts who is inside, from any thread."""

    def __init__(self):
        self.now = self.most = 0
        self._lock = threading.Lock()

    def __enter__(self):
        with self._lock:
            self.now += 1
            self.most = max(self.most, self.now)

    def __exit__(self, *_):
        with self._lock:
            self.now -= 1


class Loop:
    """A loop in a thread of its own."""

    def __enter__(self):
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever)
        self.thread.start()
        return self

    def start(self, work):
        return asyncio.run_coroutine_threadsafe(work, self.loop)

    def __exit__(self, *_):
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join()
        self.loop.close()


def all_back(semaphore):
    assert (semaphore.held, semaphore.waiting) == (0, 0)
    return True


def wait_until(true, seconds=5.0):
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(0.002)


async def hold(semaphore, busy, seconds=0.001):
    async with semaphore:
        with busy:
            await asyncio.sleep(seconds)


def hold_here(semaphore, busy, seconds=0.001):
    with semaphore, busy:
        time.sleep(seconds)


def test_at_most_so_many_are_held_and_all_get_their_turn():
    async def go():
        semaphore, busy = Semaphore("s", 3), Busy()
        await asyncio.gather(*(hold(semaphore, busy) for _ in range(50)))
        return busy.most, all_back(semaphore)

    assert asyncio.run(go()) == (3, True)


def test_the_first_to_come_is_the_first_served_threads_and_tasks_alike():
    semaphore, order = Semaphore("s", 1), []

    async def task(number):
        async with semaphore:
            order.append(number)

    def thread(number):
        with semaphore:
            order.append(number)

    with Loop() as one, Loop() as other:
        with semaphore:
            for number in range(9):
                if number % 3 == 0:
                    threading.Thread(target=thread, args=(number,)).start()
                else:
                    (one if number % 3 == 1 else other).start(task(number))
                wait_until(lambda want=number + 1: semaphore.waiting == want)
        wait_until(lambda: len(order) == 9)
    assert order == list(range(9))


def test_nobody_overtakes_those_who_wait():
    async def go():
        semaphore, order = Semaphore("s", 1), []

        async def first():
            async with semaphore:
                order.append("first")

        async with semaphore:
            waiting = asyncio.create_task(first())
            await asyncio.sleep(0)
        async with semaphore:
            order.append("second")
        await waiting
        return order

    assert asyncio.run(go()) == ["first", "second"]


def test_two_loops_and_threads_share_it():
    semaphore, busy = Semaphore("s", 4), Busy()
    threads = [
        threading.Thread(target=lambda: [hold_here(semaphore, busy) for _ in range(30)])
        for _ in range(6)
    ]
    with Loop() as one, Loop() as other:
        for thread in threads:
            thread.start()
        work = [loop.start(hold(semaphore, busy)) for _ in range(150) for loop in (one, other)]
        for future in work:
            future.result(timeout=20)
        for thread in threads:
            thread.join(timeout=20)
    assert busy.most == 4
    assert all_back(semaphore)


def test_a_thread_waits_while_a_loop_holds_it_and_the_loop_goes_on():
    semaphore = Semaphore("s", 1)
    with Loop() as loop:

        async def work():
            async with semaphore:
                for _ in range(20):
                    await asyncio.sleep(0.005)

        working = loop.start(work())
        wait_until(lambda: semaphore.held == 1)
        with semaphore:
            assert working.done() or working.result(timeout=0.1) is None
    assert all_back(semaphore)


@pytest.mark.parametrize("seed", range(20))
def test_a_storm_of_cancellations_leaves_all_permits_where_they_were(seed):
    chance = random.Random(seed)
    limit = chance.choice([1, 2, 5])
    semaphore, busy = Semaphore("s", limit), Busy()

    async def storm(chance):
        tasks = []
        for _ in range(200):
            tasks.append(asyncio.create_task(hold(semaphore, busy, chance.random() / 2000)))
            if chance.random() < 0.4:
                chance.choice(tasks).cancel()
            if chance.random() < 0.5:
                await asyncio.sleep(chance.choice([0, 0, 0.0005]))
            if chance.random() < 0.1:
                semaphore.limit = chance.randint(1, limit)
        for task in chance.sample(tasks, 100):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    with Loop() as one, Loop() as other:
        storms = [one.start(storm(random.Random(seed))), other.start(storm(random.Random(-seed)))]
        for future in storms:
            future.result(timeout=30)
    assert busy.most <= limit
    assert all_back(semaphore)


def test_a_permit_given_to_one_who_is_cancelled_at_that_moment_goes_to_the_next():
    async def go():
        semaphore, busy = Semaphore("s", 1), Busy()
        async with semaphore:
            second = asyncio.create_task(hold(semaphore, busy))
            third = asyncio.create_task(hold(semaphore, busy))
            await asyncio.sleep(0)
        second.cancel()  # it has the permit, and never takes it
        await asyncio.wait_for(third, 1)
        return all_back(semaphore)

    assert asyncio.run(go())


def test_an_error_inside_gives_it_back():
    semaphore = Semaphore("s", 1)
    with pytest.raises(ZeroDivisionError), semaphore:
        raise ZeroDivisionError
    assert all_back(semaphore)


def test_stop_while_waiting_leaves_the_queue():
    semaphore, holder = Semaphore("s", 1), threading.Event()

    def other():
        with semaphore:
            holder.wait()

    thread = threading.Thread(target=other)
    thread.start()
    wait_until(lambda: semaphore.held == 1)
    stop = [threading.main_thread().ident, signal.SIGINT]
    threading.Timer(0.05, signal.pthread_kill, stop).start()
    with pytest.raises(KeyboardInterrupt), semaphore:
        pytest.fail("there was none to have")
    assert semaphore.waiting == 0
    holder.set()
    thread.join()
    with semaphore:
        assert semaphore.held == 1
    assert all_back(semaphore)


def test_stop_at_any_moment_of_waiting_or_working_loses_no_permit():
    """A signal every fraction of a millisecond, while two threads hand the permits on."""
    semaphore, over = Semaphore("s", 2), threading.Event()

    def others():
        while not over.is_set():
            with semaphore:
                time.sleep(0)

    threads = [threading.Thread(target=others) for _ in range(2)]
    for thread in threads:
        thread.start()
    stops, end, armed = 0, time.monotonic() + 3, False

    def stop(*_):
        nonlocal armed
        if armed:
            armed = False  # one Stop at a time: people are slower than code
            raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, 0.0003, 0.00037)
    try:
        while time.monotonic() < end:
            try:
                # what Python itself cannot do: a stop at the first instruction of __exit__
                entered = False
                armed = True
                semaphore.__enter__()
                entered = True
                armed = False
            except KeyboardInterrupt:
                stops += 1
            armed = False
            if entered:
                semaphore.__exit__(None, None, None)
    finally:
        armed = False
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        over.set()
        for thread in threads:
            thread.join(timeout=10)
    assert stops > 20
    assert all_back(semaphore)


def test_stop_in_the_middle_of_giving_back_is_made_good():
    class Stopped(Semaphore):
        stops = 0

        def _give(self):
            if self.stops:
                self.stops -= 1
                raise KeyboardInterrupt
            super()._give()

    async def go():
        semaphore = Stopped("s", 1)
        await semaphore.__aenter__()
        waiting = asyncio.create_task(hold(semaphore, Busy()))
        await asyncio.sleep(0)
        semaphore.stops = 1
        with pytest.raises(KeyboardInterrupt):
            semaphore.__exit__(None, None, None)
        await asyncio.wait_for(waiting, 1)
        return all_back(semaphore)

    assert asyncio.run(go())


def test_the_limit_may_be_changed_while_it_is_in_use():
    async def go():
        semaphore, busy = Semaphore("s", 1), Busy()
        tasks = [asyncio.create_task(hold(semaphore, busy, 0.02)) for _ in range(20)]
        await asyncio.sleep(0.005)
        assert busy.now == 1
        semaphore.limit = 5
        await asyncio.sleep(0.005)
        assert busy.now == 5
        semaphore.limit = 2
        busy.most = 0
        await asyncio.sleep(0.03)
        assert busy.now == 2
        await asyncio.gather(*tasks)
        return all_back(semaphore)

    assert asyncio.run(go())


def test_a_loop_that_was_closed_with_tasks_in_the_queue_keeps_no_permit():
    semaphore = Semaphore("s", 1)
    loop = asyncio.new_event_loop()
    with semaphore:
        task = loop.create_task(hold(semaphore, Busy()))
        loop.run_until_complete(asyncio.sleep(0))
        assert semaphore.waiting == 1
        loop.close()
    assert all_back(semaphore)
    with semaphore:
        assert semaphore.held == 1
    task._log_destroy_pending = False
    del task
    gc.collect()
    assert all_back(semaphore)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_starts_with_all_permits_whatever_other_threads_were_doing():
    semaphore, over = Semaphore("s", 2), threading.Event()

    def others():
        while not over.is_set():
            with semaphore:
                time.sleep(0)

    threads = [threading.Thread(target=others) for _ in range(4)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(20):
            with semaphore:
                pid = os.fork()
                if not pid:
                    try:
                        signal.signal(signal.SIGALRM, signal.SIG_DFL)  # not the test runner's
                        signal.alarm(5)
                        with semaphore, semaphore:
                            pass
                        asyncio.run(hold(semaphore, Busy()))
                    finally:
                        os._exit(semaphore.held + semaphore.waiting)
                assert os.waitpid(pid, 0)[1] == 0
    finally:
        over.set()
        for thread in threads:
            thread.join(timeout=10)
    assert all_back(semaphore)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_fork_while_another_thread_changes_the_counts_leaves_no_lock_behind():
    semaphore, inside, over = Semaphore("s", 1), threading.Event(), threading.Event()

    def other():
        with semaphore._lock:
            inside.set()
            over.wait(10)

    thread = threading.Thread(target=other)
    thread.start()
    inside.wait()
    pid = os.fork()
    if not pid:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)  # not the test runner's
        signal.alarm(5)
        try:
            with semaphore:
                os._exit(0)
        finally:
            os._exit(1)
    over.set()
    thread.join()
    assert os.waitpid(pid, 0)[1] == 0


def test_a_permit_costs_microseconds():
    async def go():
        semaphore = Semaphore("s", 8)

        async def once():
            async with semaphore:
                await asyncio.sleep(0)

        began = time.process_time()
        for _ in range(10_000):
            async with semaphore:
                pass
        free = time.process_time() - began
        began = time.process_time()
        await asyncio.gather(*(once() for _ in range(10_000)))
        return free * 100, (time.process_time() - began) * 100

    # the best of three: neighbours on a busy machine cost even processor time
    free_us, crowded_us = map(min, zip(*(asyncio.run(go()) for _ in range(3)), strict=True))
    print(f"{free_us:.1f} us uncontended, {crowded_us:.1f} us contended, with the task")
    assert free_us < 15
    assert crowded_us < 100
