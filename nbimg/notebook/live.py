"""Draw what a job does while it runs.

Stage: the only drawer. Comes in: a `Job`. Goes out: progress while it runs, and in its place whatever
stands there at the end. What another thread shows anew stands under whatever cell runs, so the place is
made in the cell's own thread, and drawing is up to whoever waits: the thread of the cell, between the turns
of its loop where it is awaited, or the watcher of a job that goes on after its cell, which only renews what
stands. Must not: know an engine.
"""

from __future__ import annotations

import logging
import os
import shutil
import sys
import threading
import time
from collections.abc import Sequence
from typing import Any

from nbimg.display.progress import render_html, render_text
from nbimg.events import Planned
from nbimg.jobs import Job
from nbimg.progress import Fold
from nbimg.results import ResultSet
from nbimg.types import Request

__all__ = ["Live", "in_kernel", "watch"]

#: Shortest time between two drawings, in seconds: more is not seen and fills the wire.
DRAW_S = 0.2
#: The same for a job that goes on beside other cells.
BESIDE_S = 1.0

log = logging.getLogger("nbimg")


def in_kernel() -> bool:
    """Whether a notebook's front end is there to show HTML; it does not hear a fork."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    kernel = getattr(shell, "kernel", None)
    return kernel is not None and getattr(kernel.session, "pid", os.getpid()) == os.getpid()


class Live:
    """The place on the screen that belongs to one job.

    Args:
        quiet: Show nothing while the job runs.
        alone: Whether the cell holds nothing else, so that its output may be emptied.
    """

    def __init__(self, *, quiet: bool = False, alone: bool = False) -> None:
        self._expected: Planned | None = None
        self._beside: Job | None = None
        self._drawn_at = 0.0
        self._quiet = quiet
        self._alone = alone
        self._handle: Any = None
        self._line = ""

    def expect(self, requests: Sequence[Request]) -> None:
        """Draw at once what is to come: a cell that shows nothing looks as if it were stuck."""
        images = sum(request.n for request in requests)
        self._expected = Planned(tasks=len(requests), images=images)
        self._draw(Fold(), time.time())

    def watch(self, job: Job) -> ResultSet:
        """Wait for a job, drawing its progress.

        Raises:
            KeyboardInterrupt: After Stop; `job.results` holds what has finished.
        """
        return job.wait(lambda: self._tick(job))

    async def attend(self, job: Job) -> ResultSet:
        """Wait for a job in a running loop, drawing its progress between the turns of the loop.

        Raises:
            CancelledError: After Stop; `job.results` holds what has finished.
        """
        return await job.attend(lambda: self._tick(job))

    def leave(self, job: Job) -> None:
        """Make the place of a job that goes on after its cell; from now on it is only renewed."""
        self._beside, self._alone, self._quiet = job, False, False
        if in_kernel():
            self._draw(job.progress, time.time())
            return
        self._quiet = True
        print(f"nbimg: job {job.id} goes on in the background. %imgjobs, %imgcancel {job.id}")

    def finish(self, shown: Any) -> None:
        """Put the final output in the place of the progress; None leaves nothing."""
        if self._line:
            sys.stderr.write("\r" + " " * len(self._line) + "\r")
            self._line = ""
        if not in_kernel():
            if shown is not None and self._beside is None:
                print(shown)
            return
        from IPython.display import clear_output, display

        if self._handle is None:
            if shown is not None:
                display(shown)
        elif isinstance(shown, str):
            self._handle.update({"text/plain": shown}, raw=True)
        elif shown is not None:
            self._handle.update(shown)
        elif self._alone:
            clear_output()
        else:  # beside what the cell printed itself; an empty text takes no room
            self._handle.update({"text/plain": ""}, raw=True)

    def _tick(self, job: Job) -> None:
        now = time.time()
        if not self._quiet and now - self._drawn_at >= (BESIDE_S if self._beside else DRAW_S):
            self._draw(job.progress, now)

    def _draw(self, fold: Fold, now: float) -> None:
        if self._expected is not None:
            fold.add(self._expected)
        if self._quiet or not (fold.total or self._beside):
            return
        self._drawn_at = now
        try:
            if in_kernel():
                self._draw_html(fold, now)
            elif sys.stderr.isatty():
                self._draw_text(fold, now)
        except Exception:  # images that are being paid for are not lost to a fault in drawing
            log.warning("the progress cannot be shown", exc_info=True)
            self._quiet = True

    def _draw_html(self, fold: Fold, now: float) -> None:
        from IPython.display import HTML, display

        job = self._beside
        head = f"in the background · %imgcancel {job.id}" if job else ""
        html = HTML(render_html(fold, now, head=head))
        if self._handle is None:
            self._handle = display(html, display_id=True)
        else:
            self._handle.update(html)

    def _draw_text(self, fold: Fold, now: float) -> None:
        width = shutil.get_terminal_size().columns - 1
        line = render_text(fold, now).splitlines()[0][:width]
        sys.stderr.write("\r" + line.ljust(len(self._line)))
        sys.stderr.flush()
        self._line = line


def watch(job: Job) -> ResultSet:
    """Wait for a job with its progress on the screen, and leave nothing behind.

    In another thread than the main one nothing is drawn: it would stand under whatever cell runs.
    """
    live = Live(quiet=threading.current_thread() is not threading.main_thread())
    try:
        return live.watch(job)
    finally:
        live.finish(None)
