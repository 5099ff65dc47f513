"""Draw what a job does while it runs.

Stage: the only drawer. Comes in: a `Job`. Goes out: progress while it runs, and in its place whatever
stands there at the end. What another thread shows anew stands under whatever cell runs, so the place is
made in the cell's own thread, and drawing is up to whoever waits: the thread of the cell, between the turns
of its loop where it is awaited, or the watcher of a job that goes on after its cell, which only renews what
stands. Must not: know an engine.

A line of numbers stands there first. A job that is not over at once gets the live grid, a widget; where no
page answers that it shows it, the line stays.
"""

from __future__ import annotations

import logging
import os
import shutil
import sys
import threading
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from nbimg.calls.jobs import Job
from nbimg.calls.progress import Fold
from nbimg.display import words
from nbimg.display.progress import render_html, render_numbers, render_said, render_text
from nbimg.events import Planned
from nbimg.results import ResultSet
from nbimg.types import ImageRecord, Request

if TYPE_CHECKING:
    from nbimg.notebook.livegrid import LiveGrid

__all__ = ["Live", "StoppedError", "in_kernel", "stopped", "watch"]

#: Shortest time between two drawings, in seconds: more is not seen and fills the wire.
DRAW_S = 0.2
#: The same for a job that goes on beside other cells.
BESIDE_S = 1.0
#: What is over sooner gets no live grid, in seconds.
GRID_AFTER_S = 0.4
#: How long a page may take to say that it shows the live grid, in seconds.
PATIENCE_S = 4.0

Thumb = Callable[[ImageRecord, int], "bytes | None"]

log = logging.getLogger("nbimg")


def in_kernel() -> bool:
    """Whether a notebook's front end is there to show HTML; it does not hear a fork."""
    kernel = getattr(_shell(), "kernel", None)
    return kernel is not None and getattr(kernel.session, "pid", os.getpid()) == os.getpid()


def _is_watched() -> bool:
    """Whether somebody sits there: who runs a notebook unseen says that nobody will type anything."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return bool(getattr(getattr(shell, "kernel", None), "_allow_stdin", True))


def _shell() -> Any:
    ipython = sys.modules.get("IPython")
    return ipython.get_ipython() if ipython is not None else None


class StoppedError(KeyboardInterrupt):
    """Stop ended the cell; one line in place of a traceback, and Run All stops too."""

    def _render_traceback_(self) -> list[str]:
        return [str(self)]


def stopped(job: Job, where: str = "") -> StoppedError:
    """Return what Stop leaves to say about a job.

    Args:
        job: As Stop has left it.
        where: Where what has finished is kept.
    """
    if not job.done:
        return StoppedError("Stopped; the provider has not confirmed it. What is done is on disk.")
    kept = words.count(len(job.results.records), "image")
    return StoppedError(f"Stopped: {kept} kept{where}.")


class Live:
    """The place on the screen that belongs to one job.

    Args:
        quiet: Show nothing while the job runs.
        alone: Whether the cell holds nothing else, so that its output may be emptied.
        thumb: Gives the small WebP of an image, with the longer side that is wanted in pixels.
    """

    #: Whether a page has ever shown a live grid of this kernel: then the next one is drawn at once.
    _answered = False

    def __init__(
        self, *, quiet: bool = False, alone: bool = False, thumb: Thumb | None = None
    ) -> None:
        self._expected: Planned | None = None
        self._asked: dict[str, Any] = {}
        self._beside: Job | None = None
        self._begun_s = time.monotonic()
        self._drawn_at = 0.0
        self._quiet = quiet
        self._alone = alone
        self._thumb = thumb
        self._handle: Any = None
        self._grid: LiveGrid | None = None
        self._grid_s: float | None = None  # since when the grid stands there; None: the line does
        self._heard: Job | None = None
        self._pressed = threading.Event()
        self._line = ""

    def expect(
        self,
        requests: Sequence[Request],
        *,
        rows: Sequence[str] = (),
        columns_labels: Sequence[str] = (),
        columns: int | None = None,
    ) -> None:
        """Draw at once what is to come: a cell that shows nothing looks as if it were stuck.

        Args:
            requests: What was asked for.
            rows: Labels of the rows of a fan-out.
            columns_labels: Labels of its columns.
            columns: Tiles in a row, where there are no labels.
        """
        images = sum(request.n for request in requests)
        self._expected = Planned(tasks=len(requests), images=images)
        self._asked = {
            "requests": requests,
            "rows": rows,
            "columns_labels": columns_labels,
            "columns": columns,
        }
        self._draw(Fold(), time.time())

    def watch(self, job: Job) -> ResultSet:
        """Wait for a job, drawing its progress.

        Raises:
            KeyboardInterrupt: After Stop; `job.results` holds what has finished.
        """
        self._listen(job)
        return job.wait(lambda: self._tick(job))

    async def attend(self, job: Job) -> ResultSet:
        """Wait for a job in a running loop, drawing its progress between the turns of the loop.

        Raises:
            CancelledError: After Stop; `job.results` holds what has finished.
        """
        self._listen(job)
        return await job.attend(lambda: self._tick(job))

    def leave(self, job: Job) -> None:
        """Make the place of a job that goes on after its cell; from now on it is only renewed."""
        self._beside, self._alone, self._quiet = job, False, False
        if in_kernel():
            self._listen(job)
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
            data, metadata = shown._repr_mimebundle_()
            self._handle.update(data, metadata=metadata, raw=True)
            self._end_grid(data, metadata)
        elif self._alone:
            clear_output()
        else:  # beside what the cell printed itself; an empty text takes no room
            self._handle.update({"text/plain": ""}, raw=True)
        self._end_grid()

    def _end_grid(self, data: Any = None, metadata: Any = None) -> None:
        grid, self._grid = self._grid, None
        if grid is not None:
            grid.end(data, metadata or {})

    def _listen(self, job: Job) -> None:
        """Have the live grid hear what happens, if there may be one."""
        if self._heard is job or self._quiet or not (in_kernel() and _is_watched()):
            return
        self._heard = job
        try:
            from nbimg.notebook.livegrid import LiveGrid
        except ImportError:  # no anywidget: the line says enough
            return
        self._grid = LiveGrid(**self._asked, thumb=self._thumb, pressed=self._pressed.set)
        job.listen(self._grid.hear)

    def _tick(self, job: Job) -> None:
        if self._pressed.is_set():
            self._stop(job)
        now = time.time()
        if not self._quiet and now - self._drawn_at >= (BESIDE_S if self._beside else DRAW_S):
            self._draw(job.progress, now, job)

    def _stop(self, job: Job) -> None:
        """Do what the stop button of the page does to a cell; a job beside the cells is cancelled.

        Raises:
            KeyboardInterrupt: Where a cell waits.
        """
        if job.done or job.status == "stopping":
            return
        job.cancel()
        self._draw(job.progress, time.time(), job)
        if self._beside is None:
            raise KeyboardInterrupt

    def _draw(self, fold: Fold, now: float, job: Job | None = None) -> None:
        if self._expected is not None:
            fold.add(self._expected)
        if self._quiet or not (fold.total or self._beside):
            return
        self._drawn_at = now
        try:
            if in_kernel():
                self._draw_html(fold, now, job)
            elif sys.stderr.isatty():
                self._draw_text(fold, now)
        except Exception:  # images that are being paid for are not lost to a fault in drawing
            log.warning("the progress cannot be shown", exc_info=True)
            self._quiet = True

    def _draw_html(self, fold: Fold, now: float, job: Job | None) -> None:
        """Draw the live grid, or the line where there is none, or not yet, or nobody who shows it."""
        from IPython.display import HTML, display

        header = self._header(fold, now, job)
        if self._grid is not None:
            Live._answered |= self._grid.seen
            self._grid.draw(header, all_of_it=self._grid.seen or Live._answered)
            if self._grid_s is not None and (self._grid.seen or not self._is_in_vain()):
                return
        shown: Any = HTML(self._render_line(fold, now))
        if self._may_show_grid():
            assert self._grid is not None
            self._grid_s = time.monotonic()
            shown = self._grid.bundle(header, str(shown.data), render_text(fold, now))
        else:
            self._grid_s = None
        if self._handle is None:
            self._handle = display(shown, display_id=True, raw=isinstance(shown, dict))
        else:
            self._handle.update(shown, raw=isinstance(shown, dict))

    def _may_show_grid(self) -> bool:
        """Whether it is time for the grid to take the place of the line, for the first time or again."""
        if self._grid is None or (self._beside is None and self._since_begun_s() < GRID_AFTER_S):
            return False
        return not self._is_in_vain() or self._grid.seen

    def _is_in_vain(self) -> bool:
        """Whether no page shows the grid, although there was time to."""
        asked = GRID_AFTER_S + PATIENCE_S
        return not Live._answered and self._since_begun_s() > asked

    def _since_begun_s(self) -> float:
        return time.monotonic() - self._begun_s

    def _header(self, fold: Fold, now: float, job: Job | None) -> dict[str, Any]:
        beside = ["in the background"] if self._beside else []
        stopping = job is not None and job.status == "stopping"
        return {
            "numbers": " · ".join([*render_numbers(fold, now), *beside]),
            "said": " · ".join(render_said(fold, now)),
            "share": round(fold.share(), 3),
            "state": "stopping" if stopping else "running",
            "beside": self._beside is not None,
            "heard": self._grid.pages if self._grid is not None else [],
        }

    def _render_line(self, fold: Fold, now: float) -> str:
        job = self._beside
        head = f"in the background · %imgcancel {job.id}" if job else ""
        return render_html(fold, now, head=head)

    def _draw_text(self, fold: Fold, now: float) -> None:
        width = shutil.get_terminal_size().columns - 1
        line = render_text(fold, now).splitlines()[0][:width]
        sys.stderr.write("\r" + line.ljust(len(self._line)))
        sys.stderr.flush()
        self._line = line


def watch(job: Job) -> ResultSet:
    """Wait for a job with its progress on the screen, and leave nothing behind.

    In another thread than the main one nothing is drawn: it would stand under whatever cell runs.

    Raises:
        StoppedError: After Stop; in a notebook `_img` holds what has finished.
    """
    live = Live(quiet=threading.current_thread() is not threading.main_thread())
    try:
        return live.watch(job)
    except KeyboardInterrupt:
        shell = _shell()
        if shell is not None and job.done:
            shell.push({"_img": job.results})
            raise stopped(job, " in _img") from None
        raise stopped(job) from None
    finally:
        live.finish(None)
