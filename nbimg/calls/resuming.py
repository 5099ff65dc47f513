"""Take up what earlier kernels left behind, or what this one could not fetch.

Stage: beside `making`, on the portal's loop. Comes in: the id of a batch, or nothing: all that is left. Goes
out: the results of the whole batch, in the order of its tasks. Must not: create a job twice; without
`remaining` it creates none.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from nbimg.calls.call import CallOptions
from nbimg.calls.leftovers import Leftover, leftover
from nbimg.calls.making import Emit, refused
from nbimg.calls.workshop import Place, Workshop
from nbimg.concurrency.semaphore import semaphores
from nbimg.engine.run import Batch
from nbimg.errors import NbimgError, OfflineError, StoreError, UnknownNameError
from nbimg.events import Event, Finished
from nbimg.events import Planned as PlannedEvent
from nbimg.planning.plan import Planned
from nbimg.results import Rerun, ResultSet, Sent
from nbimg.store.journal import Claimed
from nbimg.types import Result

__all__ = ["Resuming"]


@dataclass(frozen=True)
class Resuming:
    """What is taken up.

    Attributes:
        shop: What it shares with the calls.
        place: The output folder.
        batch: The id of the batch; None: every one that has something that is paid for.
        remaining: Whether what was never sent is sent.
        rerun: Makes requests again, for `retry_failed`.
        batches: The ids of what was taken up, as soon as it is known.
    """

    shop: Workshop
    place: Place
    batch: str | None
    remaining: bool
    rerun: Rerun | None = None
    batches: set[str] = field(default_factory=set)

    async def run(self, emit: Emit, stop: asyncio.Event) -> ResultSet:
        """Run it; what has finished when `stop` is set is kept.

        Raises:
            UnknownNameError: When there is no batch of that name, or another kernel runs it.
            OfflineError: When nothing may leave the machine.
        """
        if self.shop.settings.get("offline"):
            raise OfflineError(
                "NbImg.offline is set: nothing can be fetched.",
                hint="%config NbImg.offline = False",
            )
        claimed = await self.place.journal.claim(self.batch, remaining=self.remaining)
        self.batches.update(one.id for one in claimed)
        if self.batch is not None and not claimed:
            raise UnknownNameError(
                "unfinished job",
                self.batch,
                hint="Another kernel runs it, or it is not of this folder.",
            )
        providers = self.shop.registry.names()
        rests = [leftover(one, providers, remaining=self._creates(one)) for one in claimed]
        tasks = sum(len(one.tasks) for one in claimed)
        images = sum(task.request.n for one in claimed for task in one.tasks)
        emit(PlannedEvent(tasks=tasks, images=images))
        offset, working = 0, []
        for rest in rests:
            working.append(self._taken_up(rest, _shifted(emit, offset), stop))
            offset += len(rest.claimed.tasks)
        parts = await asyncio.gather(*working, return_exceptions=True)
        faults = [part for part in parts if isinstance(part, BaseException)]
        if faults and len(faults) == len(parts):
            raise faults[0]
        results = [
            result
            for part, rest in zip(parts, rests, strict=True)
            for result in (_faulty(rest, part) if isinstance(part, BaseException) else part)
        ]
        return self._shown(results, claimed)

    def _creates(self, claimed: Claimed) -> bool:
        """Whether what was never sent is sent; of a batch that was stopped, only when it is named."""
        return self.remaining and (claimed.state != "cancelled" or self.batch is not None)

    def _shown(self, results: Sequence[Result], claimed: Sequence[Claimed]) -> ResultSet:
        """The results as one set; a whole batch keeps the axes that it had."""
        about: Mapping[str, Any] = claimed[0].about if len(claimed) == 1 else {}
        starts = list(itertools.accumulate((len(one.tasks) for one in claimed), initial=0))
        sent = [
            Sent(one.id, range(start, start + len(one.tasks)))
            for one, start in zip(claimed, starts, strict=False)
        ]
        axes = about if len(results) == about.get("total") else {}
        return ResultSet(
            [replace(result, index=place) for place, result in enumerate(results)],
            thumb=self.place.store.thumb,
            rows=axes.get("rows", ()),
            columns_labels=axes.get("columns_labels", ()),
            columns=self.shop.settings.get("columns", about.get("columns")),
            rerun=self.rerun,
            sent=sent,
        )

    async def _taken_up(self, rest: Leftover, emit: Emit, stop: asyncio.Event) -> list[Result]:
        """Run what is left of one batch; return the results of all its tasks, in order."""
        try:
            return await self._run(rest, emit, stop)
        except BaseException:  # it can be taken up again, by whoever comes next
            former = rest.claimed.state
            ending = self.place.journal.end(
                rest.claimed.id, "open" if former == "running" else former
            )
            with contextlib.suppress(StoreError):
                await ending
            raise

    async def _run(self, rest: Leftover, emit: Emit, stop: asyncio.Event) -> list[Result]:
        shop, options = self.shop, _options(rest.claimed.about)
        policy = shop.policy(options)
        results, tasks = dict(rest.settled), list(rest.tasks)
        creates = self._creates(rest.claimed)
        if creates and rest.unsent:
            tasks = await self._planned(rest, results, options)
        fresh = {task.index for task in tasks if creates and task.index in rest.unsent}
        allowance = shop.ledger.reserve(
            [task for task in tasks if task.index in fresh],
            call_usd=options.budget,
            kernel_usd=shop.settings.get("budget"),
        )
        for result in results.values():
            emit(Finished(task=result.index, result=result))
        batch = Batch(
            rest.claimed.id,
            tuple(tasks),
            policy,
            shop.settings.get("timeout", options.timeout),
            options.concurrency,
            options.semaphore,
            url_only=bool(rest.claimed.about.get("url_only")),
            fall=shop.fall(allowance, policy),
            account=shop.keys.identity(),
            taken=rest.taken,
            creates=creates,
            unsent=rest.unsent,
            stopped=rest.claimed.state == "cancelled" and not creates,
            whole=creates or not rest.unsent,
        )
        made: tuple[Result, ...] = ()
        try:
            made = await self.place.engine.run(batch, emit, stop)
        finally:
            # what an earlier kernel has paid is no money of this one
            spent = [r if r.index in fresh else replace(r, cost_usd=0.0) for r in made]
            allowance.close(sum(result.cost_usd or 0.0 for result in spent))
            shop.usage += ResultSet(spent).usage
        results |= {result.index: result for result in made}
        return [results[index] for index in sorted(results)]

    async def _planned(
        self, rest: Leftover, results: dict[int, Result], options: CallOptions
    ) -> list[Planned]:
        """Plan what has to be sent, each task for the model and with the seed that it was to have.

        Args:
            rest: What is left of the batch.
            results: Takes the result of each task that cannot be sent.
            options: Of the call that the batch was.
        """
        unsent = [planned for planned in rest.tasks if planned.index in rest.unsent]
        plan = await self.shop.planner.plan(
            [planned.request for planned in unsent],
            {},
            task="generate",
            groups=(),
            policy=self.shop.policy(options),
            fallback=options.fallback,
            choices={place: planned.ref for place, planned in enumerate(unsent)},
        )
        ready = {planned.index: planned for planned in rest.tasks}
        for fresh in plan.tasks:
            old = unsent[fresh.index]
            ready[old.index] = replace(fresh, index=old.index, seed=old.seed)
        for place, why in plan.refused.items():
            old = unsent[place]
            results[old.index] = refused(old.index, old.request, why)
            del ready[old.index]
        return [ready[index] for index in sorted(ready)]


def _options(about: Mapping[str, Any]) -> CallOptions:
    """The options of the call that a batch was, as the journal has kept them."""
    names = ("retries", "timeout", "concurrency", "semaphore", "budget", "fallback")
    given: dict[str, Any] = {name: about.get(name) for name in names}
    if given["fallback"] is not None:
        given["fallback"] = tuple(given["fallback"])
    if given["semaphore"] is not None and given["semaphore"] not in semaphores():
        given["semaphore"] = None  # it was registered in a kernel that is gone
    return CallOptions(**given)


def _faulty(rest: Leftover, fault: BaseException) -> list[Result]:
    """The results of a batch that could not be run; it can be taken up again."""
    if not isinstance(fault, NbimgError):
        raise fault
    tasks = {task.index: refused(task.index, task.request, fault) for task in rest.claimed.tasks}
    return [tasks[index] for index in sorted(tasks)]


def _shifted(emit: Emit, offset: int) -> Emit:
    """Number the tasks of one batch among those of several."""

    def shifted(event: Event) -> None:
        emit(event if event.task is None else replace(event, task=event.task + offset))

    return shifted if offset else emit
