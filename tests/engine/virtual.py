"""Virtual time: an event loop whose clock jumps to the next timer when nothing else is to be done.

Stage: below the property test. Comes in: a clock. Goes out: a loop on which hours of waiting take
milliseconds, the same each time. What would run in a thread runs in the loop, after a delay of its own.
When everything waits and no timer is left, nothing will ever happen again: that is `StuckError`.
"""

import asyncio
import contextlib
import sys
import time

__all__ = ["Clock", "KilledError", "StuckError", "VirtualLoop", "virtual_time"]

#: So many turns of the loop without the clock going on are a loop that never ends.
MOST_TURNS = 100_000


class StuckError(AssertionError):
    """Everything waits for ever, or runs for ever."""


class KilledError(Exception):
    """The kernel was killed at this turn of its loop, as by `kill -9`."""


class Clock:
    """Stands where the module `time` stood; the loops that share it move it."""

    EPOCH = 1_750_000_000.0

    def __init__(self):
        self.now = 1000.0

    def monotonic(self):
        return self.now

    perf_counter = monotonic

    def time(self):
        return self.EPOCH + self.now

    def __getattr__(self, name):
        return getattr(time, name)


class VirtualLoop(asyncio.BaseEventLoop):
    """A loop in virtual time.

    Attributes:
        complaints: What asyncio had to say: exceptions that nobody took, tasks that were lost.
        turns: How often it went round.
        dies_at: The turn at which its kernel is killed; None: it lives.

    Args:
        clock: Moved by this loop.
        disk_s: Called for the seconds that a piece of work in a thread takes.
    """

    def __init__(self, clock, disk_s=lambda: 0.0):
        super().__init__()
        self._virtual, self._disk_s = clock, disk_s
        self._selector = self
        self._clock_resolution = 1e-6
        self._since_jump = 0
        self.complaints = []
        self.turns = 0
        self.dies_at = None
        self.set_exception_handler(lambda _, context: self.complaints.append(context))

    def time(self):
        return self._virtual.now

    def select(self, timeout):
        """Jump to the next timer when nothing is ready; called once in each turn."""
        self.turns += 1
        self._since_jump += 1
        if self.turns == self.dies_at:
            raise KilledError
        if timeout is None:
            raise StuckError("everything waits, and nothing will ever happen")
        if timeout > 0:
            self._virtual.now += timeout
            self._since_jump = 0
        elif self._since_jump > MOST_TURNS:
            raise StuckError(f"{MOST_TURNS} turns of the loop at one moment")
        return ()

    def run_in_executor(self, executor, func, *args):
        """Run the work here, once its time has come; it is done even when nobody waits any more."""
        done = self.create_future()

        def work():
            try:
                value = func(*args)
            except Exception as error:
                if not done.done():
                    done.set_exception(error)
            else:
                if not done.done():
                    done.set_result(value)

        self.call_later(self._disk_s(), work)
        return done

    def _process_events(self, _events):
        return

    def _write_to_self(self):
        return

    def bury(self):
        """Throw away what a killed loop still held; none of its code must matter any more."""
        self.set_exception_handler(lambda *_: None)
        for task in asyncio.all_tasks(self):
            task._log_destroy_pending = False
            with contextlib.suppress(BaseException):
                task.get_coro().close()
        self._ready.clear()
        self._scheduled.clear()
        self.close()


@contextlib.contextmanager
def virtual_time(clock):
    """Let every module of nbimg that reads the time read it from `clock`."""
    patched = [
        module
        for name, module in list(sys.modules.items())
        if name.startswith("nbimg.") and module.__dict__.get("time") is time
    ]
    for module in patched:
        module.time = clock
    try:
        yield
    finally:
        for module in patched:
            module.time = time
