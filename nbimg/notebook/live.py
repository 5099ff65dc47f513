"""Draw what a job does while it runs, from the thread that waits for it.

Stage: the only drawer. Comes in: a `Job`. Goes out: progress while it runs, and in its place whatever
stands there at the end. What another thread shows after its cell has ended is lost from the saved
notebook, so events are folded and drawn here, in the waiting thread. Must not: know an engine.
"""

from __future__ import annotations

import logging
import shutil
import sys
import threading
import time
from collections.abc import Sequence
from typing import Any

from nbimg.display.progress import Fold, render_html, render_text
from nbimg.events import Planned
from nbimg.job import Job
from nbimg.results import ResultSet
from nbimg.types import Request

__all__ = ["Live", "in_kernel", "watch"]

#: Shortest time between two drawings, in seconds: more is not seen and fills the wire.
DRAW_S = 0.2

log = logging.getLogger("nbimg")


def in_kernel() -> bool:
    """Whether a notebook's front end is there to show HTML."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return getattr(shell, "kernel", None) is not None


class Live:
    """The place on the screen that belongs to one job.

    Args:
        quiet: Show nothing while the job runs.
        alone: Whether the cell holds nothing else, so that its output may be emptied.
    """

    def __init__(self, *, quiet: bool = False, alone: bool = False) -> None:
        self._fold = Fold()
        self._drawn_at = 0.0
        self._quiet = quiet
        self._alone = alone
        self._handle: Any = None
        self._line = ""

    def expect(self, requests: Sequence[Request]) -> None:
        """Draw at once what is to come: a cell that shows nothing looks as if it were stuck."""
        images = sum(request.n for request in requests)
        self._fold.add(Planned(tasks=len(requests), images=images))
        self._draw(time.time())

    def watch(self, job: Job) -> ResultSet:
        """Wait for a job, drawing its progress.

        Raises:
            KeyboardInterrupt: After Stop; `job.results` holds what has finished.
        """
        return job.wait(lambda: self._tick(job))

    def finish(self, shown: Any) -> None:
        """Put the final output in the place of the progress; None leaves nothing."""
        if self._line:
            sys.stderr.write("\r" + " " * len(self._line) + "\r")
            self._line = ""
        if not in_kernel():
            if shown is not None:
                print(shown)
            return
        from IPython.display import clear_output, display

        if self._handle is None:
            if shown is not None:
                display(shown)
        elif shown is not None:
            self._handle.update(shown)
        elif self._alone:
            clear_output()
        else:  # beside what the cell printed itself; an empty text takes no room
            self._handle.update({"text/plain": ""}, raw=True)

    def _tick(self, job: Job) -> None:
        fresh = False
        while not job.events.empty():
            self._fold.add(job.events.get())
            fresh = True
        now = time.time()
        if now - self._drawn_at >= DRAW_S and (fresh or self._fold.total):
            self._draw(now)

    def _draw(self, now: float) -> None:
        if self._quiet:
            return
        self._drawn_at = now
        try:
            if in_kernel():
                self._draw_html(now)
            elif sys.stderr.isatty():
                self._draw_text(now)
        except Exception:  # images that are being paid for are not lost to a fault in drawing
            log.warning("the progress cannot be shown", exc_info=True)
            self._quiet = True

    def _draw_html(self, now: float) -> None:
        from IPython.display import HTML, display

        html = HTML(render_html(self._fold, now))
        if self._handle is None:
            self._handle = display(html, display_id=True)
        else:
            self._handle.update(html)

    def _draw_text(self, now: float) -> None:
        width = shutil.get_terminal_size().columns - 1
        line = render_text(self._fold, now).splitlines()[0][:width]
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
