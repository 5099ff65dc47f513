"""A job under its cell: waited for, awaited, or left to go on; what is kept and shown at its end.

Stage: the front end, behind `cells` and `jobs`. Comes in: a `Job`, its place on the screen, the names that
it is to be known by. Goes out: the result, in the notebook's variables and on the screen. Must not: know
how the job came about.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import logging
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from nbimg.calls.jobs import Job
from nbimg.display.html import element
from nbimg.errors import GenerationError, NbimgError
from nbimg.notebook.live import Live, StoppedError, stopped
from nbimg.results import ResultSet
from nbimg.types import Status

__all__ = ["Run", "StoppedError", "answering", "interruptible"]

log = logging.getLogger("nbimg")

#: What ends so soon does not go on in the background, in seconds.
AT_ONCE_S = 0.3


@contextlib.contextmanager
def answering(line: str) -> Iterator[None]:
    """Let an error of ours be one line, or with `--debug` a traceback; Stop is one line, too."""
    try:
        yield
    except NbimgError as error:
        error.debug = "--debug" in line.split()
        raise
    except StoppedError:
        raise
    except (KeyboardInterrupt, asyncio.CancelledError):  # before anything was sent
        raise StoppedError("Stopped.") from None


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """Let Stop raise in what blocks; while a cell is awaited, ipykernel would only note it."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before or signal.default_int_handler)


@dataclass
class Run:
    """A job that belongs to a cell.

    Attributes:
        job: The job.
        live: Its place on the screen.
        shell: IPython's, for the variables of the notebook.
        var: The variable for its result, besides `_img`.
        cell: Whether it shows its result; a line gives it back instead.
        shown: Whether the grid is wanted.
        strict: Whether one failed task fails the cell.
    """

    job: Job
    live: Live
    shell: Any
    var: str | None = None
    cell: bool = True
    shown: bool = True
    strict: bool = False

    def block(self) -> ResultSet | None:
        """Wait for it; the value of the line form is its result.

        Raises:
            StoppedError: After Stop; what has finished is kept and shown.
            NbimgError: When it could not begin, or failed.
        """
        with self._answered():
            results = self.live.watch(self.job)
        return self._end(results)

    async def attend(self) -> ResultSet | None:
        """Wait for it while the loop of the cell, and what else runs on it, goes on.

        Raises:
            StoppedError: After Stop; what has finished is kept and shown.
            NbimgError: When it could not begin, or failed.
        """
        with self._answered():
            results = await self.live.attend(self.job)
        with interruptible():
            return self._end(results)

    def leave(self) -> Job | ResultSet | None:
        """Let it go on after the cell, as long as the kernel lives; the value of the line form is the job.

        Its names hold the job, and from its end on the result; a name that holds something else by then
        is left alone. Under the cell stands where it is, and at its end the grid.
        """
        until = time.monotonic() + AT_ONCE_S
        while not self.job.done and time.monotonic() < until:
            time.sleep(0.02)
        if self.job.done:  # as from the store: there is nothing to come back to
            return self.block()
        self._push(self.job)
        if self.cell and self.shown:
            self.live.leave(self.job)
        name = f"nbimg-{self.job.id}"
        threading.Thread(target=self._see_off, name=name, daemon=True).start()
        return None if self.cell else self.job

    def _see_off(self) -> None:
        try:
            results = self.live.watch(self.job)
            self._push(results, in_place_of=self.job)
            failure = _failure(results, strict=self.strict)
            shown = results if failure is None else _Failed(results, failure)
            self.live.finish(shown if self.shown and self.cell else None)
        except NbimgError as error:
            self.live.finish("\n".join(error._render_traceback_()) if self.cell else None)
        except concurrent.futures.CancelledError:  # the kernel ends
            return
        except Exception:  # nobody waits here who could be told otherwise
            log.exception("the end of job %s cannot be shown", self.job.id)

    @contextlib.contextmanager
    def _answered(self) -> Iterator[None]:
        try:
            try:
                yield
            except (KeyboardInterrupt, asyncio.CancelledError):
                raise self._stopped() from None
        except NbimgError:
            self.live.finish(None)
            raise

    def _stopped(self) -> StoppedError:
        """Keep and show what has finished."""
        error = stopped(self.job)
        results = self.job.results if self.job.done else None
        if results is not None:
            self._push(results)
        self.live.finish(results if self.shown else None)
        return error

    def _end(self, results: ResultSet) -> ResultSet | None:
        self._push(results)
        self.live.finish(results if self.shown and self.cell else None)
        failure = _failure(results, strict=self.strict)
        if failure is not None:
            raise failure
        return None if self.cell else results

    def _push(self, value: Job | ResultSet, *, in_place_of: Job | None = None) -> None:
        names = ["_img", *([self.var] if self.var else [])]
        held = self.shell.user_ns
        if in_place_of is not None:
            names = [name for name in names if held.get(name) is in_place_of]
        self.shell.push(dict.fromkeys(names, value))


class _Failed:
    """The grid of a cell that failed after it had ended, and below it what the cell would have said."""

    def __init__(self, results: ResultSet, failure: GenerationError) -> None:
        self._results = results
        self._said = "\n".join(failure._render_traceback_())

    def __repr__(self) -> str:
        return f"{self._results!r}\n{self._said}"

    def _repr_mimebundle_(self, **_: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        data, metadata = self._results._repr_mimebundle_()
        said = element("div", self._said, style={"white-space": "pre-wrap"})
        return {
            **data,
            "text/plain": f"{data['text/plain']}\n{self._said}",
            "text/html": data["text/html"] + said,
        }, metadata


def _failure(results: ResultSet, *, strict: bool) -> GenerationError | None:
    """Return what fails the cell: that every task failed, or under `--strict` that any did."""
    # what was not sent is no failure: `resume` says so, and Stop says it by itself
    ends = (Status.OK, Status.CANCELLED)
    bad = [result for result in results if result.status not in ends]
    fatal = [result for result in bad if not result.images]
    if not bad or (not strict and len(fatal) < len(results)):
        return None
    first = bad[0]
    message = first.error.message if first.error else f"the task was {first.status}."
    hint = first.error.hint if first.error else None
    if len(results) > 1:
        message = f"{len(bad)} of {len(results)} tasks failed, the first: {message}"
    failure = GenerationError(message, result=first, hint=hint)
    failure.__cause__ = first.error.exception() if first.error else None
    return failure
