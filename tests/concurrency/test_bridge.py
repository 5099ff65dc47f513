"""A backend that lives on the caller's loop is called there, from wherever nbimg is called."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest

import nbimg
from nbimg.backends.base import Call, Prediction, RemoteBackend, State
from nbimg.concurrency import loops
from nbimg.concurrency.bridge import Bridge, bridged
from nbimg.concurrency.portal import Portal
from nbimg.errors import BackendError, NbimgError
from nbimg.types import Capabilities, ModelRef

ROOT = Path(nbimg.__file__).parents[1]
CALL = Call(ModelRef("mine", "m"), "a cat")


class Bound(RemoteBackend):
    """A provider whose client works on one loop only, and says on which each coroutine ran."""

    name = "mine"
    concurrency = 7
    loop = "caller"

    def __init__(self) -> None:
        super().__init__(SimpleNamespace())
        self.ran_on = []
        self.ended = []
        self.hold_s = 0.0

    async def _step(self, what):
        self.ran_on.append(asyncio.get_running_loop())
        try:
            await asyncio.sleep(self.hold_s)
        except asyncio.CancelledError:
            self.ended.append(what)
            raise

    async def capabilities(self, model):
        await self._step("capabilities")
        return Capabilities()

    async def create(self, call):
        await self._step("create")
        return Prediction("j", State.QUEUED)

    async def poll(self, job_id):
        await self._step("poll")
        return Prediction("j", State.DONE)

    async def fetch(self, url):
        await self._step("fetch")
        return b"x"

    async def cancel(self, job_id):
        await self._step("cancel")

    async def find(self, call, since_utc):
        await self._step("find")

    async def close(self):
        await self._step("close")


@pytest.fixture
def portal():
    one = Portal("nbimg-test")
    yield one
    one.close()


@pytest.fixture
def home():
    """A loop that runs in a thread, as a notebook's would while a cell is awaited."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    yield loop
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


def test_every_coroutine_runs_on_the_loop_that_it_belongs_to(portal, home):
    backend = Bound()
    bridge = Bridge(backend, home)

    async def all_of_them():
        await bridge.capabilities("m")
        assert (await bridge.create(CALL)).id == "j"
        await bridge.poll("j")
        assert await bridge.fetch("https://x") == b"x"
        await bridge.cancel("j")
        await bridge.find(CALL, 0.0)
        await bridge.close()

    portal.call(all_of_them)
    assert backend.ran_on == [home] * 7
    assert (bridge.name, bridge.concurrency, bridge.rates) == ("mine", 7, {})


def test_it_is_for_backends_that_ask_for_it_and_calls_that_have_a_loop(portal):
    backend = Bound()

    class Own(Bound):
        loop = "own"

    async def which():
        return [type(bridged(one)).__name__ for one in (backend, Own())]

    async def main():
        return portal.call(which)

    assert portal.call(which) == ["Bound", "Own"]
    assert asyncio.run(main()) == ["Bridge", "Own"]


def test_an_error_comes_out_as_it_is(portal, home):
    class Broken(Bound):
        async def poll(self, job_id):
            raise BackendError("broken")

    with pytest.raises(BackendError, match="broken"):
        portal.call(Bridge(Broken(), home).poll, "j")


def test_a_cancellation_reaches_the_loop_that_the_backend_lives_on(portal, home):
    backend = Bound()
    backend.hold_s = 60
    future = portal.submit(Bridge(backend, home).poll, "j")
    wait_for(lambda: backend.ran_on)
    future.cancel()
    wait_for(lambda: backend.ended == ["poll"])


def test_a_cancellation_over_there_reaches_the_engine(portal, home):
    backend = Bound()
    backend.hold_s = 60

    async def poll():
        try:
            await Bridge(backend, home).poll("j")
        except asyncio.CancelledError:
            return "cancelled"

    future = portal.submit(poll)
    wait_for(lambda: backend.ran_on)

    def cancel_all():
        for task in asyncio.all_tasks(home):
            task.cancel()

    home.call_soon_threadsafe(cancel_all)
    assert future.result(5) == "cancelled"


def test_a_loop_that_is_closed_before_or_meanwhile_is_said(portal, monkeypatch):
    monkeypatch.setattr(loops, "LOOK_S", 0.05)
    gone = asyncio.new_event_loop()
    backend = Bound()
    future = portal.submit(Bridge(backend, gone).poll, "j")
    wait_for(lambda: loops._wanted)
    gone.close()
    for waiting in (future, portal.submit(Bridge(backend, gone).poll, "j")):
        with pytest.raises(BackendError, match="is closed"):
            waiting.result(5)
    assert not loops._wanted


@pytest.mark.filterwarnings("ignore:coroutine .* was never awaited:RuntimeWarning")
def test_a_loop_of_another_make_is_refused_and_says_what_to_do(portal, monkeypatch):
    class Foreign:
        """As uvloop's: not of asyncio's own kind."""

        def is_running(self):
            return True

    with pytest.raises(NbimgError, match="cannot run nested") as caught:
        loops._make_reentrant(Foreign())
    assert "await nbimg.agenerate" in str(caught.value)
    assert not hasattr(asyncio, "_nest_patched"), "nothing was patched"


def wait_for(condition):
    waiting = threading.Event()
    for _ in range(1000):
        if condition():
            return
        waiting.wait(0.005)
    raise AssertionError("waited in vain")


# ------------------------------------------------------------------------- in a program


MINE = """
import asyncio, io, os, signal, sys, threading, time
import nbimg
from nbimg.backends.base import *
from nbimg.backends.registry import register_backend
from nbimg.testing.pictures import render_picture
from nbimg.types import Capabilities

events = []

class Mine(RemoteBackend):
    name = "mine"
    loop = "caller"
    home = None
    hold_s = 0.05

    async def step(self, what):
        assert asyncio.get_running_loop() is Mine.home, "on a loop where its client does not work"
        events.append(what)
        try:
            await asyncio.sleep(Mine.hold_s)
        except asyncio.CancelledError:
            events.append(what + " cancelled")
            raise

    async def capabilities(self, model):
        return Capabilities(mode="generate") if False else Capabilities()

    async def create(self, call):
        await self.step("create")
        return Prediction("j1", State.RUNNING)

    async def poll(self, job_id):
        await self.step("poll")
        return Prediction(job_id, State.DONE, (Output(data=render_picture("x", "png", 64, 64)),))

    async def fetch(self, url):
        raise AssertionError

    async def cancel(self, job_id):
        await self.step("cancel")
        return Prediction(job_id, State.CANCELLED)

register_backend("mine", Mine)
ticks = []

async def tick():
    while True:
        ticks.append(1)
        await asyncio.sleep(0.01)
"""


def program(tmp_path: Path, code: str) -> str:
    """Run a program of its own, since a nested run patches asyncio for good."""
    ran = subprocess.run(
        [sys.executable, "-W", "error::ResourceWarning", "-c", MINE + code],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return ran.stdout


def test_awaited_it_needs_no_nesting(tmp_path):
    out = program(
        tmp_path,
        """
async def main():
    Mine.home = asyncio.get_running_loop()
    r = await nbimg.agenerate("a cat", model="mine:m")
    print(len(r.paths), hasattr(asyncio, "_nest_patched"))
asyncio.run(main())
""",
    )
    assert out.split() == ["1", "False"]


def test_a_blocking_call_lets_the_loop_run_that_its_backend_needs(tmp_path):
    out = program(
        tmp_path,
        """
async def main():
    Mine.home = asyncio.get_running_loop()
    other = asyncio.create_task(tick())
    await asyncio.sleep(0)
    r = nbimg.generate("a cat", model="mine:m")
    print(len(r.paths), len(ticks) > 3, other.done(), events)
    Mine.hold_s = 0.3
    job = nbimg.submit(["a dog", "a bird"], model="mine:m")
    print(len(job.wait().paths))
    await asyncio.sleep(0.05)
    other.cancel()
asyncio.run(main())
""",
    )
    assert out.splitlines() == ["1 True False ['create', 'poll']", "2"]


def test_without_a_backend_that_needs_it_nothing_is_nested(tmp_path):
    out = program(
        tmp_path,
        """
Mine.loop = "own"
async def main():
    Mine.home = nbimg.session.default().portal.loop()
    other = asyncio.create_task(tick())
    await asyncio.sleep(0)
    r = nbimg.generate("a cat", model="mine:m")
    print(len(r.paths), len(ticks), "nest_asyncio2" in sys.modules)
    other.cancel()
import nbimg.session
asyncio.run(main())
""",
    )
    assert out.split() == ["1", "1", "False"]


def test_stop_cancels_the_job_on_both_loops_and_no_other_task(tmp_path):
    out = program(
        tmp_path,
        """
Mine.hold_s = 0.2
async def busy():
    while True:
        end = time.monotonic() + 0.01
        while time.monotonic() < end:
            ticks.append(1)
        await asyncio.sleep(0)

async def main():
    Mine.home = asyncio.get_running_loop()
    others = [asyncio.create_task(busy()) for _ in range(3)]
    await asyncio.sleep(0)
    job = nbimg.submit("a cat", model="mine:m")
    async def never(self, job_id):
        Mine.hold_s = 60
        await self.step("poll")
    Mine.poll = never
    def press():
        while "poll" not in events:
            time.sleep(0.01)
        Mine.hold_s = 0.2
        os.kill(os.getpid(), signal.SIGINT)
    threading.Thread(target=press).start()
    begun = time.monotonic()
    try:
        job.wait()
    except KeyboardInterrupt:
        print("stopped", time.monotonic() - begun < 4, job.status)
    print(events)
    print([task.done() for task in others], signal.getsignal(signal.SIGINT) is handler)
    before = len(ticks)
    await asyncio.sleep(0.1)
    print(len(ticks) > before, [t.get_coro().__name__ for t in asyncio.all_tasks() if t not in others])
    for task in others:
        task.cancel()

loop = asyncio.new_event_loop()
handler = signal.getsignal(signal.SIGINT)
loop.run_until_complete(main())
loop.close()
""",
    )
    assert out.splitlines() == [
        "stopped True stopped",
        "['create', 'poll', 'poll cancelled', 'cancel']",
        "[False, False, False] True",
        "True ['main']",
    ]


def test_a_program_whose_loop_rests_can_wait_for_what_needs_it(tmp_path):
    out = program(
        tmp_path,
        """
loop = asyncio.new_event_loop()
async def begin():
    Mine.home = asyncio.get_running_loop()
    return nbimg.submit("a cat", model="mine:m")
job = loop.run_until_complete(begin())
print(len(job.wait().paths), hasattr(asyncio, "_nest_patched"))
loop.close()
""",
    )
    assert out.split() == ["1", "False"]
