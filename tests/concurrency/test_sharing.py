"""What holds of permits that kernels share, over lock files and over a Redis server alike."""

import asyncio
import os
import signal
import tempfile
import threading
import time

import pytest

from nbimg.concurrency import leases
from nbimg.concurrency.permits import Semaphore
from tests.concurrency import sharing
from tests.concurrency.sharing import HOLDS, SOON, end_soon, kernel, taken


class Shared:
    """One way to share permits."""

    def __init__(self, scope, set_up=""):
        self.scope, self._set_up = scope, set_up

    def semaphore(self, limit):
        """The semaphore, as a kernel of this process has it."""
        return Semaphore("shared", limit, self.scope)

    def kernel(self, code):
        """Another kernel, in a process of its own."""
        return kernel(code, self.scope, self._set_up)


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    if sharing.REDIS is None:
        pytest.skip("not run: needs redis-server")
    running = sharing.Server(tmp_path_factory.mktemp("redis"))
    yield running
    running.stop()


@pytest.fixture(params=["files", "server"])
def shared(request, tmp_path, monkeypatch):
    """A way to share that no other test uses."""
    if request.param == "files":
        monkeypatch.setenv("TMPDIR", str(tmp_path))
        monkeypatch.setattr(tempfile, "tempdir", None)
        yield Shared("host")
        tempfile.tempdir = None
        return
    server = request.getfixturevalue("server")
    server.ask("FLUSHALL")
    end_soon(monkeypatch)
    yield Shared(server.url, SOON)


def test_another_kernel_has_none_while_all_are_held_here_and_one_as_soon_as_one_is_back(shared):
    here = shared.semaphore(1)
    with shared.kernel(HOLDS.format(what="s(1)")) as other:
        assert other.stdout.readline() == "held\n"
        assert asyncio.run(taken(here, 0.5)) is None
        assert (here.held, here.waiting) == (0, 0)
        other.stdin.write("\n")
        other.stdin.flush()
        assert other.stdout.readline() == "back\n"
        assert asyncio.run(taken(here, 2)) < 0.5


def test_the_permits_of_a_kernel_that_is_killed_come_back(shared):
    here = shared.semaphore(2)
    with shared.kernel(HOLDS.format(what="(both := s(2)), both")) as other:
        assert other.stdout.readline() == "held\n"
        assert asyncio.run(taken(here, 0.3)) is None
        os.kill(other.pid, signal.SIGKILL)
        assert asyncio.run(taken(here, 3)) is not None


def test_one_who_was_killed_while_it_waited_stands_in_nobodys_way(shared, monkeypatch):
    monkeypatch.setattr(leases, "GONE_S", 0.5)
    here, third = shared.semaphore(1), shared.semaphore(1)
    with here, shared.kernel("say('waits')\nwith s(1): say('held')") as other:
        assert other.stdout.readline() == "waits\n"
        time.sleep(0.5)
        os.kill(other.pid, signal.SIGKILL)
        other.wait()
    assert asyncio.run(taken(third, 2)) is not None


def test_kernels_together_never_hold_more_than_the_limit(shared, tmp_path):
    """Each writes down, in one file, when it enters and when it leaves."""
    code = f"""
        semaphore = s(3)
        log = os.open({str(tmp_path / "log")!r}, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        async def once():
            async with semaphore:
                os.write(log, b"+")
                await asyncio.sleep(0.01)
                os.write(log, b"-")
        async def all_():
            await asyncio.gather(*(once() for _ in range(25)))
        asyncio.run(all_())
        say(semaphore.held)
    """
    with shared.kernel(code) as one, shared.kernel(code) as two, shared.kernel(code) as three:
        for process in (one, two, three):
            assert process.stdout.readline() == "0\n"
    held = most = 0
    text = (tmp_path / "log").read_text()
    for sign in text:
        held += 1 if sign == "+" else -1
        most = max(most, held)
    assert text.count("+") == 75
    assert most == 3


def test_each_kernel_keeps_to_its_own_limit(shared):
    few, many = shared.semaphore(1), shared.semaphore(3)
    with few:
        assert asyncio.run(taken(many, 1)) is not None
    with many, many, many:
        assert asyncio.run(taken(few, 0.2)) is None
    assert asyncio.run(taken(few, 1)) is not None


def test_threads_and_tasks_wait_in_one_queue(shared):
    here, other, got = shared.semaphore(1), shared.semaphore(1), []

    def thread():
        with here:
            got.append("thread")

    other.__enter__()
    waiting = threading.Thread(target=thread)
    waiting.start()
    time.sleep(0.1)

    async def task():
        async with here:
            got.append("task")

    threading.Timer(0.2, other.__exit__, [None, None, None]).start()
    asyncio.run(task())
    waiting.join(timeout=5)
    assert got == ["thread", "task"]


def test_those_who_give_up_leave_the_turn_to_other_kernels(shared):
    here, other, third = (shared.semaphore(1) for _ in range(3))
    with other:
        assert asyncio.run(taken(here, 0.2)) is None
    assert asyncio.run(taken(third, 0.5)) is not None
