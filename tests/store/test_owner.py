import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import filelock
import psutil
import pytest

from nbimg.store import owner as owners
from nbimg.store.owner import Owner, alive

FOLDER = Path("owners")
HOLDER = """
import sys, time
from pathlib import Path
from nbimg.store.owner import Owner
owner = Owner(Path("owners"))
print(owner.hold(), flush=True)
sys.stdin.readline()
"""


@pytest.fixture
def owner():
    one = Owner(FOLDER)
    yield one
    one.release()


@pytest.fixture
def other():
    """Another process that holds a token, and the token."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    yield process, process.stdout.readline().strip()
    process.kill()
    process.wait(10)
    process.stdin.close()
    process.stdout.close()


def test_an_owner_lives_until_it_lets_go(owner):
    assert not FOLDER.exists()
    token = owner.hold()
    assert owner.hold() == token
    assert alive(FOLDER, token)
    owner.release()
    assert not alive(FOLDER, token)
    assert list(FOLDER.iterdir()) == []
    assert owner.hold() != token


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_a_process_that_dies_is_dead_at_once_and_its_file_is_cleaned_up(other, how):
    process, token = other
    assert alive(FOLDER, token)
    assert alive(FOLDER, token, patience_s=0.03)
    process.send_signal(how)
    process.wait(10)
    began = time.monotonic()
    assert not alive(FOLDER, token)
    assert time.monotonic() - began < 5  # however busy the machine is; a lease takes longer
    assert list(FOLDER.iterdir()) == []
    assert not alive(FOLDER, token)


def test_a_stopped_process_still_lives(other):
    process, token = other
    process.send_signal(signal.SIGSTOP)
    assert alive(FOLDER, token)
    process.send_signal(signal.SIGCONT)


def test_neither_the_clock_nor_the_name_of_the_host_nor_a_reused_number_matters(other, monkeypatch):
    process, token = other
    monkeypatch.setattr(time, "time", lambda: 0.0)
    monkeypatch.setattr(socket, "gethostname", lambda: "renamed")
    owners._machine.cache_clear()
    assert alive(FOLDER, token)
    process.kill()
    process.wait(10)
    monkeypatch.setattr(psutil, "pid_exists", lambda pid: True)
    assert not alive(FOLDER, token)
    owners._machine.cache_clear()


def test_nobody_and_names_that_are_no_tokens_are_dead():
    for token in ("", "nobody", "a-b-c-d"):
        assert not alive(FOLDER, token)
    assert not FOLDER.exists()


def test_who_finds_its_file_gone_takes_another_token(owner):
    token = owner.hold()
    (FOLDER / f"{token}.lock").unlink()
    again = owner.hold()
    assert again != token
    assert alive(FOLDER, again)


def forked(work):
    """Run `work` in a forked child that then waits; return its number."""
    ready, done = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            work()
            os.write(done, b"y")
            time.sleep(60)
        finally:
            os._exit(1)
    os.close(done)
    assert os.read(ready, 1) == b"y"
    os.close(ready)
    return pid


FORKING = """
import os, sys, time
from pathlib import Path
from nbimg.store.owner import Owner, alive
owner = Owner(Path("owners"))
token = owner.hold()
if os.fork() == 0:
    del owner
    import gc; gc.collect()
    parent = os.getppid()
    assert alive(Path("owners"), token)
    while os.getppid() == parent:
        time.sleep(0.01)
    if not alive(Path("owners"), token):
        Path("seen").touch()
    time.sleep(60)
print(token, flush=True)
time.sleep(60)
"""


def test_a_forked_child_does_not_keep_its_dead_parent_alive():
    parent = subprocess.Popen(
        [sys.executable, "-c", FORKING], stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    token = parent.stdout.readline().strip()
    time.sleep(0.2)
    assert alive(FOLDER, token)
    child = psutil.Process(parent.pid).children()[0]
    parent.kill()
    parent.wait(10)
    assert child.is_running()
    until = time.monotonic() + 10
    while not Path("seen").exists() and time.monotonic() < until:
        time.sleep(0.01)
    assert Path("seen").exists()  # the child itself knows that its parent is dead
    assert not alive(FOLDER, token)
    child.kill()
    parent.stdout.close()


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_forked_child_releases_nothing_of_its_parents_and_has_a_token_of_its_own(owner):
    token = owner.hold()

    def child():
        assert alive(FOLDER, token)  # the parent lives
        own = owner.hold()
        assert own != token
        Path("own").write_text(own, "utf-8")

    pid = forked(child)
    try:
        own = Path("own").read_text("utf-8")
        assert alive(FOLDER, own)
        script = "import sys; from pathlib import Path; from nbimg.store.owner import alive\n"
        script += "print(alive(Path('owners'), sys.argv[1]))"
        asked = subprocess.run(
            [sys.executable, "-c", script, token], capture_output=True, text=True, check=True
        )
        assert asked.stdout.strip() == "True"
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    assert not alive(FOLDER, own)
    assert owner.hold() == token


def test_where_locks_do_not_work_the_process_itself_is_looked_for(owner, other, monkeypatch):
    process, theirs = other

    def refused(*args, **kwargs):
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(filelock.FileLock, "acquire", refused)
    token = owner.hold()
    assert (FOLDER / f"{token}.lock").exists()
    assert alive(FOLDER, token)
    assert alive(FOLDER, theirs)
    elsewhere = "0" * 8 + theirs[8:]
    (FOLDER / f"{elsewhere}.lock").touch()
    assert alive(FOLDER, elsewhere)  # of another host nobody can tell from here
    before = "-".join([*token.split("-")[:1], "0" * 8, *theirs.split("-")[2:]])
    (FOLDER / f"{before}.lock").touch()
    assert not alive(FOLDER, before)  # the machine was started anew since then
    process.kill()
    process.wait(10)
    assert not alive(FOLDER, theirs)
    owner.release()
    assert not alive(FOLDER, token)
