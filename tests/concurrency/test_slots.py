import asyncio
import contextlib
import os
import signal
import tempfile
import threading
import time

import pytest

from nbimg.concurrency.permits import Semaphore
from nbimg.errors import SettingError
from tests.concurrency.sharing import kernel, taken


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """A temporary folder that no other test's kernels see."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    yield tmp_path
    tempfile.tempdir = None


def shared(limit):
    return Semaphore("shared", limit, "host")


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
        other = held.enter_context(kernel(code, "host"))
        assert other.stdout.readline() == "busy\n"
        waited = [asyncio.run(taken(here, 2)) for _ in range(8)]
    assert None not in waited
    assert sum(waited) / 8 < 0.6


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
