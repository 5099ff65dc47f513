"""Make a call: read its images, look into the store, plan the rest, run it.

Stage: the path itself, on the portal's loop. Comes in: requests and the options of the call. Goes out: a
`ResultSet`, one result a request. Must not: draw, or take up what another kernel has left (`resuming`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from operator import attrgetter

from nbimg.calls.call import CallOptions
from nbimg.calls.workshop import Place, Workshop
from nbimg.credentials.given import given
from nbimg.engine.run import Batch, until
from nbimg.errors import NbimgError, OfflineError
from nbimg.events import Event, Finished, Notice
from nbimg.events import Planned as PlannedEvent
from nbimg.planning import catalog
from nbimg.planning.choose import choose
from nbimg.planning.planner import Plan
from nbimg.results import Rerun, ResultSet, Sent
from nbimg.types import ErrorRecord, ModelRef, Request, Result, Status

__all__ = ["Emit", "Making", "refused"]

Emit = Callable[[Event], None]

#: Stands in the place of an error where a task needs no plan.
_IN_STORE = NbimgError("it is in the store.")


@dataclass(frozen=True, slots=True)
class _Prepared:
    """A call that is ready to be sent.

    Attributes:
        plan: What will be sent, and what cannot be.
        cached: Index → result, of what need not be sent.
        slots: The place of each request in the cache.
    """

    plan: Plan
    cached: Mapping[int, Result]
    slots: list[str | None]


class Making:
    """One call on its way.

    Args:
        shop: What it shares with the others.
        place: The output folder.
        requests: One a task; images that are on this machine are read.
        unread: Index → why its images cannot be read.
        options: What holds for all of them.
        rerun: Makes requests again, for `retry_failed`.
    """

    def __init__(
        self,
        shop: Workshop,
        place: Place,
        requests: list[Request],
        unread: dict[int, NbimgError],
        options: CallOptions,
        rerun: Rerun | None = None,
    ) -> None:
        self._shop, self._place = shop, place
        self._requests, self._unread, self._options = requests, unread, options
        self._rerun = rerun
        self._policy = shop.policy(options)

    async def plan(self) -> tuple[Plan, str]:
        """Return what would be sent, and how long it takes at the limits."""
        with given(self._options.credentials):
            tasks = (prepared := await self._prepared()).plan.tasks
            return prepared.plan, self._shop.forecast(tasks, self._options)

    async def run(self, job_id: str, emit: Emit, stop: asyncio.Event) -> ResultSet:
        """Run it.

        Args:
            job_id: Its name in the journal.
            emit: Told what happens.
            stop: Ends it early; what has finished is kept.

        Raises:
            NbimgError: When nothing of it can be sent.
        """
        with given(self._options.credentials):
            return await self._run(job_id, emit, stop)

    async def _run(self, job_id: str, emit: Emit, stop: asyncio.Event) -> ResultSet:
        shop, requests, options = self._shop, self._requests, self._options
        planning = asyncio.ensure_future(self._prepared())
        if await until({planning}, stop):
            planning.cancel()
            return ResultSet([_cancelled(*item) for item in enumerate(requests)])
        prepared = await planning
        plan = prepared.plan
        if plan.refused and not (plan.tasks or prepared.cached or options.lenient):
            raise plan.refused[min(plan.refused)]
        ended = [refused(index, requests[index], why) for index, why in plan.refused.items()]
        ended += prepared.cached.values()
        made = await self._made(job_id, prepared, ended, emit, stop)
        found = ResultSet(
            sorted([*ended, *made], key=attrgetter("index")),
            thumb=self._place.store.thumb,
            rows=options.rows,
            columns_labels=options.columns_labels,
            columns=shop.settings.get("columns", options.columns),
            note=shop.note(plan.note),
            rerun=self._rerun,
            sent=[Sent(job_id, [task.index for task in plan.tasks])] if plan.tasks else [],
        )
        shop.usage += ResultSet([result for result in found if not result.cached]).usage
        return found

    async def _made(
        self,
        job_id: str,
        prepared: _Prepared,
        ended: Sequence[Result],
        emit: Emit,
        stop: asyncio.Event,
    ) -> tuple[Result, ...]:
        """Set the money aside, tell what is to come, and send it."""
        shop, options, tasks = self._shop, self._options, prepared.plan.tasks
        allowance = shop.ledger.reserve(
            tasks, call_usd=options.budget, kernel_usd=shop.settings.get("budget")
        )
        made: tuple[Result, ...] = ()
        try:
            images = sum(request.n for request in self._requests)
            cost = prepared.plan.cost_usd
            emit(PlannedEvent(tasks=len(self._requests), images=images, cost_usd=cost))
            if told := shop.forecast(tasks, options):
                emit(Notice(text=told))
            for result in ended:
                emit(Finished(task=result.index, result=result))
            if tasks:
                batch = Batch(
                    job_id,
                    tasks,
                    self._policy,
                    shop.settings.get("timeout", options.timeout),
                    options.concurrency,
                    options.semaphore,
                    options.url_only,
                    slots=prepared.slots,
                    about=self._about(),
                    fall=shop.fall(allowance, self._policy),
                    account=shop.keys.identity(),
                )
                made = await self._place.engine.run(batch, emit, stop)
        finally:
            allowance.close(sum(result.cost_usd or 0.0 for result in made))
        return made

    def _about(self) -> dict[str, object]:
        """What the journal keeps, to give the batch back as it was."""
        options = self._options
        return {
            "rows": options.rows,
            "columns_labels": options.columns_labels,
            "columns": options.columns,
            "url_only": options.url_only,
            "total": len(self._requests),
            "retries": options.retries,
            "timeout": options.timeout,
            "concurrency": options.concurrency,
            "semaphore": getattr(options.semaphore, "name", None),
            "budget": options.budget,
            "fallback": options.fallback,
        }

    async def _prepared(self) -> _Prepared:
        """Fetch the images that were given as addresses, look into the store, and plan the rest."""
        shop, place, options = self._shop, self._place, self._options
        requests, unread = self._requests, dict(self._unread)
        offline = shop.settings.get("offline")
        if not offline:
            await shop.intake.fetch(requests, unread, place.store, self._policy)
        refs = self._refs(unread)
        slots: list[str | None] = [None] * len(requests)
        if not options.url_only:
            slots = shop.cache.slots(requests, refs, options.cell)
        cached = await shop.cache.find(
            requests,
            slots,
            refs,
            mode=self._cache_mode(),
            stand_ins=self._stand_ins(),
            cell=options.cell,
            store=place.store,
            journal=place.journal,
            disk=place.disk,
        )
        if offline:
            unread |= {
                index: OfflineError(
                    f"NbImg.offline is set, and the store has no such image of {ref}.",
                    hint="%config NbImg.offline = False, or take a local model.",
                )
                for index, ref in enumerate(refs)
                if ref is not None and index not in cached and shop.is_remote(ref)
            }
        plan = await shop.planner.plan(
            requests,
            {**unread, **dict.fromkeys(cached, _IN_STORE)},
            task=options.task,
            groups=options.groups,
            policy=self._policy,
            fallback=options.fallback,
        )
        rest = {i: error for i, error in plan.refused.items() if error is not _IN_STORE}
        return _Prepared(replace(plan, refused=rest), cached, slots)

    def _refs(self, unread: Mapping[int, NbimgError]) -> list[ModelRef | None]:
        """The model of each request that can be read; what has none the planner refuses."""
        shop = self._shop
        chosen: dict[tuple[str | None, str], ModelRef | None] = {}
        found: list[ModelRef | None] = [None] * len(self._requests)
        for index, request in enumerate(self._requests):
            kind = (request.model, "edit" if request.image else self._options.task)
            if index in unread:
                continue
            if kind not in chosen:
                try:
                    chosen[kind] = choose(*kind, shop.settings, shop.keys, shop.registry).ref
                except NbimgError:
                    chosen[kind] = None
            found[index] = chosen[kind]
        return found

    def _stand_ins(self) -> list[str] | None:
        """The full names of the models that the call names for one that fails; None: the rules decide."""
        names, providers = self._options.fallback, self._shop.registry.names()
        return None if names is None else [catalog.resolve(n, providers).full for n in names]

    def _cache_mode(self) -> str:
        if self._options.url_only:
            return "never"
        if self._options.cache is None:
            return str(self._shop.settings.get("cache"))
        return "always" if self._options.cache else "never"


def refused(index: int, request: Request, error: NbimgError) -> Result:
    """Return the result of a request that cannot be sent."""
    return Result(
        index=index,
        request=request,
        model=request.model or "",
        model_asked=request.model,
        status=Status.FAILED,
        error=ErrorRecord.of(error),
    )


def _cancelled(index: int, request: Request) -> Result:
    asked = request.model
    return Result(index, request, asked or "", model_asked=asked, status=Status.CANCELLED)
