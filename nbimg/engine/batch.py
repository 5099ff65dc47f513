"""A batch, and what its workers share while it runs: events, files, the journal's results, cleanups.

Stage: between the engine and its workers. Comes in: what a worker has made or has to leave behind.
Goes out: files, results, events. Must not: talk to a backend.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Collection, Coroutine, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field
from typing import Any

from nbimg import telemetry
from nbimg.backends.base import Call, Prediction
from nbimg.backends.registry import Backend, Registry
from nbimg.credentials.given import account
from nbimg.engine.breaker import Breakers
from nbimg.engine.limits import Lane, Limits
from nbimg.engine.pace import Pace
from nbimg.engine.retry import Policy
from nbimg.engine.task import Task
from nbimg.errors import BackendError, BusyError, NbimgError, StoreError
from nbimg.events import Finished, Listener, Retrying, Saved, Started, Waiting
from nbimg.planning.plan import Planned
from nbimg.store.files import Store
from nbimg.store.journal import Journal, SentCall
from nbimg.store.provenance import describe
from nbimg.types import EncodedImage, ImageRecord, Result

__all__ = ["Batch", "BatchRun", "Shared"]

log = logging.getLogger("nbimg")

#: How long Stop waits for providers to answer and to confirm a cancellation.
CLEANUP_S = 3.0

Fall = Callable[[Planned, NbimgError, Collection[str]], Awaitable[Planned | None]]


async def _no_fall(_planned: Planned, _error: NbimgError, _tried: Collection[str]) -> None:
    return None


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
        semaphore: One that every call holds as well: a name, or any semaphore.
        url_only: Whether to keep the provider's addresses and download nothing.
        slots: By index: the place of the task in the cache; emptied once the journal has them.
        about: What the journal keeps of the call, to give the batch back as it was.
        fall: Gives the next model of a task's chain: planned, error, the models that were tried.
        taken: (index, variant) → the calls for it that a kernel before this one has sent, several where a
            model stood in that makes one image a call; None for a new batch.
        creates: Whether jobs may be created; without it what was sent is fetched and no more.
        unsent: Indexes of the tasks of an earlier kernel that have something to be sent.
        stopped: Whether the batch was stopped by hand before, and stays so.
        whole: Whether these are all tasks of the batch that are left.
        account: What stands for the credentials that are in force: a model that was refused to others is
            not refused to these.
    """

    id: str
    tasks: tuple[Planned, ...]
    policy: Policy = field(default_factory=Policy)
    timeout_s: float | None = None
    concurrency: int | None = None
    semaphore: Any = None
    url_only: bool = False
    slots: list[str | None] = field(default_factory=list)
    about: Mapping[str, Any] = field(default_factory=dict)
    fall: Fall = _no_fall
    taken: Mapping[tuple[int, int], tuple[SentCall, ...]] | None = None
    creates: bool = True
    unsent: Collection[int] = ()
    stopped: bool = False
    whole: bool = True
    account: str = ""


@dataclass(frozen=True)
class Shared:
    """What all batches of an output folder share.

    Attributes:
        registry: The backends.
        limits: The lanes of the accounts.
        store: The output folder.
        journal: Its journal.
        disk: The threads that write.
        paces: Full name of a model → how long its jobs take.
        breakers: Which models are left out for a while.
        kept: What still runs when its batch has ended: cleanups after Stop.
        flying: Number of a call in the journal → its create, that Stop has left on its way.
    """

    registry: Registry
    limits: Limits
    store: Store
    journal: Journal
    disk: Executor
    paces: Mapping[str, Pace]
    breakers: Breakers
    kept: set[asyncio.Task[None]]
    flying: dict[int, asyncio.Future[Prediction]] = field(default_factory=dict)


@dataclass(eq=False)
class BatchRun:
    """A batch that runs.

    Attributes:
        batch: What was asked for.
        emit: Told what happens.
        shared: What it shares with the others.
        tasks: Index → task, of those that are under way.
        results: By index; None where no task of that index has ended.
        unsent: Whether anything was left unsent, to be sent another time.
        denied: Providers that have refused this batch's key or account: it is refused for all of it.
    """

    batch: Batch
    emit: Listener
    shared: Shared
    tasks: dict[int, Task] = field(default_factory=dict)
    results: list[Result | None] = field(init=False)  # no dict: a batch may have 50,000
    unsent: bool = False
    denied: set[str] = field(default_factory=set)
    _lanes: dict[str, Lane] = field(default_factory=dict)
    _began: float = field(default_factory=time.monotonic)
    _cleanups: dict[asyncio.Task[None], Callable[[], Awaitable[None]] | None] = field(
        default_factory=dict
    )

    def __post_init__(self) -> None:
        self.results = [None] * (1 + max((task.index for task in self.batch.tasks), default=-1))

    def lane(self, backend: Backend) -> Lane:
        """Return the lane of a backend, as this batch may use it."""
        lane = self._lanes.get(backend.name)
        if lane is None:
            lane = self._lanes[backend.name] = self.shared.limits.lane(
                account(backend.name),
                backend.concurrency,
                backend.rates,
                self.batch.concurrency,
                self.batch.semaphore,
            )
        return lane

    def open(self, planned: Planned) -> Task:
        """Return the task, made when its first call comes up: a batch may have 50,000."""
        task = self.tasks.get(planned.index)
        if task is None:
            task = self.tasks[planned.index] = Task(planned, self._began)
        return task

    def start(self, task: Task) -> None:
        """Say so when the first call of a task has its permit."""
        if not task.started:
            task.start()
            task.span = telemetry.begin(task.planned.request, task.planned.ref)
            self.emit(Started(task=task.planned.index))

    def held_up(self, reason: str, until_utc: float | None) -> None:
        """Say that the batch waits for permits that others hold; it ends when anything moves."""
        self.emit(Waiting(reason=reason, until_utc=until_utc))

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
        self,
        task: Task,
        call: Call,
        image: EncodedImage,
        number: int,
        *,
        several: bool = False,
        cover: bytes | None = None,
    ) -> ImageRecord:
        """Put an image on disk under the name that the task wants, and tell.

        Args:
            task: The task.
            call: What was sent.
            image: Its bytes.
            number: 1-based place of the image in the task.
            several: Whether the call alone made several.
            cover: A picture that stands for a video, where there is one.

        Raises:
            ImageInputError: When the bytes are no image.
            StoreWriteError: When it cannot be written.
        """
        request = task.planned.request
        values = {
            "index": task.planned.index + 1,
            "prompt": request.prompt,
            "model": str(call.ref),
            "seed": image.seed,
        }
        numbered = request.output and (several or request.n > 1)

        def put() -> ImageRecord:
            return self.shared.store.put(
                image,
                request.output,
                values,
                variant=number if numbered else None,
                text=describe(request, call.ref, call, image.seed),
                cover=cover,
            )

        record = await asyncio.get_running_loop().run_in_executor(self.shared.disk, put)
        self.emit(Saved(task=task.planned.index, image=record))
        return record

    async def report(
        self, task: Task, order: int | None = None, images: Sequence[ImageRecord] = ()
    ) -> None:
        """When a call has ended: into the journal, and when it was the task's last one, tell.

        Args:
            task: Its task.
            order: The journal's number of the call, where what it made is not written down yet.
            images: What it made.
        """
        index, journal = task.planned.index, self.shared.journal
        # its last two calls may end together
        if not task.settled or self.results[index] is not None:
            if order is not None:
                await self.noted(journal.settled(order, "done", images))
            return
        result = task.result()
        self.results[index] = result
        self.tasks.pop(index, None)
        try:
            if task.unsent and order is not None:
                await self.noted(journal.settled(order, "done", images))
            elif order is not None:
                await self.noted(journal.ended(order, images, self.batch.id, result))
            elif not task.unsent:
                await self.noted(journal.finished(self.batch.id, result))
        finally:  # told even when Stop comes in between
            if task.span is not None:
                task.span(result)
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
    ) -> asyncio.Task[None]:
        """Go on after a worker is gone; the batch waits a bounded time for it, the engine keeps it.

        Args:
            work: What is left to do.
            give_up: Awaited when the batch does not wait any longer.
        """
        cleanup = self.keep(work)
        self._cleanups[cleanup] = give_up
        return cleanup

    def keep(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Do what neither a worker nor the batch waits for."""
        task = asyncio.create_task(work)
        self.shared.kept.add(task)
        task.add_done_callback(self.shared.kept.discard)
        return task

    async def clean_up(self) -> None:
        """Wait for what the workers left behind, but no longer than `CLEANUP_S`."""
        if not self._cleanups:
            return
        _, unfinished = await asyncio.wait(self._cleanups, timeout=CLEANUP_S)
        for cleanup in unfinished:
            if (give_up := self._cleanups[cleanup]) is not None:
                await give_up()
