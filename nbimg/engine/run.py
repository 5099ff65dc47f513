"""Run a batch: planned tasks in, events and results out.

Stage: the one place where backends, journal and store meet. A batch becomes workers: one a remote call
(`chain`), as many at once as its lane is wide and a few more that download; one for all local calls
that can share a call (`local`). Goes out: one result a task, in order. One failed task never costs the
others. Must not: draw anything, or know a provider.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Collection, Coroutine, Hashable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

from nbimg.backends.base import LocalBackend, RemoteBackend
from nbimg.backends.registry import Registry
from nbimg.engine.batch import Batch, BatchRun, Shared
from nbimg.engine.breaker import Breakers
from nbimg.engine.chain import Chain
from nbimg.engine.limits import Limits
from nbimg.engine.local import Member, run_local
from nbimg.engine.pace import Pace
from nbimg.errors import NbimgError
from nbimg.events import Finished, Listener
from nbimg.planning.plan import Planned
from nbimg.store.files import Store
from nbimg.store.journal import Journal, Row
from nbimg.types import ErrorRecord, Result, Status

__all__ = ["Batch", "Engine", "until"]

#: So many workers beyond those that hold a permit: they download, or are next.
AHEAD = 16


class Engine:
    """The engine of an output folder; everything in it runs on the portal's loop.

    Args:
        registry: The backends.
        store: The output folder.
        journal: Its journal.
        limits: The lanes.
        paces: Full name of a model → how long its jobs take, wherever their pictures go.
    """

    def __init__(
        self,
        registry: Registry,
        store: Store,
        journal: Journal,
        limits: Limits,
        paces: Mapping[str, Pace],
    ) -> None:
        self._breakers: dict[str, Breakers] = defaultdict(Breakers)  # by account
        self._disk = ThreadPoolExecutor(4, thread_name_prefix="nbimg-disk")
        self._shared = Shared(
            registry, limits, store, journal, self._disk, paces, Breakers(), set()
        )

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
        shared = replace(self._shared, breakers=self._breakers[batch.account])
        run = BatchRun(batch, emit, shared)
        feeders = self._feeders(run)
        try:
            await self._begin(batch)
        except BaseException:
            for feeder in feeders:
                feeder.close()
            raise
        working = {asyncio.create_task(feeder) for feeder in feeders}
        stopped = True  # by whatever, unless it ends by itself
        try:
            stopped = await until(working, stop)
        finally:
            for worker in working:
                worker.cancel()
            ended = await asyncio.gather(*working, return_exceptions=True)
            await run.clean_up()
            # nobody stopped it: the kernel ends, and what was not sent is told to the next one
            torn = stopped and not (stop is not None and stop.is_set())
            run.unsent |= torn
            for task in list(run.tasks.values()):
                task.unsent |= torn
                for variant in task.open_variants():
                    task.cancelled(variant)
                await run.report(task)
            await run.noted(self._shared.journal.end(batch.id, _state(run, stopped and not torn)))
        for fault in ended:
            if isinstance(fault, Exception):  # a defect here must not look like a success
                raise fault
        return tuple(self._result(run, planned) for planned in batch.tasks)

    async def _begin(self, batch: Batch) -> None:
        """Everything is on disk before the first is sent."""
        shared = self._shared
        await asyncio.get_running_loop().run_in_executor(self._disk, shared.store.ready)
        if batch.taken is None:
            slots = batch.slots
            rows = [
                Row(
                    p.index,
                    p.request,
                    p.ref.full,
                    p.seed,
                    p.number,
                    slots[p.index] if slots else None,
                )
                for p in batch.tasks
            ]
            await shared.journal.begin(batch.id, rows, about=batch.about)
            slots.clear()  # the journal has them now; of 50,000 tasks they are ten megabytes

    def _feeders(self, run: BatchRun) -> list[Coroutine[Any, Any, None]]:
        """One feeder a provider; one worker for all local calls that can share a call."""
        remote: dict[str, list[Planned]] = defaultdict(list)
        shared: dict[tuple[str, Hashable], list[Member]] = defaultdict(list)
        for planned in run.batch.tasks:
            try:
                backend = self._shared.registry.get(planned.ref.provider)
            except NbimgError as error:  # a plug-in that an earlier kernel had
                run.results[planned.index] = _without(planned, error)
                continue
            if isinstance(backend, RemoteBackend):
                remote[backend.name].append(planned)
            elif run.batch.creates:
                task = run.open(planned)
                for variant, call in enumerate(task.calls):
                    shared[backend.name, backend.share_key(call)].append((task, variant, call))
        feeders = [self._feed(run, name, planned) for name, planned in remote.items()]
        for (name, _), members in shared.items():
            local = self._shared.registry.get(name)
            assert isinstance(local, LocalBackend)
            feeders.append(self._locally(run, local, members))
        return feeders

    @staticmethod
    async def _locally(run: BatchRun, backend: LocalBackend, members: list[Member]) -> None:
        """Make what can share a call; what fails goes on by itself, with the next model."""
        for (task, variant, _), failure in await run_local(run, backend, members):
            if isinstance(failure, NbimgError):
                await Chain(run, task, variant).run_to_end(failure)
            else:
                task.failed(variant, failure)
                await run.report(task)

    async def _feed(self, run: BatchRun, provider: str, planned: list[Planned]) -> None:
        """Start a worker for each call, but only so many at once as can be of use."""
        lane = run.lane(self._shared.registry.get(provider))
        room = asyncio.Semaphore(lane.limit + AHEAD)
        async with asyncio.TaskGroup() as workers:
            for one, variant in _variants(planned):
                await room.acquire()
                worker = workers.create_task(Chain(run, run.open(one), variant).run_to_end())
                worker.add_done_callback(lambda _: room.release())

    @staticmethod
    def _result(run: BatchRun, planned: Planned) -> Result:
        """What became of a task; one that never began was cancelled."""
        index = planned.index
        result = run.results[index]
        if result is None:
            result = Result(
                index,
                planned.request,
                planned.ref.full,
                planned.asked,
                Status.CANCELLED,
                notices=planned.notices,
            )
            run.emit(Finished(task=index, result=result))
        return result

    def close(self) -> None:
        """Give back the threads."""
        self._disk.shutdown(wait=False)


def _without(planned: Planned, error: NbimgError) -> Result:
    """The result of a task whose provider is not there; what it has sent stays in the journal."""
    return Result(
        planned.index,
        planned.request,
        planned.ref.full,
        planned.asked,
        Status.FAILED,
        error=ErrorRecord.of(error),
    )


def _variants(planned: list[Planned]) -> Iterator[tuple[Planned, int]]:
    for one in planned:
        for variant in range(one.number):
            yield one, variant


def _state(run: BatchRun, stopped: bool) -> str:
    """How the journal calls the end of a batch: `open` is one of which some was never sent."""
    if stopped or run.batch.stopped:
        return "cancelled"
    return "open" if run.unsent or not run.batch.whole else "done"


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
