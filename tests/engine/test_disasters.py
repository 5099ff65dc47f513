"""Disks that are full or cannot be written, loops that are closed, clocks that jump, processes that fork.

Each happens to a whole `nbimg.batch` against the local Replicate, in a Python of its own.
"""

import functools
import os
import subprocess
import sys
import textwrap

import pytest

import nbimg
from nbimg import session
from nbimg.store.journal import Left
from nbimg.testing import Fault

#: What every script may use.
BEGIN = """
import asyncio, os, sys, threading, time, warnings
from pathlib import Path
import nbimg
from nbimg import events
from nbimg.errors import StoreError

FOLDER = Path("nbimg-images")
PROMPTS = ["one", "two", "three"]


def submit(prompts=PROMPTS):
    return nbimg.submit(prompts, model="flux-dev")


def wait_for(condition, seconds=20):
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "waited in vain"
        time.sleep(0.005)


def under_way(job, count=3):
    wait_for(lambda: sum(isinstance(e, events.Submitted) for e in list(job.events)) == count)


def whole(results, count=3):
    assert [r.status for r in results] == ["ok"] * count, [str(r.error) for r in results]
    assert all(len(path.read_bytes()) > 50 for path in results.paths)
"""


@functools.cache
def mounts():
    """How to get mounts of one's own, or None where nobody may."""
    for words in (("unshare", "-m"), ("unshare", "--map-root-user", "--mount")):
        try:
            tried = subprocess.run(
                [*words, "mount", "-t", "tmpfs", "none", "/mnt"], capture_output=True, check=False
            )
        except OSError:
            continue
        if tried.returncode == 0:
            return words
    return None


needs_mounts = pytest.mark.skipif(mounts() is None, reason="nobody may mount anything here")


def run(script, *before, variables=()):
    """Run a script, which must end well and say nothing that is not asked for."""
    done = subprocess.run(
        [*before, sys.executable, "-W", "error", "-c", BEGIN + textwrap.dedent(script)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, **dict(variables)},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


# ------------------------------------------------------------------ disks

FULL = """
    FOLDER.mkdir()
    os.system("mount -t tmpfs -o size=2m none nbimg-images")


    def fill():
        with open(FOLDER / "filler", "wb", buffering=0) as file:
            for size in (65536, 4096, 1):
                try:
                    while file.write(bytes(size)):
                        pass
                except OSError:
                    continue


    def make_room():
        (FOLDER / "filler").unlink()
"""


@needs_mounts
def test_on_a_full_disk_one_line_says_so_and_nothing_is_sent(server):
    out = run(
        FULL
        + """
    fill()
    try:
        nbimg.batch(PROMPTS, model="flux-dev")
    except StoreError as error:
        print(error)
    make_room()
    whole(nbimg.batch(PROMPTS, model="flux-dev"))
    """,
        *mounts(),
    )
    (line,) = out.splitlines()
    assert "full" in line
    assert len(server.jobs) == 3


@needs_mounts
@pytest.mark.parametrize("again", ["nbimg.resume()", "nbimg.resume(remaining=True)"])
def test_what_was_paid_for_when_the_disk_became_full_is_fetched_once_there_is_room(server, again):
    server.running_s = 0.5
    out = run(
        FULL
        + f"""
    job = submit()
    under_way(job)
    fill()
    for result in job.wait():
        assert result.status == "failed" and not result.images, result.status
        print(result.error)
    make_room()
    whole({again})
    whole(nbimg.batch(PROMPTS, model="flux-dev"))
    """,
        *mounts(),
    )
    assert len(out.splitlines()) == 3
    assert all("full" in line and len(line) < 300 for line in out.splitlines())
    assert len(server.jobs) == 6


@needs_mounts
def test_a_job_whose_id_could_not_be_written_down_is_not_paid_for_again(server):
    server.latency_s = lambda call: 0.5 if call.method == "POST" else 0.0
    server.running_s = 0.2
    run(
        FULL
        + """
    job = submit()
    wait_for(lambda: sum(isinstance(e, events.Started) for e in list(job.events)) == 3)
    time.sleep(0.2)  # the creates are on their way
    fill()
    job.wait()
    make_room()
    whole(nbimg.resume(remaining=True))
    """,
        *mounts(),
    )
    assert len(server.jobs) == 3


@needs_mounts
def test_what_was_paid_for_when_the_disk_became_full_is_fetched_by_the_next_kernel(server):
    server.running_s = 0.5
    run(
        FULL
        + """
    pid = os.fork()
    if not pid:
        job = submit()
        under_way(job)
        fill()
        job.wait()
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0
    make_room()
    whole(nbimg.resume())
    """,
        *mounts(),
    )
    assert len(server.jobs) == 3


@needs_mounts
def test_in_a_folder_that_is_read_only_one_line_says_so_and_nothing_is_sent(server):
    out = run(
        """
    FOLDER.mkdir()
    os.system("mount --bind nbimg-images nbimg-images")
    os.system("mount -o remount,ro,bind nbimg-images")
    try:
        nbimg.batch(PROMPTS, model="flux-dev")
    except StoreError as error:
        print(error)
    os.system("mount -o remount,rw,bind nbimg-images")
    whole(nbimg.batch(PROMPTS, model="flux-dev"))
    """,
        *mounts(),
    )
    (line,) = out.splitlines()
    assert "ead-only" in line
    assert "nbimg-images" in line
    assert len(server.jobs) == 3


# ------------------------------------------------------------------ loops and clocks


def test_a_batch_goes_on_when_the_loop_that_asked_for_it_is_closed(server):
    server.running_s = 0.5
    run(
        """
    async def begin():
        return submit()

    job = asyncio.run(begin())
    whole(job.wait())


    async def wait():
        await waited

    waited = submit()
    loop = asyncio.new_event_loop()
    waiting = loop.create_task(wait())
    loop.run_until_complete(asyncio.sleep(0.1))
    waiting._log_destroy_pending = False  # the user's own fault
    loop.close()
    whole(waited.wait())
    whole(asyncio.run(nbimg.abatch(PROMPTS, model="flux-dev")))
    """
    )
    assert len(server.jobs) == 9


def test_a_kernel_that_ends_in_the_middle_of_a_batch_leaves_the_rest_to_the_next_one(server):
    server.running_s = 60.0
    run(
        """
    job = nbimg.submit(PROMPTS, model="flux-dev", concurrency=1)
    under_way(job, 1)
    """
    )
    assert [job.status for job in server.jobs] == ["canceled"]  # nobody would wait for it
    assert session.default().left() == Left(1, 0, 3)
    assert len(nbimg.resume()) == 0
    server.running_s = 0.01
    assert [result.status for result in nbimg.resume(remaining=True)] == ["ok"] * 3
    assert len(server.jobs) == 4


@pytest.mark.parametrize("days", [1, -1])
def test_a_clock_that_jumps_during_a_batch_changes_nothing(server, days):
    server.running_s = 0.3
    run(
        f"""
    now, shift = time.time, 0.0
    time.time = lambda: now() + shift
    began = time.monotonic()
    job = submit()
    under_way(job)
    shift = {days} * 86400.0
    whole(job.wait())
    whole(submit().wait())
    assert time.monotonic() - began < 600  # a busy machine takes seconds, a clock that is believed a day
    assert all(0 <= r.seconds.running < 600 for r in job.results)
    """
    )
    assert len(server.jobs) == 6


@pytest.mark.parametrize("days", [1, -1])
def test_a_create_that_was_lost_is_found_by_a_clock_that_is_wrong(server, days):
    server.inject(Fault("drop", method="POST", path="*/predictions", when="after"))
    run(
        f"""
    now = time.time
    time.time = lambda: now() + {days} * 86400.0
    whole(submit(["one"]).wait(), 1)
    """
    )
    assert len(server.jobs) == 1


# ------------------------------------------------------------------ processes


def test_a_child_that_is_forked_during_a_batch_runs_its_own_and_harms_none(server):
    server.running_s = 0.5
    run(
        """
    job = submit()
    under_way(job)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of threads that are forked
        pid = os.fork()
    if not pid:
        try:
            whole(nbimg.batch(["four", "five"], model="flux-dev"), 2)
        except BaseException as error:
            print(repr(error), file=sys.stderr)
            os._exit(1)
        os._exit(0)
    whole(job.wait())
    assert os.waitpid(pid, 0)[1] == 0
    whole(nbimg.batch(PROMPTS, model="flux-dev"))
    """
    )
    assert len(server.jobs) == 8
    assert not server.duplicates()
