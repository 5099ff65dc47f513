"""Permits that machines share over Redis: a real server on loopback, and kernels that are processes."""

import asyncio
import logging
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time

import pytest

from nbimg.concurrency import leases
from nbimg.concurrency.permits import Semaphore
from nbimg.errors import DependencyMissingError, SettingError
from nbimg.testing import ReplicateServer
from tests.concurrency import sharing
from tests.concurrency.sharing import HOLDS, SOON, end_soon, kernel, taken

pytestmark = pytest.mark.skipif(sharing.REDIS is None, reason="not run: needs redis-server")


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    server = sharing.Server(tmp_path_factory.mktemp("redis"))
    yield server
    server.stop()


@pytest.fixture
def server(running, monkeypatch):
    """An empty server, and leases that end soon."""
    end_soon(monkeypatch)
    running.ask("FLUSHALL")
    return running


def shared(server, limit=1):
    return Semaphore("shared", limit, server.url)


def settled(server, count, of="leases", within_s=1):
    """Wait until the server has so many, long before any ends by itself."""
    until = time.monotonic() + within_s
    while (found := server.ask("ZCARD", f"nbimg:{{shared}}:{of}")) != count:
        assert time.monotonic() < until, f"{found} {of}"
        time.sleep(0.01)


# ------------------------------------------------------------------ sharing


def test_a_lease_lasts_as_long_as_its_holder_works(server):
    here = shared(server)
    with kernel(HOLDS.format(what="s(1)"), server.url, SOON) as other:
        assert other.stdout.readline() == "held\n"
        assert asyncio.run(taken(here, 2 * leases.LEASE_S)) is None


def test_one_who_was_killed_while_it_waited_leaves_the_queue(server, monkeypatch):
    monkeypatch.setattr(leases, "GONE_S", 0.5)
    here, third = shared(server), shared(server)
    with here, kernel("say('waits')\nwith s(1): say('held')", server.url, SOON) as other:
        assert other.stdout.readline() == "waits\n"
        settled(server, 1, of="queue", within_s=10)
        os.kill(other.pid, signal.SIGKILL)
        other.wait()
    assert asyncio.run(taken(third, 3)) is not None


def test_a_kernel_with_much_to_do_starves_no_other(server):
    busy, served = shared(server), []

    async def once(number):
        async with busy:
            served.append(number)
            await asyncio.sleep(0.02)

    async def everyone(other):
        tasks = [asyncio.create_task(once(number)) for number in range(60)]
        while len(served) < 5:
            await asyncio.sleep(0.01)
        other.stdin.write("\n")
        other.stdin.flush()
        line = await asyncio.to_thread(other.stdout.readline)
        before = len(served)
        await asyncio.gather(*tasks)
        return line, before

    code = "semaphore = s(1)\nsay('ready')\nsys.stdin.readline()\nwith semaphore: say('held')"
    with kernel(code, server.url, SOON) as other:
        assert other.stdout.readline() == "ready\n"
        line, before = asyncio.run(everyone(other))
    assert line == "held\n"
    assert before < 30


def test_many_tasks_and_threads_of_a_kernel_share_what_it_holds(server):
    here, most, now = shared(server, 5), [], []

    async def once():
        async with here:
            now.append(1)
            most.append(len(now))
            await asyncio.sleep(0.01)
            now.pop()

    async def everyone():
        await asyncio.gather(*(once() for _ in range(40)))

    def thread():
        for _ in range(5):
            with here:
                now.append(1)
                most.append(len(now))
                time.sleep(0.01)
                now.pop()

    threads = [threading.Thread(target=thread) for _ in range(3)]
    for each in threads:
        each.start()
    asyncio.run(everyone())
    for each in threads:
        each.join()
    assert max(most) <= 5
    assert len(most) == 55
    assert here.held == 0
    settled(server, 0)
    assert server.ask("ZCARD", "nbimg:{shared}:queue") == 0


def test_a_loop_goes_on_while_a_task_waits_for_another_machine(server):
    holder, here = shared(server), shared(server)

    async def ticks():
        count = 0
        waiter = asyncio.create_task(taken(here, 1))
        while not waiter.done():
            await asyncio.sleep(0.01)
            count += 1
        return count

    with holder:
        assert asyncio.run(ticks()) > 40


def test_a_script_that_ends_leaves_no_lease_behind(server):
    with kernel("semaphore = s(2)\nwith semaphore, semaphore: pass", server.url, SOON) as other:
        assert other.wait(timeout=10) == 0
        assert server.ask("ZCARD", "nbimg:{shared}:leases") == 0


@pytest.mark.skipif(not hasattr(os, "fork"), reason="not run: this system does not fork")
def test_a_forked_child_takes_nothing_from_its_parent(server):
    code = """
        import warnings
        warnings.simplefilter("ignore")
        semaphore = s(1)
        with semaphore:
            if not (child := os.fork()):
                held = semaphore.held
                sys.exit(held)  # with all that a process does at its end
            say(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
            sys.stdin.readline()
    """
    with kernel(code, server.url, SOON) as other:
        assert other.stdout.readline() == "0\n"
        assert server.ask("ZCARD", "nbimg:{shared}:leases") == 1


# ------------------------------------------------------------------ the server


def test_a_server_that_went_away_is_said_once_and_waited_for(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(leases, "AGAIN_S", 0.1)
    server = sharing.Server(tmp_path)
    try:
        here = shared(server)
        assert asyncio.run(taken(here, 2)) is not None
        server.stop()
        with caplog.at_level(logging.INFO, logger="nbimg"):
            assert asyncio.run(taken(here, 0.8)) is None
            server.start()
            assert asyncio.run(taken(here, 3)) is not None
        said = [record.getMessage() for record in caplog.records]
        assert len([line for line in said if "cannot be shared over" in line]) == 1
        assert len([line for line in said if "answers again" in line]) == 1
    finally:
        server.stop()


def test_work_goes_on_when_the_server_went_away_and_its_lease_is_there_again(tmp_path, monkeypatch):
    monkeypatch.setattr(leases, "AGAIN_S", 0.1)
    monkeypatch.setattr(leases, "RENEWED_S", 0.2)
    server = sharing.Server(tmp_path)
    try:
        here, other = shared(server), shared(server)
        with here:
            server.stop()
            server.start()  # it has forgotten everything
            settled(server, 1)
            assert asyncio.run(taken(other, 0.3)) is None
        assert asyncio.run(taken(other, 2)) is not None
    finally:
        server.stop()


def test_a_lease_whose_answer_was_lost_is_given_back(server, monkeypatch):
    import redis

    monkeypatch.setattr(leases, "LEASE_S", 30.0)
    monkeypatch.setattr(leases, "AGAIN_S", 0.1)
    here, lost = shared(server), []
    connection = here._slots._server
    kept = connection.eval

    def evaluated(*words):
        answer = kept(*words)
        if not lost:
            lost.append(answer)
            raise redis.TimeoutError("lost on the way back")
        return answer

    monkeypatch.setattr(connection, "eval", evaluated)
    assert asyncio.run(taken(here, 2)) is not None
    assert lost == [1]
    settled(server, 0)


def test_a_server_that_is_not_there_is_one_line_at_once():
    began = time.monotonic()
    with pytest.raises(
        SettingError, match=r"cannot be shared over redis://127\.0\.0\.1:1/0: "
    ) as caught:
        Semaphore("shared", 1, "redis://127.0.0.1:1/0")
    assert time.monotonic() - began < 3
    assert "\n" not in caught.value.message
    assert "scope=" in caught.value.hint


def test_a_password_is_never_shown(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(leases, "AGAIN_S", 0.1)
    server = sharing.Server(tmp_path, "--requirepass", "not-a-real-one")
    try:
        with pytest.raises(SettingError, match="cannot be shared") as caught:
            Semaphore("shared", 1, f"redis://:wrong-secret@127.0.0.1:{server.port}/0")
        assert "wrong-secret" not in str(caught.value)
        told = leases._reason("redis://:obvious-fake@h:1", ValueError("no obvious-fake\nmore"))
        assert told == "permits cannot be shared over redis://h:1: no •••."
        url = f"redis://:not-a-real-one@127.0.0.1:{server.port}/0"
        here = Semaphore("shared", 1, url)
        assert here.scope == server.url
        assert "not-a-real-one" not in repr(here)
        server.stop()
        assert asyncio.run(taken(here, 0.4)) is None
        assert "cannot be shared" in caplog.text
        assert "not-a-real-one" not in caplog.text
    finally:
        server.stop()


def test_the_package_that_it_needs_is_named_when_it_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "redis", None)
    with pytest.raises(DependencyMissingError) as caught:
        Semaphore("shared", 1, "redis://127.0.0.1:1/0")
    assert caught.value.hint == "pip install 'nbimg[redis]'"


def test_the_scope_may_be_changed_while_permits_are_held(server):
    here = shared(server)
    with here:
        here.scope = "kernel"
        assert here.scope == "kernel"
        settled(server, 0)
    here.scope = server.url
    assert asyncio.run(taken(here, 2)) is not None
    settled(server, 0)


# ------------------------------------------------------------------ an account


def test_kernels_of_two_machines_together_keep_to_the_limit_of_an_account(server, tmp_path):
    code = f"""
        import nbimg
        nbimg.register_semaphore("replicate", 3, scope={server.url!r})
        r = nbimg.generate([f"{{sys.argv[1]}} {{k}}" for k in range(8)], model="flux-dev", cache=False)
        say(len(r.images))
    """
    with ReplicateServer(running_s=0.3) as account:
        environ = {
            **os.environ,
            "NBIMG_REPLICATE_BASE_URL": account.base_url,
            "REPLICATE_API_TOKEN": account.token,
        }
        kernels = []
        for name in ("one", "two"):
            (tmp_path / name).mkdir()
            words = [sys.executable, "-c", "import sys\ndef say(t): print(t, flush=True)\n"
                     + textwrap.dedent(code), name]  # fmt: skip
            kernels.append(
                subprocess.Popen(
                    words, cwd=tmp_path / name, env=environ, stdout=subprocess.PIPE, text=True
                )
            )
        assert [each.communicate(timeout=60)[0] for each in kernels] == ["8\n", "8\n"]
        jobs = account.jobs
    ends = [(job.created_s + job.starting_s + job.running_s, -1) for job in jobs]
    changes = sorted([*((job.created_s, 1) for job in jobs), *ends])
    now = most = 0
    for _, change in changes:
        now += change
        most = max(most, now)
    assert len(jobs) == 16
    assert most == 3
