"""Run a batch: requests in, events and results out.

Stage: the one place where backend, journal and store meet. For each call: permit · the intent in the
journal · create · the id in the journal · wait · download · the file on disk · the outcome in the
journal. One failed task never costs the others. Must not: draw anything, or know a provider.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Collection, Coroutine, Hashable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from nbimg.backends.base import Call, LocalBackend, Output, Prediction, RemoteBackend, State
from nbimg.backends.registry import Registry
from nbimg.engine.limits import Lane, Limits
from nbimg.engine.pace import Pace
from nbimg.engine.retry import Policy, retrying
from nbimg.engine.task import Task
from nbimg.errors import (
    BackendError,
    BusyError,
    ImageInputError,
    JobFailedError,
    NbimgError,
    OutcomeUnknownError,
    ReplyError,
    StoreError,
    UnreachableError,
)
from nbimg.events import Event, Finished, Listener, Retrying, Started, Step, Submitted, Waiting
from nbimg.keys import redact
from nbimg.plan import Planned
from nbimg.store.files import Store
from nbimg.store.journal import Journal
from nbimg.store.provenance import describe
from nbimg.types import EncodedImage, ImageRecord, Result

__all__ = ["Batch", "Engine", "until"]

T = TypeVar("T")

log = logging.getLogger("nbimg")

JOB_S = 15 * 60.0
#: How long Stop waits for providers to confirm a cancellation.
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


@dataclass
class _Run:
    """What the workers of one batch share."""

    batch: Batch
    emit: Listener
    tasks: dict[int, Task]
    lanes: dict[str, Lane]
    results: dict[int, Result] = field(default_factory=dict)
    cleanups: set[asyncio.Task[None]] = field(default_factory=set)


class Engine:
    """The engine of a kernel; everything in it runs on the portal's loop.

    Args:
        registry: The backends.
        store: The output folder.
        journal: Its journal.
        limits: The lanes.
    """

    def __init__(self, registry: Registry, store: Store, journal: Journal, limits: Limits) -> None:
        self._registry = registry
        self._store = store
        self.journal = journal
        self._limits = limits
        self.paces: dict[str, Pace] = defaultdict(Pace)
        self._cleanups: set[asyncio.Task[None]] = set()
        self._disk = ThreadPoolExecutor(4, thread_name_prefix="nbimg-disk")

    async def run(
        self, batch: Batch, emit: Listener, stop: asyncio.Event | None = None
    ) -> tuple[Result, ...]:
        """Run every task of a batch.

        Args:
            batch: What to run.
            emit: Told what happens, in the loop's thread.
            stop: When it is set, what runs is cancelled, here and at the provider; what has finished
                is kept.

        Returns:
            One result a task, in order.

        Raises:
            StoreError: When nothing can be written; nothing was sent then.
        """
        lanes = self._lanes(batch)
        await self._on_disk(self._store.ready)
        await self.journal.begin(batch.id, {p.index: p.request for p in batch.tasks})
        tasks = {planned.index: Task(planned) for planned in batch.tasks}
        run = _Run(batch, emit, tasks, lanes)
        workers = {asyncio.create_task(work) for work in self._workers(run)}
        stopped = False
        try:
            stopped = await until(workers, stop)
        finally:
            for worker in workers:
                worker.cancel()
            await asyncio.gather(*workers, return_exceptions=True)
            if run.cleanups:
                await asyncio.wait(run.cleanups, timeout=CLEANUP_S)
        for task in run.tasks.values():
            for variant in task.open_variants():
                task.cancelled(variant)
            await self._report(run, task)
        await self.noted(self.journal.end(batch.id, "cancelled" if stopped else "done"))
        return tuple(run.results[planned.index] for planned in batch.tasks)

    def _lanes(self, batch: Batch) -> dict[str, Lane]:
        """The lane of every provider that the batch uses."""
        names = dict.fromkeys(planned.ref.provider for planned in batch.tasks)
        backends = [self._registry.get(name) for name in names]
        return {
            b.name: self._limits.lane(b.name, b.concurrency, b.rates, batch.concurrency)
            for b in backends
        }

    def _workers(self, run: _Run) -> list[Coroutine[Any, Any, None]]:
        """One worker a remote call; one for all local calls that can share a call."""
        workers: list[Coroutine[Any, Any, None]] = []
        shared: dict[tuple[str, Hashable], list[tuple[Task, int, Call]]] = defaultdict(list)
        for task in run.tasks.values():
            backend = self._registry.get(task.planned.ref.provider)
            for variant, call in enumerate(task.planned.calls):
                if isinstance(backend, LocalBackend):
                    key = (backend.name, backend.share_key(call))
                    shared[key].append((task, variant, call))
                else:
                    workers.append(self._remote(run, task, variant, call, backend))
        for (name, _), members in shared.items():
            local = self._registry.get(name)
            assert isinstance(local, LocalBackend)
            workers.append(self._local(run, local, members))
        return workers

    # ------------------------------------------------------------------ remote

    async def _remote(
        self, run: _Run, task: Task, variant: int, call: Call, backend: RemoteBackend
    ) -> None:
        """One call from permit to file; every way it can end is written down."""
        try:
            await _Job(self, run, task, variant, call, backend).go()
        except TimeoutError:
            error = JobFailedError(
                f"not finished within the time-out of {run.batch.timeout_s or 0:g} s.",
                backend=backend.name,
            )
            task.failed(variant, error)
        except NbimgError as error:
            task.failed(variant, error)
        except Exception as error:  # a defect here or in a plug-in must not cost the other tasks
            log.exception("task %s failed unexpectedly", task.planned.index)
            task.failed(variant, error)
        await self._report(run, task)

    # ------------------------------------------------------------------- local

    async def _local(
        self, run: _Run, backend: LocalBackend, members: Sequence[tuple[Task, int, Call]]
    ) -> None:
        """Calls that share one call of a pipeline, saved as each image is ready."""
        at = time.time()

        def report(position: int, event: Event) -> None:
            run.emit(replace(event, task=members[position][0].planned.index))

        try:
            async with run.lanes[backend.name].permit():
                for task, _, _ in members:
                    self.start(run, task)
                async for position, image in backend.generate([m[2] for m in members], report):
                    await self._keep(run, at, members[position], image)
        except NbimgError as error:
            failure: Exception = error
        except Exception as error:
            log.exception("%s failed unexpectedly", backend.name)
            failure = error
        else:
            failure = ReplyError(f"{backend.name} made fewer images than it was asked for.")
        for task, variant, _ in members:
            if variant in task.open_variants():
                task.tried("local", at, failure, None)
                task.failed(variant, failure)
                await self._report(run, task)

    async def _keep(
        self, run: _Run, at: float, member: tuple[Task, int, Call], image: EncodedImage
    ) -> None:
        """Save one image; one that cannot be saved costs no other."""
        task, variant, call = member
        try:
            record = await self.save(task, call, image, variant + 1)
        except NbimgError as error:
            task.tried("local", at, error, None)
            task.failed(variant, error)
        else:
            task.tried("local", at, None, None)
            task.done(variant, [record])
        await self._report(run, task)

    # ------------------------------------------------------------------ shared

    def start(self, run: _Run, task: Task) -> None:
        """Say so when the first call of a task has its permit."""
        if not task.started:
            task.start()
            run.emit(Started(task=task.planned.index))

    async def save(
        self, task: Task, call: Call, image: EncodedImage, number: int, *, several: bool = False
    ) -> ImageRecord:
        """Put an image on disk under the name that the task wants.

        Args:
            task: The task.
            call: What was sent.
            image: Its bytes.
            number: 1-based place of the image in the task.
            several: Whether the call alone made several.
        """
        planned = task.planned
        values = {
            "index": planned.index + 1,
            "prompt": planned.request.prompt,
            "model": str(planned.ref),
            "seed": image.seed,
        }
        several = several or planned.request.n > 1
        text = describe(planned.request, planned.ref, call, image.seed)
        return await self._on_disk(
            lambda: self._store.put(
                image,
                planned.request.output,
                values,
                variant=number if several and planned.request.output else None,
                text=text,
            )
        )

    async def _report(self, run: _Run, task: Task) -> None:
        """When a task's last call has ended: journal, then tell."""
        index = task.planned.index
        if not task.settled or index in run.results:
            return
        result = task.result()
        run.results[index] = result
        try:
            await self.noted(self.journal.finished(run.batch.id, result))
        finally:  # told even when Stop comes in between
            run.emit(Finished(task=index, result=result))

    @staticmethod
    async def noted(writing: Awaitable[None]) -> None:
        """Write to the journal what is only good to know: a full disk must not cost a result."""
        try:
            await writing
        except StoreError as error:
            log.warning("%s", error)

    def later(self, run: _Run, work: Coroutine[Any, Any, None]) -> None:
        """Go on after a worker is gone; the batch waits a bounded time for it, the engine keeps it."""
        cleanup = asyncio.create_task(work)
        run.cleanups.add(cleanup)
        self._cleanups.add(cleanup)
        cleanup.add_done_callback(self._cleanups.discard)

    def close(self) -> None:
        """Give back the threads."""
        self._disk.shutdown(wait=False)

    async def _on_disk(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._disk, work)


@dataclass(eq=False)
class _Job:
    """One remote call on its way: the order of its stages is what keeps money safe."""

    engine: Engine
    run: _Run
    task: Task
    variant: int
    call: Call
    backend: RemoteBackend
    number: int = 0  # of the call in the journal
    job_id: str | None = None
    lost: OutcomeUnknownError | None = None  # a create of which nobody knows what became
    lost_at: float = 0.0
    in_flight: bool = False  # Stop came while a create was on its way

    def __post_init__(self) -> None:
        self.lane = self.run.lanes[self.backend.name]
        self.journal = self.engine.journal

    async def go(self) -> None:
        """Create, wait, download; the call is settled only when nothing paid is left to fetch."""
        async with asyncio.timeout(None) as bound:
            async with self.lane.permit():
                if (limit := self.run.batch.timeout_s) is not None:
                    bound.reschedule(asyncio.get_running_loop().time() + limit)
                self.engine.start(self.run, self.task)
                policy = self.run.batch.policy
                prediction = await retrying("run", self.ran, policy, self.waiting("run"))
            began = time.monotonic()
            images = await self.downloaded(prediction)
            self.task.download_s = max(self.task.download_s, time.monotonic() - began)
            self.task.done(self.variant, images)
        await self.settle("done")

    async def ran(self) -> Prediction:
        """Create a job and wait for its success; one that failed for a passing reason may be run again."""
        at = time.time()
        self.job_id = self.lost = None
        await self.intended()
        prediction = await self.waited(await self.created())
        error = prediction.error
        if prediction.state is not State.DONE:
            error = error or JobFailedError(
                "the job was cancelled at the provider.", job_id=self.job_id
            )
        elif not prediction.outputs:
            error = ReplyError("the job succeeded without an image.", job_id=self.job_id)
        if error is not None:
            self.task.tried("run", at, error, self.job_id)
            await self.settle(
                "failed" if prediction.state is State.DONE else prediction.state.value
            )
            raise error
        return prediction

    async def intended(self) -> None:
        """The intent is in the journal before the create is sent."""
        index = self.task.planned.index
        writing = asyncio.ensure_future(
            self.journal.intend(
                self.run.batch.id, index, self.variant, self.call.ref, self.call.seed
            )
        )
        try:
            self.number = await asyncio.shield(writing)
        except asyncio.CancelledError:
            self.engine.later(self.run, self.never_sent(writing))
            raise

    async def never_sent(self, writing: asyncio.Future[int]) -> None:
        with contextlib.suppress(StoreError):
            self.number = await writing
            await self.settle("cancelled")

    async def created(self) -> Prediction:
        """Send the job; its id is in the journal before anything waits for it."""
        try:
            return await self.tried("create", self.sent)
        except OutcomeUnknownError:
            await self.settle("unknown")
            raise
        except NbimgError:
            await self.settle("failed")
            raise
        except asyncio.CancelledError:
            if not self.in_flight:
                state = "unknown" if self.lost is not None else "cancelled"
                self.engine.later(self.run, self.settle(state))
            raise

    async def sent(self) -> Prediction:
        # shielded: a create that Stop tears in two would be paid for, and nobody would know its id
        sending = asyncio.ensure_future(self.create_or_find())
        try:
            return await asyncio.shield(sending)
        except asyncio.CancelledError:
            self.in_flight = True
            self.engine.later(self.run, self.cancel_when_known(sending))
            raise

    async def create_or_find(self) -> Prediction:
        # a list may lag behind: what was lost is looked for once more before it is sent again
        prediction = None if self.lost is None else await self.found(self.lost)
        if prediction is None:
            began = time.time()
            try:
                prediction = await self.backend.create(self.call)
            except OutcomeUnknownError as lost:
                if self.lost is None:
                    self.lost, self.lost_at = lost, began
                prediction = await self.found(lost)
                if prediction is None:
                    raise UnreachableError(
                        f"{self.backend.name} never got the request.",
                        backend=self.backend.name,
                        http_status=lost.http_status,
                    ) from lost
        if prediction.id is not None:
            self.job_id = prediction.id
            # when the disk is full now: it runs and is paid for, so go on and fetch it
            await self.engine.noted(self.journal.submitted(self.number, prediction.id))
            self.emit(Submitted(task=self.task.planned.index, job_id=prediction.id))
        return prediction

    async def found(self, lost: OutcomeUnknownError) -> Prediction | None:
        """Look for a create that was lost; None when it provably never arrived."""
        try:
            return await self.tried("find", lambda: self.backend.find(self.call, self.lost_at))
        except NbimgError as error:
            raise lost from error

    async def waited(self, prediction: Prediction) -> Prediction:
        """Poll until the job has ended, at the pace that the model has taught."""
        began, polls = time.monotonic(), 0
        pace = self.engine.paces[self.call.ref.full]
        try:
            while not prediction.state.terminal:
                elapsed = time.monotonic() - began
                if elapsed > JOB_S:
                    raise JobFailedError(
                        f"still running after {JOB_S / 60:g} minutes; it stays in the journal.",
                        job_id=self.job_id,
                    )
                await asyncio.sleep(pace.wait_s(elapsed, polls))
                assert prediction.id is not None
                look = functools.partial(self.backend.poll, prediction.id)
                prediction = await self.tried("poll", look)
                polls += 1
                if prediction.progress is not None:
                    done = round(prediction.progress * 100)
                    self.emit(Step(task=self.task.planned.index, done=done, total=100))
        except asyncio.CancelledError:
            if self.job_id is not None:
                self.engine.later(self.run, self.cancel(self.job_id))
            raise
        pace.learn(time.monotonic() - began, polls)
        return prediction

    async def downloaded(self, prediction: Prediction) -> list[ImageRecord]:
        """Fetch and save every output, in order."""
        if self.run.batch.url_only:
            return [
                ImageRecord(path=None, url=output.url, seed=self.call.seed)
                for output in prediction.outputs
                if output.url
            ]
        several = len(prediction.outputs) > 1
        saving = [
            self.saved(output, self.variant + place, several)
            for place, output in enumerate(prediction.outputs, 1)
        ]
        done = await asyncio.gather(*saving, return_exceptions=True)
        images = [record for record in done if isinstance(record, ImageRecord)]
        failure = next((error for error in done if isinstance(error, BaseException)), None)
        if failure is not None:
            if images:
                self.task.done(self.variant, images)
            raise failure
        return images

    async def saved(self, output: Output, number: int, several: bool) -> ImageRecord:
        async def fetch() -> ImageRecord:
            data = output.data
            if data is None:
                assert output.url is not None
                data = await self.backend.fetch(output.url)
            url = output.url if output.url and not output.url.startswith("data:") else None
            image = EncodedImage(data, seed=self.call.seed, url=url)
            try:
                return await self.engine.save(self.task, self.call, image, number, several=several)
            except (
                ImageInputError
            ) as error:  # truncated or not an image: fetched again, not paid again
                raise ReplyError(
                    f"the image did not arrive whole: {error.message}",
                    backend=self.backend.name,
                    job_id=self.job_id,
                    transient=output.url is not None,
                ) from error

        return await self.tried("download", fetch)

    async def tried(self, stage: str, work: Callable[[], Awaitable[T]]) -> T:
        """Retry a stage; every try is written down and every wait is told."""
        window = "create" if stage == "create" else "read"

        async def once() -> T:
            if stage != "download":
                await self.lane.turn(window)
            at = time.time()
            try:
                value = await work()
            except NbimgError as error:
                self.task.tried(stage, at, error, self.job_id)
                log.debug("%s %s: %s", self.call.ref, stage, redact(str(error)))
                if isinstance(error, BusyError) and error.retry_after_s:
                    self.lane.pause(error.retry_after_s)
                raise
            if stage not in ("poll", "find"):
                self.task.tried(stage, at, None, self.job_id)
            return value

        return await retrying(stage, once, self.run.batch.policy, self.waiting(stage))

    def waiting(self, stage: str) -> Callable[[int, float, BackendError], None]:
        def tell(attempt: int, seconds: float, error: BackendError) -> None:
            index = self.task.planned.index
            if isinstance(error, BusyError):
                self.emit(
                    Waiting(task=index, reason=error.message, until_utc=time.time() + seconds)
                )
            self.emit(
                Retrying(
                    task=index, stage=stage, attempt=attempt, in_s=seconds, reason=error.message
                )
            )

        return tell

    async def settle(self, state: str) -> None:
        await self.engine.noted(self.journal.settled(self.number, state))

    def emit(self, event: Event) -> None:
        self.run.emit(event)

    # ------------------------------------------------------------ cancellation

    async def cancel_when_known(self, sending: asyncio.Future[Prediction]) -> None:
        try:
            prediction = await sending
        except NbimgError as error:
            state = "unknown" if isinstance(error, OutcomeUnknownError) else "failed"
            await self.settle(state)
            return
        if prediction.id is not None:
            await self.cancel(prediction.id)

    async def cancel(self, job_id: str) -> None:
        """Cancel at the provider; what cannot be cancelled or is paid for stays in the journal."""
        ask = functools.partial(self.backend.cancel, job_id)
        try:
            stands = await retrying("cancel", ask, self.run.batch.policy, lambda *_: None)
        except NbimgError as error:
            log.info("job %s could not be cancelled: %s", job_id, redact(str(error)))
            return
        if stands is None or stands.state is not State.DONE:
            await self.settle("cancelled")


async def until(workers: Collection[asyncio.Future[Any]], stop: asyncio.Event | None) -> bool:
    """Wait for all workers, or for Stop; return whether it was Stop."""
    if not workers:
        return False
    if stop is None:
        await asyncio.wait(workers)
        return False
    stopping = asyncio.create_task(stop.wait())
    finishing = asyncio.create_task(asyncio.wait(workers))
    try:
        await asyncio.wait({stopping, finishing}, return_when=asyncio.FIRST_COMPLETED)
        return not finishing.done()
    finally:
        stopping.cancel()
        finishing.cancel()
        await asyncio.gather(stopping, finishing, return_exceptions=True)
