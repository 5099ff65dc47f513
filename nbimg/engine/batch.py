"""A batch, and what its workers share while it runs: events, files, the journal's results, cleanups.

Stage: between the engine and its workers. Comes in: what a worker has made or has to leave behind.
Goes out: files, results, events. Must not: talk to a backend.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import Executor
from dataclasses import dataclass, field
from typing import Any

from nbimg.backends.base import Call
from nbimg.engine.limits import Lane
from nbimg.engine.retry import Policy
from nbimg.engine.task import Task
from nbimg.errors import BackendError, BusyError, StoreError
from nbimg.events import Finished, Listener, Retrying, Saved, Started, Waiting
from nbimg.plan import Planned
from nbimg.store.files import Store
from nbimg.store.journal import Journal
from nbimg.store.provenance import describe
from nbimg.types import EncodedImage, ImageRecord, Result

__all__ = ["Batch", "BatchRun"]

log = logging.getLogger("nbimg")

#: How long Stop waits for providers to answer and to confirm a cancellation.
CLEANUP_S = 3.0


@dataclass(frozen=True)
class Batch:
    """What to run, and how.

    Attributes:
        id: Name of the batch in the journal.
        tasks: In order; the results come in the same order.
        policy: How often a stage is tried.
        timeout_s: Bound on each call of a task from its permit on, in seconds; None: only the stages'
            own.
        concurrency: Calls at once per account, in place of the default.
        url_only: Whether to keep the provider's addresses and download nothing.
    """

    id: str
    tasks: tuple[Planned, ...]
    policy: Policy = field(default_factory=Policy)
    timeout_s: float | None = None
    concurrency: int | None = None
    url_only: bool = False


@dataclass(eq=False)
class BatchRun:
    """A batch that runs.

    Attributes:
        batch: What was asked for.
        emit: Told what happens.
        store: The output folder.
        journal: Its journal.
        disk: The threads that write.
        lanes: Name of a backend → its lane.
        kept: The engine's own set of what still runs: a cleanup may outlive the batch.
        tasks: Index → task.
        results: Index → result, of the tasks that have ended.
    """

    batch: Batch
    emit: Listener
    store: Store
    journal: Journal
    disk: Executor
    lanes: dict[str, Lane]
    kept: set[asyncio.Task[None]]
    tasks: dict[int, Task] = field(init=False)
    results: dict[int, Result] = field(default_factory=dict)
    _cleanups: dict[asyncio.Task[None], Callable[[], Awaitable[None]] | None] = field(
        default_factory=dict
    )

    def __post_init__(self) -> None:
        self.tasks = {planned.index: Task(planned) for planned in self.batch.tasks}

    def start(self, task: Task) -> None:
        """Say so when the first call of a task has its permit."""
        if not task.started:
            task.start()
            self.emit(Started(task=task.planned.index))

    def waiting(self, task: Task, stage: str) -> Callable[[int, float, BackendError], None]:
        """Return what tells that a stage of a task is tried again: attempt, seconds until then, why."""
        index = task.planned.index

        def tell(attempt: int, seconds: float, error: BackendError) -> None:
            reason = error.message
            if isinstance(error, BusyError):
                self.emit(Waiting(task=index, reason=reason, until_utc=time.time() + seconds))
            self.emit(
                Retrying(task=index, stage=stage, attempt=attempt, in_s=seconds, reason=reason)
            )

        return tell

    async def save(
        self, task: Task, call: Call, image: EncodedImage, number: int, *, several: bool = False
    ) -> ImageRecord:
        """Put an image on disk under the name that the task wants, and tell.

        Args:
            task: The task.
            call: What was sent.
            image: Its bytes.
            number: 1-based place of the image in the task.
            several: Whether the call alone made several.

        Raises:
            ImageInputError: When the bytes are no image.
            StoreWriteError: When it cannot be written.
        """
        planned = task.planned
        values = {
            "index": planned.index + 1,
            "prompt": planned.request.prompt,
            "model": str(planned.ref),
            "seed": image.seed,
        }
        numbered = planned.request.output and (several or planned.request.n > 1)
        text = describe(planned.request, planned.ref, call, image.seed)
        record = await asyncio.get_running_loop().run_in_executor(
            self.disk,
            lambda: self.store.put(
                image,
                planned.request.output,
                values,
                variant=number if numbered else None,
                text=text,
            ),
        )
        self.emit(Saved(task=planned.index, image=record))
        return record

    async def report(self, task: Task) -> None:
        """When a task's last call has ended: journal, then tell."""
        index = task.planned.index
        if not task.settled or index in self.results:
            return
        result = task.result()
        self.results[index] = result
        try:
            await self.noted(self.journal.finished(self.batch.id, result))
        finally:  # told even when Stop comes in between
            self.emit(Finished(task=index, result=result))

    @staticmethod
    async def noted(writing: Awaitable[None]) -> None:
        """Write to the journal what is only good to know: a full disk must not cost a result."""
        try:
            await writing
        except StoreError as error:
            log.warning("%s", error)

    def later(
        self,
        work: Coroutine[Any, Any, None],
        give_up: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        """Go on after a worker is gone; the batch waits a bounded time for it, the engine keeps it.

        Args:
            work: What is left to do.
            give_up: Awaited when the batch does not wait any longer.
        """
        cleanup = asyncio.create_task(work)
        self._cleanups[cleanup] = give_up
        self.kept.add(cleanup)
        cleanup.add_done_callback(self.kept.discard)

    async def clean_up(self) -> None:
        """Wait for what the workers left behind, but no longer than `CLEANUP_S`."""
        if not self._cleanups:
            return
        _, unfinished = await asyncio.wait(self._cleanups, timeout=CLEANUP_S)
        for cleanup in unfinished:
            if (give_up := self._cleanups[cleanup]) is not None:
                await give_up()
