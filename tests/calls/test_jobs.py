"""A job: waited for from anywhere, watched from any thread, stopped in time."""

from __future__ import annotations

import asyncio
import os
import re
import threading
import time

import pytest

import nbimg
from nbimg.calls.jobs import EVENTS, Job
from nbimg.concurrency.portal import Portal
from nbimg.errors import NbimgError
from nbimg.events import Finished, Planned, Preview, Started
from nbimg.results import ResultSet
from nbimg.types import Request, Result, Status


@pytest.fixture
def portal():
    one = Portal("nbimg-test")
    yield one
    one.close()


def ended(task: int, status: Status = Status.OK) -> Result:
    return Result(task, Request("a cat"), "demo", status=status)


async def two_tasks(emit, stop):
    """One task at once, another when Stop comes."""
    emit(Planned(tasks=2, images=2))
    emit(Finished(task=0, result=ended(0)))
    emit(Started(task=1))
    await stop.wait()
    emit(Finished(task=1, result=ended(1, Status.CANCELLED)))
    return ResultSet([ended(0), ended(1, Status.CANCELLED)])


async def at_once(emit, stop):
    emit(Planned(tasks=1, images=1))
    emit(Finished(task=0, result=ended(0)))
    return ResultSet([ended(0)])


def until(condition, seconds=5.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.005)


def test_its_progress_is_there_though_nobody_watches(portal):
    job = Job("j1", portal, two_tasks, about="a cat " * 100)
    until(lambda: job.progress.running == 1)
    assert (job.progress.total, job.progress.done, job.status) == (2, 1, "running")
    assert len(job.about) <= 80
    assert job.begun_utc == pytest.approx(time.time(), abs=5)
    job.cancel()
    assert job.status in ("stopping", "stopped")
    assert len(job.wait()) == 2
    assert (job.progress.done, job.progress.cancelled, job.status) == (2, 1, "stopped")


def test_it_remembers_the_last_events_and_no_pictures_on_the_way(portal):
    async def busy(emit, stop):
        for task in range(2 * EVENTS):
            emit(Started(task=task))
            emit(Preview(task=task, data=b"x"))
        return ResultSet([])

    job = Job("j1", portal, busy)
    job.wait()
    assert [event.task for event in job.events] == list(range(EVENTS, 2 * EVENTS))


def test_who_listens_hears_what_was_and_what_follows_and_pictures_on_the_way(portal):
    go = threading.Event()

    async def work(emit, stop):
        emit(Planned(tasks=1, images=1))
        emit(Preview(task=0, data=b"missed"))
        while not go.is_set():
            await asyncio.sleep(0.005)
        emit(Preview(task=0, data=b"seen"))
        emit(Finished(task=0, result=ended(0)))
        return ResultSet([ended(0)])

    job = Job("j1", portal, work)
    until(lambda: job.progress.total == 1)
    heard = []
    job.listen(heard.append)
    go.set()
    job.wait()
    assert [type(event) for event in heard] == [Planned, Preview, Finished]
    assert heard[1].data == b"seen"


def test_its_status_says_how_it_ended(portal):
    async def fails(emit, stop):
        raise NbimgError("no")

    good, bad = Job("g", portal, at_once), Job("b", portal, fails)
    good.wait()
    with pytest.raises(NbimgError, match="no"):
        bad.wait()
    assert (good.status, bad.status) == ("done", "failed")
    good.cancel()  # too late, and harmless
    assert good.status == "done"


def test_one_that_was_stopped_with_a_part_of_a_task_is_not_done(portal):
    async def partly(emit, stop):
        await stop.wait()
        return ResultSet([ended(0, Status.PARTIAL)])

    async def all_the_same(emit, stop):
        await stop.wait()
        return ResultSet([ended(0)])

    job, other = Job("p", portal, partly), Job("o", portal, all_the_same)
    job.cancel(), other.cancel()
    job.wait(), other.wait()
    assert (job.status, other.status) == ("stopped", "done")

    async def of_itself(emit, stop):
        return ResultSet([ended(0, Status.PARTIAL)])

    job = Job("q", portal, of_itself)
    job.wait()
    job.cancel()  # too late
    assert job.status == "done"


def test_it_shows_where_it_stands(portal):
    job = Job("20260101-120000-abcdef", portal, two_tasks, about="a <b>cat</b>")
    until(lambda: job.progress.running == 1)
    assert re.fullmatch(
        r"<nbimg job 20260101-120000-abcdef · running · █+░+ .*0 of 2 images.* · a <b>cat</b>>",
        repr(job),
    )
    shown = job._repr_mimebundle_()
    assert shown["text/plain"].startswith("<nbimg job 20260101-120000-abcdef · running")
    assert "job 20260101-120000-abcdef · running" in shown["text/html"]
    assert "a &lt;b&gt;cat&lt;/b&gt;" in shown["text/html"]
    assert "<progress" in shown["text/html"]
    job.cancel()
    job.wait()
    assert "stopped" in repr(job)


def test_waiting_works_in_a_running_loop_in_its_callbacks_and_in_threads(portal):
    found = []

    async def main():
        found.append(len(Job("j", portal, at_once).wait()))
        loop = asyncio.get_running_loop()
        called = loop.create_future()

        def callback():
            found.append(len(Job("j", portal, at_once).wait()))
            called.set_result(None)

        loop.call_soon(callback)
        await called
        found.append(len(await asyncio.to_thread(Job("j", portal, at_once).wait)))
        found.append(len(await Job("j", portal, at_once)))

    asyncio.run(main())
    assert found == [1, 1, 1, 1]


def test_several_can_wait_for_the_same_job(portal):
    async def main():
        job = Job("j", portal, two_tasks)
        waiting = asyncio.gather(job, job, asyncio.to_thread(job.wait))
        await asyncio.sleep(0.05)
        job.cancel()
        return await waiting

    one, two, three = asyncio.run(main())
    assert one is two is three


def test_a_wait_that_would_wait_for_itself_is_refused(portal):
    async def plugin(emit, stop):
        inner = Job("inner", portal, at_once)
        await asyncio.sleep(0)
        if inner.done:
            inner = Job("inner", portal, two_tasks)
        try:
            with pytest.raises(NbimgError, match="would wait for itself") as caught:
                inner.wait()
        finally:
            inner.cancel()
        assert "await job" in str(caught.value)
        return await inner  # and this works

    assert len(Job("outer", portal, plugin).wait()) in (1, 2)


def test_nbimg_called_by_a_plugin_on_its_own_loop_says_what_to_do_instead(server):
    own = nbimg.session.default()

    async def plugin():
        nbimg.generate("a cat", model="flux-dev", seed=1)

    with pytest.raises(NbimgError, match=r"await nbimg\.agenerate"):
        own.portal.call(plugin)


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_job_of_the_parent_is_not_waited_for_in_a_fork(portal):
    job = Job("j", portal, two_tasks)
    child = os.fork()
    if child == 0:
        try:
            job.wait()
        except RuntimeError as error:
            os._exit(0 if "not in its fork" in str(error) else 2)
        os._exit(1)
    assert os.waitpid(child, 0)[1] == 0
    job.cancel()
    job.wait()


def test_stop_while_waiting_keeps_what_is_done(portal):
    job = Job("j", portal, two_tasks)
    ticks = []

    def tick():
        ticks.append(threading.current_thread())
        if len(ticks) == 2:
            raise KeyboardInterrupt

    begun = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        job.wait(tick)
    assert time.monotonic() - begun < 2
    assert [r.status.value for r in job.results] == ["ok", "cancelled"]
    assert set(ticks) == {threading.main_thread()}


def test_attending_lets_the_other_tasks_of_the_loop_go_on(portal):
    ticks, turns = [], []

    async def other():
        while True:
            turns.append(1)
            await asyncio.sleep(0.01)

    async def main():
        beside = asyncio.create_task(other())
        job = Job("j", portal, two_tasks)
        asyncio.get_running_loop().call_later(0.35, job.cancel)
        results = await job.attend(lambda: ticks.append(threading.current_thread()))
        beside.cancel()
        return results

    assert len(asyncio.run(main())) == 2
    assert len(ticks) >= 3
    assert set(ticks) == {threading.main_thread()}
    assert len(turns) > 15


def test_cancelling_an_attending_task_stops_the_job_and_waits_for_what_it_keeps(portal):
    async def main():
        job = Job("j", portal, two_tasks)
        attending = asyncio.create_task(job.attend(lambda: None))
        await asyncio.sleep(0.05)
        attending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await attending
        return job

    job = asyncio.run(main())
    assert job.done
    assert job.status == "stopped"


def test_an_await_that_is_given_up_stops_the_job_only_when_nobody_else_waits(portal):
    async def go_on(emit, stop):
        await asyncio.wait({asyncio.ensure_future(stop.wait())}, timeout=0.3)
        return ResultSet([ended(0, Status.CANCELLED if stop.is_set() else Status.OK)])

    async def main():
        job = Job("j", portal, go_on)
        one, other = (asyncio.ensure_future(job) for _ in range(2))
        await asyncio.sleep(0.05)
        one.cancel()
        assert (await other)[0].status is Status.OK
        job = Job("k", portal, go_on)
        both = [asyncio.ensure_future(job) for _ in range(2)]
        await asyncio.sleep(0.05)
        for each in both:
            each.cancel()
        await asyncio.wait(both)
        return job

    assert asyncio.run(main()).wait()[0].status is Status.CANCELLED


def test_an_await_that_is_given_up_does_not_take_it_from_a_thread_that_waits(portal):
    async def go_on(emit, stop):
        await asyncio.wait({asyncio.ensure_future(stop.wait())}, timeout=0.4)
        return ResultSet([ended(0, Status.CANCELLED if stop.is_set() else Status.OK)])

    async def main():
        job = Job("j", portal, go_on)
        waiting = asyncio.create_task(asyncio.to_thread(job.wait))
        one = asyncio.ensure_future(job)
        await asyncio.sleep(0.1)
        one.cancel()
        return (await waiting)[0].status

    assert asyncio.run(main()) is Status.OK


@pytest.mark.filterwarnings("ignore:There is no current event loop:DeprecationWarning")
def test_a_script_that_has_closed_its_event_loop_can_still_generate(server):
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    loop.close()
    try:
        assert len(nbimg.generate("a cat", model="flux-dev").paths) == 1
    finally:
        asyncio.set_event_loop(None)
