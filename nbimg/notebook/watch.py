"""Tell a widget's page how the jobs that it has started stand.

Stage: the front end, beside the widgets. Comes in: jobs. Goes out: a message when something has changed: a
line, what has ended, what went wrong. Must not: draw, or hold up whoever started the job.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

from nbimg.calls.jobs import Job
from nbimg.display.progress import render_text
from nbimg.errors import NbimgError
from nbimg.results import ResultSet
from nbimg.types import Status

__all__ = ["Tell", "Watch"]

#: How often a job is looked at, in seconds.
LOOK_S = 0.15
_KEPT = 50

Tell = Callable[..., None]


class Watch:
    """The jobs of one widget.

    Args:
        tell: Sends a message.
    """

    def __init__(self, tell: Tell) -> None:
        self._tell = tell
        self._jobs: dict[str, Job] = {}
        self._said: dict[str, dict[str, Any]] = {}

    def begin(
        self,
        job: Job,
        *,
        look: Callable[[Job], None] | None = None,
        end: Callable[[ResultSet], None] | None = None,
    ) -> None:
        """Watch a job in a thread until it has ended.

        Args:
            job: The job.
            look: Called often while it runs, and once more at its end.
            end: Called with its results, if it has any.
        """
        self._jobs[job.id] = job
        while len(self._jobs) > _KEPT and next(iter(self._jobs.values())).done:
            gone = next(iter(self._jobs))
            del self._jobs[gone]
            self._said.pop(gone, None)
        name = f"nbimg-watch-{job.id}"
        threading.Thread(target=self._follow, args=(job, look, end), name=name, daemon=True).start()

    def cancel(self, job: str) -> None:
        """Stop a job; what has finished is kept."""
        if job in self._jobs:
            self._jobs[job].cancel()

    def jobs(self) -> list[dict[str, Any]]:
        """Return how those stand that have not ended."""
        return [said for said in self._said.values() if not said["done"]]

    def said(self, job: str) -> dict[str, Any]:
        """Return how a job stands, as it was told last."""
        return self._said.get(job, {})

    def _follow(
        self,
        job: Job,
        look: Callable[[Job], None] | None,
        end: Callable[[ResultSet], None] | None,
    ) -> None:
        done = False
        while not done:
            done = job.done  # before it is looked at, so that nothing is missed
            if look is not None:
                look(job)
            if done and end is not None and (results := _results(job)) is not None:
                end(results)
            said = _state(job, done=done)
            if said != self._said.get(job.id):
                self._said[job.id] = said
                self._tell({"event": "job", **said})
            time.sleep(0 if done else LOOK_S)


def _state(job: Job, *, done: bool) -> dict[str, Any]:
    fold = job.progress
    state: dict[str, Any] = {
        "id": job.id,
        "about": job.about,
        "done": done,
        "state": job.status,
        "text": render_text(fold, time.time(), width=0).strip() if fold.total else "waiting",
        "error": "",
        "made": 0,
    }
    if done:
        results = _results(job)
        state["made"] = len(results.records) if results is not None else 0
        state["error"] = _error(job, results)
    return state


def _results(job: Job) -> ResultSet | None:
    try:
        return job.results
    except Exception:  # it could not begin; `_error` says why
        return None


def _error(job: Job, results: Sequence[Any] | None) -> str:
    if results is None:
        try:
            job.results  # noqa: B018  # raises what went wrong
        except NbimgError as error:
            return str(error)
        except Exception as error:  # whatever it was, the page is told
            return f"{type(error).__name__}: {error}"
    ends = (Status.OK, Status.CANCELLED)
    bad = [result for result in results or () if result.status not in ends]
    first = next((str(result.error) for result in bad if result.error), "")
    return first if len(bad) < 2 else f"{len(bad)} tasks failed, the first: {first}"
