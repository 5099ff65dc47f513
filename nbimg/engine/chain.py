"""One call of a task, from model to model until one makes it.

Stage: a worker of the engine. Comes in: a task and the number of a call in it. A model that keeps failing
is left out while it does; one that failed for good is followed by the next of the task's chain. What a
kernel before this one has sent is taken up first. Goes out: images or an error, in the task. Must not:
follow a create whose fate is unknown, which may have been paid for.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field

from nbimg.backends.base import Call, LocalBackend, RemoteBackend
from nbimg.engine.batch import BatchRun
from nbimg.engine.breaker import Breaker
from nbimg.engine.local import make_alone
from nbimg.engine.order import AbsentError
from nbimg.engine.remote import Made, RemoteCall
from nbimg.engine.task import Task
from nbimg.errors import (
    JobFailedError,
    KeyRejectedError,
    NbimgError,
    OutcomeUnknownError,
    QuotaExceededError,
)
from nbimg.events import Notice
from nbimg.planning.plan import Planned
from nbimg.store.journal import SentCall
from nbimg.types import ImageRecord

__all__ = ["Chain"]

log = logging.getLogger("nbimg")

#: What an account or a key was refused for, it is refused for all: there is nothing to try.
_FOR_ALL = (KeyRejectedError, QuotaExceededError)

#: State of a call that was sent before → why there is nothing to fetch.
_ENDED = {
    "gone": "its images are gone: the provider keeps them no longer.",
    "forgotten": "it was given up: %imgcancel --forget.",
    "failed": "it failed in the kernel that sent it.",
}


@dataclass(eq=False, slots=True)
class Chain:
    """One call on its way.

    Attributes:
        run: The batch that it belongs to.
        task: Its task.
        variant: Its 0-based number in the task.
        tried: Full names of the models that have failed.
        owed: Whether the last failure left a job behind that runs or is paid for: no other model
            may make the same picture then.
        left_out: Whether the last model was not tried, because it keeps failing.
        forced: Whether a model that is left out is tried all the same.
    """

    run: BatchRun
    task: Task
    variant: int
    tried: set[str] = field(default_factory=set)
    owed: bool = False
    left_out: bool = False
    forced: bool = False

    async def run_to_end(self, failure: NbimgError | None = None) -> None:
        """Go from permit to file; every way it can end is written down.

        Args:
            failure: Of the first model, where it was tried together with other tasks.
        """
        made: list[Made] = []
        try:
            await self._follow(made, failure)
        except AbsentError as error:
            self.task.note([error.message])
            if images := _images(made):
                self.task.done(self.variant, images)
            self.task.cancelled(self.variant)
            self.task.unsent = self.run.unsent = True
        except asyncio.CancelledError:
            self._stopped(made)
            raise
        except NbimgError as error:
            self._failed(error, made)
        except Exception as error:  # a defect here or in a plug-in must not cost the other tasks
            log.exception("task %s failed unexpectedly", self.task.planned.index)
            self._failed(error, made)
        last = made.pop() if made else Made(())
        for one in made:
            if one.order is not None:
                await one.order.settle("done", one.images)
        number = last.order.number if last.order is not None else None
        await self.run.report(self.task, number, last.images)

    def _failed(self, error: Exception, made: list[Made]) -> None:
        """Keep the error, and the images that were made before it."""
        if images := _images(made):
            self.task.done(self.variant, images)
        self.task.failed(self.variant, error)

    def _stopped(self, made: list[Made]) -> None:
        """Keep what was made before Stop."""
        if images := _images(made):
            self.task.done(self.variant, images)
        for one in made:
            if one.order is not None:
                self.run.later(one.order.settle("done", one.images))

    async def _follow(self, made: list[Made], failure: NbimgError | None) -> None:
        """Try one model after the other; add to `made` what they made."""
        planned = self.task.planned
        sent = (self.run.batch.taken or {}).get((planned.index, self.variant), ())
        absent = await self._taken_up(sent, made)
        if sent and not absent:
            self.task.done(self.variant, _images(made))
            return
        calls = self._first(absent)
        while True:
            failure = failure or await self._failure(calls, made)
            if failure is None:
                break
            following = None if self.owed else await self._next(planned, failure)
            if following is not None:
                self._say(following)
                planned, calls = following, following.calls()
            elif self.left_out and planned.ref.provider not in self.run.denied:
                self.forced = True  # no other model: there is nothing to lose by trying
            else:
                if self.owed:
                    self.task.owe(self.variant, planned)
                raise failure
            failure = None
        self.task.done(self.variant, _images(made), planned)

    def _say(self, following: Planned) -> None:
        """Tell whoever watches which model goes on, and why."""
        if following.notices:
            index = self.task.planned.index
            self.run.emit(Notice(task=index, text=following.notices[-1]))

    def _first(self, absent: tuple[Call, ...]) -> tuple[Call, ...]:
        """What is sent first: what an earlier kernel meant to send, or what is planned.

        Raises:
            AbsentError: When nothing is to be sent.
        """
        batch, index = self.run.batch, self.task.planned.index
        if absent and batch.creates:
            return absent
        if not batch.creates or (batch.taken is not None and index not in batch.unsent):
            raise AbsentError("Never sent: %imgresume --remaining sends it.")
        return (self.task.calls[self.variant],)

    async def _failure(self, calls: tuple[Call, ...], made: list[Made]) -> NbimgError | None:
        """Make all calls to one model; return why that failed, or None."""
        breaker = self.run.shared.breakers.of(calls[0].ref.full)
        try:
            for call in calls:
                made.append(await self._made(call, breaker))  # noqa: PERF401  # keeps what is made
        except NbimgError as error:
            if not self.owed and not self.left_out:
                breaker.failed(error)
                if isinstance(error, _FOR_ALL):
                    self.run.denied.add(calls[0].ref.provider)
            return error
        breaker.worked()
        return None

    async def _made(self, call: Call, breaker: Breaker) -> Made:
        """Make one call, unless its model is left out when its turn comes."""
        backend = self.run.shared.registry.get(call.ref.provider)
        if isinstance(backend, LocalBackend):
            return Made(await make_alone(self.run, backend, (self.task, self.variant, call)))
        remote = self._remote(call, backend)
        self.left_out = False

        def admit() -> None:
            if not self.forced and not breaker.allow() and breaker.last_error is not None:
                self.left_out = True
                raise breaker.last_error

        try:
            return await remote.make(admit)
        finally:
            self.owed = remote.owed

    def _remote(self, call: Call, backend: RemoteBackend) -> RemoteCall:
        pace = self.run.shared.paces[call.ref.full]
        return RemoteCall(self.run, self.task, self.variant, call, backend, pace)

    async def _next(self, planned: Planned, error: NbimgError) -> Planned | None:
        """The same picture by the next model of the chain."""
        tried = {*self.tried, planned.ref.full}
        part = planned.part(self.variant) if planned is self.task.planned else planned
        resting = self.run.shared.breakers.resting()
        following = await self.run.batch.fall(part, error, tried | resting)
        if following is not None:
            self.tried = tried
        return following

    async def _taken_up(self, sent: Sequence[SentCall], made: list[Made]) -> tuple[Call, ...]:
        """Fetch what was sent before, all of it; return what may be sent now, for it never arrived.

        Raises:
            NbimgError: The last failure, when all were tried; `made` has the images of the others.
        """
        absent, failure = [], None
        for one in sent:
            try:
                fetched = await self._fetched(one)
            except NbimgError as error:
                failure = error
            else:
                if fetched is None:
                    absent.append(one.call)
                else:
                    made.append(fetched)
        if failure is not None:
            raise failure
        return tuple(absent)

    async def _fetched(self, sent: SentCall) -> Made | None:
        """Fetch what one call made; None when there is nothing, and it may be sent now."""
        if sent.state == "done" and all(i.path and i.path.is_file() for i in sent.images):
            return Made(sent.images)
        if sent.state in _ENDED:
            raise JobFailedError(_ENDED[sent.state], job_id=sent.job_id)
        if sent.state == "unknown":
            raise _unknown(sent.call)
        backend = self.run.shared.registry.get(sent.call.ref.provider)
        if not isinstance(backend, RemoteBackend):
            return None
        remote = self._remote(sent.call, backend)
        try:
            return await remote.take_up(sent)
        except AbsentError:
            return None
        except JobFailedError:
            if self.run.batch.creates and not remote.owed:  # it goes on as it would have
                return None
            raise


def _images(made: list[Made]) -> tuple[ImageRecord, ...]:
    return tuple(image for one in made for image in one.images)


def _unknown(call: Call) -> OutcomeUnknownError:
    return OutcomeUnknownError(
        f"nobody knows what became of this request to {call.ref.provider}; "
        "it may have been accepted and charged.",
        backend=call.ref.provider,
        model=call.ref.model,
    )
