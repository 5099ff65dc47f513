"""What tests of shared permits need: other kernels, which are processes, and a Redis server of their own."""

import asyncio
import contextlib
import shutil
import socket
import subprocess
import sys
import textwrap
import time

from nbimg.concurrency import leases

REDIS = shutil.which("redis-server")

#: Holds `{what}` until it is sent a line; then says so and stays.
HOLDS = """
    with {what}:
        say("held")
        sys.stdin.readline()
    say("back")
    sys.stdin.readline()
"""

#: Has leases end sooner in another kernel; the tests' own do by `end_soon`.
SOON = "from nbimg.concurrency import leases\nleases.LEASE_S, leases.RENEWED_S = 1.5, 0.4\n"


def end_soon(monkeypatch):
    """Have leases end sooner here, as with `SOON` in another kernel."""
    monkeypatch.setattr(leases, "LEASE_S", 1.5)
    monkeypatch.setattr(leases, "RENEWED_S", 0.4)


@contextlib.contextmanager
def kernel(code, scope, set_up=""):
    """Another process, in which `s(limit)` makes the semaphore; killed at the end."""
    head = f"""
        import asyncio, os, sys, time
        from nbimg.concurrency.permits import Semaphore
        def s(limit): return Semaphore("shared", limit, {scope!r})
        def say(text): print(text, flush=True)
    """
    text = textwrap.dedent(head) + set_up + textwrap.dedent(code)
    process = subprocess.Popen(
        [sys.executable, "-c", text], stdout=subprocess.PIPE, stdin=subprocess.PIPE, text=True
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


async def taken(semaphore, within_s):
    """Take a permit and give it back; return how long that took, None where none came in time."""
    began = time.monotonic()
    try:
        async with asyncio.timeout(within_s), semaphore:
            return time.monotonic() - began
    except TimeoutError:
        return None


class Server:
    """A Redis server of the test's own."""

    def __init__(self, folder, *words):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self._folder, self._words = folder, words
        self.start()

    def start(self):
        """Start it, and wait until it answers."""
        self.process = subprocess.Popen(
            [REDIS, "--port", str(self.port), "--bind", "127.0.0.1", "--save", "", *self._words],
            cwd=self._folder, stdout=subprocess.DEVNULL,
        )  # fmt: skip
        until = time.monotonic() + 10
        while time.monotonic() < until:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port)):
                return
            time.sleep(0.02)
        raise AssertionError("no Redis server")

    def stop(self):
        """End it at once."""
        self.process.kill()
        self.process.wait()

    def ask(self, *words):
        """Return what it answers to a command."""
        import redis

        with redis.Redis.from_url(self.url, decode_responses=True) as client:
            return client.execute_command(*words)
