"""The session: the one door.

Stage: above everything that works, below everything that shows. The magics, the Python API and the panel hand
in `Request`s here and get a `Job`. Must not: parse cell text, or draw.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import threading
import time
from collections import deque
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import repeat
from pathlib import Path
from types import MappingProxyType
from typing import Any

from nbimg import config
from nbimg.backends.registry import Registry
from nbimg.calls.again import Part
from nbimg.calls.call import CallOptions
from nbimg.calls.jobs import Job
from nbimg.calls.making import Emit, Making
from nbimg.calls.resuming import Resuming
from nbimg.calls.workshop import Workshop
from nbimg.concurrency.foreign import adapt
from nbimg.concurrency.portal import Portal
from nbimg.config import Settings
from nbimg.credentials.given import given
from nbimg.credentials.keys import Keys
from nbimg.credentials.secret import Secret
from nbimg.errors import GenerationError, UnknownNameError
from nbimg.planning.planner import Plan
from nbimg.results import Rerun, ResultSet, Usage
from nbimg.store.left import Left, left
from nbimg.store.standing import standing
from nbimg.types import ImageRecord, Request, Result

__all__ = ["CallOptions", "Session", "default", "raised"]

#: So many jobs of the kernel are kept for `%imgjobs`.
KEPT_JOBS = 100
PLAIN = CallOptions()


class Session:
    """Everything of one kernel.

    Args:
        settings: Read anew at each call.
        keys: The credentials.
    """

    def __init__(self, settings: Settings | None = None, keys: Keys | None = None) -> None:
        self.settings = settings or Settings()
        self.keys = keys or Keys()
        self._begin()

    def _begin(self) -> None:
        self._pid = os.getpid()
        self.portal = Portal()
        self._shop = Workshop(self.settings, self.keys)
        self._jobs: deque[Job] = deque(maxlen=KEPT_JOBS)

    @property
    def registry(self) -> Registry:
        """The backends."""
        return self._workshop().registry

    @property
    def usage(self) -> Usage:
        """What this kernel has made so far."""
        return self._workshop().usage

    def submit(self, requests: Sequence[Request], options: CallOptions = PLAIN) -> Job:
        """Start a call; it returns at once.

        Args:
            requests: One a task.
            options: What holds for all of them.

        Raises:
            StoreError: When the output folder cannot be written.
        """
        making = self._making(requests, options)
        job_id = _new_id()

        async def work(emit: Emit, stop: asyncio.Event) -> ResultSet:
            return await making.run(job_id, emit, stop)

        return self._job(job_id, work, requests[0].prompt if requests else "")

    def resume(
        self,
        batch_id: str | None = None,
        *,
        remaining: bool = False,
        credentials: Mapping[str, Secret] = MappingProxyType({}),
    ) -> Job:
        """Take up what earlier kernels left behind, or what this one could not fetch.

        Args:
            batch_id: The batch; None: every one that has something that is paid for.
            remaining: Whether what was never sent is sent now. A batch that the user stopped has
                nothing remaining unless it is named.
            credentials: Variable → secret, for this call alone.

        Returns:
            A job with the results of the whole batch (or batches), in task order. Nothing is created
            twice, and without `remaining` nothing is created.
        """
        shop = self._workshop()
        shop.keys.gather()
        rerun = self._rerun(CallOptions(credentials=credentials))
        resuming = Resuming(shop, shop.place(), batch_id, remaining, rerun)
        with given(credentials):  # what runs on the loop has the context of whoever began it
            job = self._job(_new_id(), resuming.run, f"resume {batch_id or ''}".strip())
        job.batches = resuming.batches
        job.batches.update(filter(None, [batch_id]))
        return job

    def forget(self, batch_id: str | None = None) -> dict[str, int]:
        """Give up what is left of batches that nobody runs: nothing of it is fetched or sent.

        Args:
            batch_id: The batch; None: all that have anything left.

        Returns:
            Id of a batch → how many images of it were or may be paid for and are given up.
        """
        return self.portal.call(self._workshop().place().journal.forget, batch_id)

    def job(self, job_id: str) -> Job:
        """Return a job of this kernel, or one of the journal, which is taken up.

        Args:
            job_id: The id of a batch, or the provider's id of one of its jobs.

        Raises:
            UnknownNameError: When nobody knows it; it names the nearest.
        """
        journal = self._workshop().place().journal
        batch = self.portal.call(journal.batch_of_job, job_id) or job_id
        for job in reversed(self._jobs):  # who took it up last knows more than who began it
            if job.id == batch or (batch in job.batches and job.status != "failed"):
                return job
        known = self.portal.call(journal.batches)
        if batch not in known:
            raise UnknownNameError("job", job_id, known=known, hint="%imgjobs lists them.")
        return self.resume(batch)

    def jobs(self) -> tuple[Job, ...]:
        """Return the last calls of this kernel, oldest first, running or ended."""
        return tuple(self._jobs)

    def plan(self, requests: Sequence[Request], options: CallOptions = PLAIN) -> tuple[Plan, str]:
        """Return what a call would do, and how long it takes at the limits; no job is created."""
        return self.portal.call(self._making(requests, options).plan)

    def thumb(self, record: ImageRecord, side_px: int) -> bytes | None:
        """Return a small WebP of an image of the output folder; None where there is no file."""
        return self._workshop().place().store.thumb(record, side_px)

    def left(self) -> Left:
        """Return what earlier kernels left behind in the output folder; looks, and changes nothing."""
        return left(self._journal())

    def close(self) -> None:
        """Close connections, journals and the loop."""
        self.portal.call(self._shop.close)
        self.portal.close()

    # ------------------------------------------------------------------ inside

    def _journal(self) -> Path:
        return self._workshop().folder / ".nbimg" / "journal.sqlite3"

    def _workshop(self) -> Workshop:
        if self._pid != os.getpid():  # a fork: threads, loops and connections are the parent's
            self._begin()
        return self._shop

    def _making(self, requests: Sequence[Request], options: CallOptions) -> Making:
        shop = self._workshop()
        shop.keys.gather()
        place = shop.place()
        if options.semaphore is not None:  # one of asyncio is known by the loop that runs here
            options = replace(options, semaphore=adapt(options.semaphore))
        read, unread = shop.intake.read(requests, place.store)
        return Making(shop, place, read, unread, options, self._rerun(options))

    def _rerun(self, options: CallOptions) -> Rerun:
        """Return what `retry_failed` needs: it makes requests anew, whatever the store has."""
        again = replace(options, rows=(), columns_labels=(), groups=(), cache=False)

        def make(requests: Sequence[Request]) -> ResultSet:
            return self.submit(requests, again).wait()

        def take_up(batch: str) -> tuple[Part, ...]:
            stand = standing(self._journal(), batch)
            results: Iterable[Result | None] = repeat(None)
            if any(task.owed for task in stand):
                results = self.resume(batch, credentials=options.credentials).wait()
                stand = standing(self._journal(), batch)
            return tuple(Part(result, *task) for result, task in zip(results, stand, strict=False))

        return Rerun(make, take_up)

    def _job(
        self,
        job_id: str,
        work: Callable[[Emit, asyncio.Event], Coroutine[Any, Any, ResultSet]],
        about: str,
    ) -> Job:
        job = Job(job_id, self.portal, work, about=about)
        self._jobs.append(job)
        return job


def _new_id() -> str:
    return time.strftime("%Y%m%d-%H%M%S-") + secrets.token_hex(3)


def raised(results: ResultSet) -> ResultSet:
    """Return the results of a call with a single prompt, or raise what went wrong.

    Raises:
        GenerationError: With `.result` and, as its cause, the error itself.
    """
    result = results[0]
    if len(results) == 1 and result.error is not None and not result.images:
        error = GenerationError(result.error.message, result=result, hint=result.error.hint)
        raise error from result.error.exception()
    return results


_default: Session | None = None
_making = threading.Lock()


def default() -> Session:
    """Return the kernel's session, made at first use."""
    global _default  # noqa: PLW0603  # the one session of the kernel
    with _making:
        if _default is None:
            _default = Session(config.kernel())
        return _default
