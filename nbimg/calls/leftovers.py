"""What an earlier kernel left behind → a batch that takes it up.

Stage: below the session. Comes in: a batch of the journal that this kernel has claimed. Goes out: a
`Batch` of the tasks that have something to fetch or to send, and the results of those that have not.
Must not: create a job, or ask a network.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from nbimg.errors import UnknownNameError
from nbimg.planning import catalog
from nbimg.planning.plan import Planned
from nbimg.store.journal import Claimed, ClaimedTask, SentCall
from nbimg.types import Capabilities, Field, ModelRef, Result, Status

__all__ = ["Leftover", "leftover"]

#: All calls in these states are taken up: there are several where a model stood in that makes one a call.
_STANDING = ("done", "submitted", "intended")
#: Where there is none of those, the first that there is of these.
_TAKEN = ("gone", "forgotten", "unknown")
#: A call in one of these states holds something that may be paid for and was not fetched.
_OWED = ("submitted", "intended")
UNSENT = "Never sent: %imgresume --remaining sends it."


@dataclass(frozen=True)
class Leftover:
    """What is left of a batch.

    Attributes:
        claimed: The batch.
        tasks: Those with something to do, in order, as far as they can be told without a network.
        taken: (index, variant) → the calls that are taken up.
        unsent: Indexes of tasks that have a part that was never sent.
        settled: Index → result, of those with nothing to do.
    """

    claimed: Claimed
    tasks: tuple[Planned, ...]
    taken: Mapping[tuple[int, int], tuple[SentCall, ...]]
    unsent: frozenset[int]
    settled: Mapping[int, Result]


def leftover(claimed: Claimed, providers: Collection[str], *, remaining: bool) -> Leftover:
    """Sort the tasks of a batch.

    Args:
        claimed: The batch.
        providers: The names of the backends that exist.
        remaining: Whether what was never sent is sent.
    """
    tasks, unsent, settled = [], set(), {}
    taken: dict[tuple[int, int], tuple[SentCall, ...]] = {}
    for task in claimed.tasks:
        ended = task.result is not None and not (remaining and _stopped(task.result))
        owed = any(call.state in _OWED for call in task.sent) or _late(task)
        if task.result is not None and ended and not owed:
            settled[task.index] = task.result
            continue
        states = (*_TAKEN, "failed") if ended else _TAKEN
        mine = {(task.index, k): call for k in range(task.calls) if (call := _of(task, k, states))}
        if len(mine) < task.calls and not ended:
            unsent.add(task.index)
        if mine or remaining:
            tasks.append(_planned(task, providers))
            taken |= mine
        else:
            settled[task.index] = _never_sent(task)
    return Leftover(claimed, tuple(tasks), taken, frozenset(unsent), settled)


def _late(task: ClaimedTask) -> bool:
    """Whether an image came when its task had been given up."""
    here = {image.sha256 for image in task.result.images} if task.result else set()
    late = (image.sha256 not in here for call in task.sent for image in call.images)
    return task.result is not None and task.result.status is not Status.OK and any(late)


def _stopped(result: Result) -> bool:
    """Whether Stop ended a task before all of it was sent."""
    part = result.status is Status.PARTIAL and result.error is None
    return part or result.status is Status.CANCELLED


def _of(task: ClaimedTask, variant: int, states: tuple[str, ...]) -> tuple[SentCall, ...]:
    """The calls that are taken up for a variant, oldest first; none: it has to be sent."""
    calls = [call for call in task.sent if call.variant == variant]
    if standing := tuple(call for call in calls if call.state in _STANDING):
        return standing
    return tuple(call for state in states for call in reversed(calls) if call.state == state)[:1]


def _planned(task: ClaimedTask, providers: Collection[str]) -> Planned:
    """A task of which the model's schema is not needed: its calls are in the journal."""
    ref = _ref(task.model, providers)
    entry = catalog.entries().get(ref.alias or "")
    together = task.calls == 1 < task.request.n
    can = Capabilities(
        options={"n": Field("n")} if together else {},
        price_usd=entry.price_usd if entry else None,
        price_at=entry.price_at if entry else None,
    )
    return Planned(task.index, task.request, ref, can, task.seed)


def _ref(model: str, providers: Collection[str]) -> ModelRef:
    try:
        return catalog.resolve(model, providers)
    except UnknownNameError:  # of a plug-in that is not there; it says so when it is asked for
        provider, _, name = model.partition(":")
        return ModelRef(provider, name)


def _never_sent(task: ClaimedTask) -> Result:
    return Result(
        task.index,
        task.request,
        task.model,
        task.request.model,
        Status.CANCELLED,
        notices=(UNSENT,),
    )
