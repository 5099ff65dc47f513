import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import textwrap
import threading
import time

import pytest

from nbimg.concurrency.permits import Semaphore
from nbimg.errors import SettingError


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """A temporary folder that no other test's kernels see."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    yield tmp_path
    tempfile.tempdir = None


@contextlib.contextmanager
def kernel(code):
    """Another process, in which `s(limit)` makes the semaphore; killed at the end."""
    head = """
        import asyncio, os, sys, time
        from nbimg.concurrency.permits import Semaphore
        def s(limit): return Semaphore("shared", limit, "host")
        def say(text): print(text, flush=True)
    """
    text = textwrap.dedent(head) + textwrap.dedent(code)
    process = subprocess.Popen(
        [sys.executable, "-c", text], stdout=subprocess.PIPE, stdin=subprocess.PIPE, text=True
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


HOLDS = """
    with {what}:
        say("held")
        sys.stdin.readline()
    say("back")
    sys.stdin.readline()
"""


def shared(limit):
    return Semaphore("shared", limit, "host")


async def taken(semaphore, within_s):
    began = time.monotonic()
    try:
        async with asyncio.timeout(within_s), semaphore:
            return time.monotonic() - began
    except TimeoutError:
        return None


def test_another_kernel_has_none_while_all_are_held_here_and_one_as_soon_as_one_is_back():
    here = shared(1)
    with kernel(HOLDS.format(what="s(1)")) as other:
        assert other.stdout.readline() == "held\n"
        assert asyncio.run(taken(here, 0.3)) is None
        assert (here.held, here.waiting) == (0, 0)
        other.stdin.write("\n")
        other.stdin.flush()
        assert other.stdout.readline() == "back\n"
        assert asyncio.run(taken(here, 2)) < 0.5


def test_the_permits_of_a_kernel_that_is_killed_come_back():
    here = shared(2)
    with kernel(HOLDS.format(what="(both := s(2)), both")) as other:
        assert other.stdout.readline() == "held\n"
        assert asyncio.run(taken(here, 0.2)) is None
        os.kill(other.pid, signal.SIGKILL)
        assert asyncio.run(taken(here, 2)) is not None


def test_one_who_was_killed_while_it_waited_stands_in_nobodys_way():
    here = shared(1)
    with here, kernel("say('waits')\nwith s(1): say('held')") as other:
        assert other.stdout.readline() == "waits\n"
        time.sleep(0.3)
        os.kill(other.pid, signal.SIGKILL)
        other.wait()
    assert asyncio.run(taken(here, 1)) < 0.5


def test_kernels_together_never_hold_more_than_the_limit(tmp_path):
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
    with kernel(code) as one, kernel(code) as two, kernel(code) as three:
        for process in (one, two, three):
            assert process.stdout.readline() == "0\n"
    held = most = 0
    text = (tmp_path / "log").read_text()
    for sign in text:
        held += 1 if sign == "+" else -1
        most = max(most, held)
    assert text.count("+") == 75
    assert most == 3


@pytest.mark.parametrize("limit", [1, 2, 3])
def test_a_kernel_with_much_to_do_starves_no_other(limit):
    """One permit is left for two kernels; the others are held for long."""
    code = f"""
        semaphore, done = s({limit}), 0
        async def once():
            global done
            async with semaphore:
                await asyncio.sleep(0.005)
            done += 1
            if done == 20:
                say("busy")
        async def all_():
            await asyncio.gather(*(once() for _ in range(3000)))
        asyncio.run(all_())
    """
    here = shared(limit)
    with contextlib.ExitStack() as held:
        for _ in range(limit - 1):
            held.enter_context(shared(limit))
        other = held.enter_context(kernel(code))
        assert other.stdout.readline() == "busy\n"
        waited = [asyncio.run(taken(here, 2)) for _ in range(8)]
    assert None not in waited
    assert sum(waited) / 8 < 0.6


def test_each_kernel_keeps_to_its_own_limit():
    few, many = shared(1), shared(3)
    with few:
        assert asyncio.run(taken(many, 1)) is not None
    with many, many, many:
        assert asyncio.run(taken(few, 0.2)) is None
    assert asyncio.run(taken(few, 1)) is not None


def test_a_loop_that_waits_for_another_kernel_goes_on_and_many_waiters_need_one_thread():
    async def go():
        here, other = shared(1), shared(1)
        before, ticks = threading.active_count(), 0
        with other:
            waiting = [asyncio.create_task(taken(here, 5)) for _ in range(50)]
            for _ in range(20):
                await asyncio.sleep(0.01)
                ticks += 1
            assert threading.active_count() <= before + 1
        waited = await asyncio.gather(*waiting)
        assert None not in waited
        assert max(waited) < 3
        await asyncio.sleep(0.15)
        assert threading.active_count() <= before

    asyncio.run(go())


def test_threads_and_tasks_wait_in_one_queue():
    here, other, got = shared(1), shared(1), []

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


def test_those_who_give_up_leave_the_turn_to_other_kernels():
    here, other, third = shared(1), shared(1), shared(1)
    with other:
        assert asyncio.run(taken(here, 0.2)) is None
    assert asyncio.run(taken(third, 0.5)) is not None


def test_the_scope_may_be_changed_while_permits_are_held():
    one, other = Semaphore("shared", 2), shared(2)
    with one:
        one.scope = "host"
        with one:  # both permits are files now
            assert asyncio.run(taken(other, 0.2)) is None
        one.scope = "kernel"
        assert one.held == 1
        assert asyncio.run(taken(other, 0.5)) is not None
    assert one.held == 0


def test_names_that_a_folder_cannot_hold_are_names():
    for name in ("a/b", "..", "", "ü" * 300, "CON", "a\nb"):
        one, other = Semaphore(name, 1, "host"), Semaphore(name, 1, "host")
        with one:
            assert asyncio.run(taken(other, 0.1)) is None
    with Semaphore("Gpu", 1, "host"):
        assert asyncio.run(taken(Semaphore("gpu", 1, "host"), 0.5)) is not None


def test_a_folder_that_cannot_be_made_is_said_at_once(folder):
    (folder / f"nbimg-{os.getuid()}").write_text("in the way")
    with pytest.raises(SettingError, match=r"cannot be shared.*kernel"):
        shared(1)


def test_a_folder_that_was_cleaned_away_is_made_again(folder):
    import shutil

    here = shared(1)
    shutil.rmtree(folder / f"nbimg-{os.getuid()}")
    with here:
        assert asyncio.run(taken(shared(1), 0.2)) is None


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_holds_nothing_of_its_parent():
    here = shared(1)
    reading, writing = os.pipe()
    with here:
        pid = os.fork()
        if not pid:
            try:
                signal.signal(signal.SIGALRM, signal.SIG_DFL)  # not the test runner's
                signal.alarm(20)
                got = asyncio.run(taken(here, 0.2))
                os.write(writing, b"-" if got is None else b"+")
                time.sleep(15)  # it lives on
            finally:
                os._exit(0)
        try:
            assert os.read(reading, 1) == b"-"
        except BaseException:
            os.kill(pid, signal.SIGKILL)
            raise
    try:
        assert asyncio.run(taken(shared(1), 0.5)) is not None
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        os.close(reading)
        os.close(writing)
