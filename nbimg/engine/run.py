"""Run a batch: planned tasks in, events and results out.

Stage: the one place where backends, journal and store meet. A batch becomes workers: one a remote call
(`remote`), one for all local calls that can share a call (`local`). Goes out: one result a task, in
order. One failed task never costs the others. Must not: draw anything, or know a provider.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Collection, Coroutine, Hashable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from nbimg.backends.base import LocalBackend
from nbimg.backends.registry import Registry
from nbimg.engine.batch import Batch, BatchRun
from nbimg.engine.limits import Lane, Limits
from nbimg.engine.local import Member, run_local
from nbimg.engine.pace import Pace
from nbimg.engine.remote import RemoteCall
from nbimg.events import Listener
from nbimg.store.files import Store
from nbimg.store.journal import Journal
from nbimg.types import Result

__all__ = ["Batch", "Engine", "until"]


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
        self._journal = journal
        self._limits = limits
        self._paces: dict[str, Pace] = defaultdict(Pace)
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
        await asyncio.get_running_loop().run_in_executor(self._disk, self._store.ready)
        await self._journal.begin(batch.id, {p.index: p.request for p in batch.tasks})
        run = BatchRun(batch, emit, self._store, self._journal, self._disk, lanes, self._cleanups)
        workers = {asyncio.create_task(work) for work in self._workers(run)}
        stopped = False
        try:
            stopped = await until(workers, stop)
        finally:
            for worker in workers:
                worker.cancel()
            await asyncio.gather(*workers, return_exceptions=True)
            await run.clean_up()
        for task in run.tasks.values():
            for variant in task.open_variants():
                task.cancelled(variant)
            await run.report(task)
        await run.noted(self._journal.end(batch.id, "cancelled" if stopped else "done"))
        return tuple(run.results[planned.index] for planned in batch.tasks)

    def _lanes(self, batch: Batch) -> dict[str, Lane]:
        """The lane of every provider that the batch uses."""
        names = dict.fromkeys(planned.ref.provider for planned in batch.tasks)
        backends = [self._registry.get(name) for name in names]
        return {
            b.name: self._limits.lane(b.name, b.concurrency, b.rates, batch.concurrency)
            for b in backends
        }

    def _workers(self, run: BatchRun) -> list[Coroutine[Any, Any, None]]:
        """One worker a remote call; one for all local calls that can share a call."""
        workers: list[Coroutine[Any, Any, None]] = []
        shared: dict[tuple[str, Hashable], list[Member]] = defaultdict(list)
        for task in run.tasks.values():
            backend = self._registry.get(task.planned.ref.provider)
            for variant, call in enumerate(task.planned.calls):
                if isinstance(backend, LocalBackend):
                    key = (backend.name, backend.share_key(call))
                    shared[key].append((task, variant, call))
                else:
                    pace = self._paces[call.ref.full]
                    workers.append(RemoteCall(run, task, variant, call, backend, pace).run_to_end())
        for (name, _), members in shared.items():
            local = self._registry.get(name)
            assert isinstance(local, LocalBackend)
            workers.append(run_local(run, local, members))
        return workers

    def close(self) -> None:
        """Give back the threads."""
        self._disk.shutdown(wait=False)


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
