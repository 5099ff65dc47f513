"""One job ordered from a provider, which is paid for: nothing about it is ever lost.

Stage: below the remote worker. The intent in the journal · create, or find what was lost · the id in the
journal · wait · the outcome in the journal; and what becomes of it when Stop comes. Comes in: a call.
Goes out: a finished prediction. Must not: send a create again that may have been accepted, or leave a
job behind that nobody knows of.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from nbimg.backends.base import Call, Prediction, RemoteBackend, State, reporting
from nbimg.credentials.keys import redact
from nbimg.engine.batch import BatchRun
from nbimg.engine.gate import Passage
from nbimg.engine.pace import Pace
from nbimg.engine.retry import retrying
from nbimg.engine.task import Task
from nbimg.errors import (
    BusyError,
    JobFailedError,
    NbimgError,
    OutcomeUnknownError,
    StoreError,
    UnreachableError,
)
from nbimg.events import Event, Step, Submitted, Waiting
from nbimg.store.journal import SentCall
from nbimg.types import ImageRecord

__all__ = ["AbsentError", "Order"]

T = TypeVar("T")
Keep = Callable[["Order", Prediction], Awaitable[None]]

log = logging.getLogger("nbimg")

#: How long a job may run before the engine looks away; it stays in the journal then.
JOB_S = 15 * 60.0


class AbsentError(NbimgError):
    """A request was never sent, or provably never arrived, and may not be sent now."""


@dataclass(eq=False)
class Order:
    """One job on its way.

    Attributes:
        run: The batch that it belongs to.
        task: Its task.
        variant: The 0-based number of the call in the task.
        call: What is sent.
        backend: To whom.
        job_id: The provider's id, once it is known.
        number: Of the call in the journal.
        owed: Whether it was accepted, and neither fetched nor known to have failed.
        in_flight: Whether Stop or a time-out came while the create was on its way.
        landing: What waits for such a create, and cancels what it has begun.
    """

    run: BatchRun
    task: Task
    variant: int
    call: Call
    backend: RemoteBackend
    job_id: str | None = None
    number: int = 0
    owed: bool = False

    def __post_init__(self) -> None:
        self._lane = self.run.lane(self.backend)
        self._journal = self.run.shared.journal
        self._lost: OutcomeUnknownError | None = None  # a create of which nobody knows what became
        self._lost_at = 0.0
        self._again: Prediction | None = None  # a lost one that the second look has found
        self._began = 0.0  # when the create was sent
        self.in_flight = False
        self._sending: asyncio.Future[Prediction] | None = None
        self.landing: asyncio.Task[None] | None = None

    async def intend(self) -> None:
        """The intent is in the journal before the create is sent."""
        index = self.task.planned.index
        writing = asyncio.ensure_future(
            self._journal.intend(self.run.batch.id, index, self.variant, self.call)
        )
        try:
            self.number = await asyncio.shield(writing)
        except asyncio.CancelledError:
            self.run.later(self._never_sent(writing))
            raise

    async def _never_sent(self, writing: asyncio.Future[int]) -> None:
        with contextlib.suppress(StoreError):
            self.number = await writing
            await self.settle("cancelled")

    async def take_up(self, sent: SentCall) -> Prediction:
        """Go on with a call that an earlier kernel sent; one without a job id is looked for.

        Raises:
            AbsentError: When it provably never arrived.
            OutcomeUnknownError: When the provider cannot be asked.
        """
        self.number, self.job_id, self.owed = sent.number, sent.job_id, True
        if (sending := self.run.shared.flying.get(sent.number)) is not None:
            await asyncio.wait({sending})
            if not sending.cancelled() and sending.exception() is None:
                self.job_id = self.job_id or sending.result().id
        if self.job_id is None:
            self._lost_at = sent.at_utc
            lost = OutcomeUnknownError(
                f"{self.backend.name} may have accepted and charged this request before the kernel "
                "ended, and cannot be asked.",
                backend=self.backend.name,
                model=self.call.ref.model,
            )
            try:
                found = await self._found(lost)
                if found is None:  # it may be on its way yet, or the list may lag behind
                    await asyncio.sleep(self.run.batch.policy.min_s)
                    found = await self._found(lost)
            except OutcomeUnknownError as error:
                await self._leave(error)
                raise
            if found is None:
                await self.settle("absent")
                raise AbsentError("Never sent: %imgresume --remaining sends it.")
            self.job_id = found.id
            if found.id is not None:
                await self.run.noted(self._journal.submitted(self.number, found.id))
        self.run.emit(Submitted(task=self.task.planned.index, job_id=str(self.job_id)))
        return Prediction(self.job_id, State.QUEUED)

    async def create(self, keep: Keep) -> Prediction:
        """Send the job; its id is in the journal before anything waits for it.

        Args:
            keep: Saves what is answered at once, though nobody waits for it any longer.
        """
        try:
            with self._lane.passage() as passage, reporting(self._listener()):
                turn = functools.partial(self._create_turn, passage)
                return await self.tried("create", lambda: self._sent(passage, keep), turn)
        except OutcomeUnknownError as error:
            await self._unknown(error)
            raise
        except NbimgError:
            if self._lost is not None and (found := await self._last_look(self._lost)):
                return found
            await self.settle("failed")
            raise
        except asyncio.CancelledError:
            if not self.in_flight:
                self.run.later(
                    self._unknown(self._lost) if self._lost else self.settle("cancelled")
                )
            raise

    def _listener(self) -> Callable[[Event], None]:
        """What a backend reports about this call; it may be on another loop than the engine."""
        loop, index = asyncio.get_running_loop(), self.task.planned.index

        def tell(event: Event) -> None:
            loop.call_soon_threadsafe(self.run.emit, replace(event, task=index))

        return tell

    async def _create_turn(self, passage: Passage) -> Callable[[], None]:
        """Wait for the turn of a create; a lost one is looked for once more first: lists lag behind."""
        if self._lost is not None:
            self._again = await self._found(self._lost)
            if self._again is not None:
                return lambda: None
        return await self._lane.turn("create", passage, self._tell)

    async def _sent(self, passage: Passage, keep: Keep) -> Prediction:
        # shielded: a create that Stop tears in two would be paid for, and nobody would know its id
        sending = self._sending = asyncio.ensure_future(self._create_or_find())
        try:
            prediction = await asyncio.shield(sending)
        except BusyError:
            await passage.claim()  # who was refused tries again first, not one that merely waits
            raise
        except asyncio.CancelledError:
            self.in_flight = True
            self._fly(sending)
            work = self._cancel_when_known(sending, keep)
            self.landing = self.run.later(work, self._never_answered)
            raise
        self._sending = None  # its context holds the order: no garbage for the collector
        return prediction

    def _fly(self, sending: asyncio.Future[Prediction]) -> None:
        """Let a resume in this kernel know of a create that is on its way."""
        flying, number = self.run.shared.flying, self.number
        flying[number] = sending
        sending.add_done_callback(lambda _: flying.pop(number, None))

    async def _create_or_find(self) -> Prediction:
        prediction, self._again = self._again, None
        if prediction is None:
            began, self._began = time.time(), time.monotonic()
            try:
                prediction = await self.backend.create(self.call)
            except OutcomeUnknownError as lost:
                if self._lost is None:
                    self._lost, self._lost_at = lost, began
                prediction = await self._found(lost)
                if prediction is None:
                    raise UnreachableError(
                        f"{self.backend.name} never got the request.",
                        backend=self.backend.name,
                        http_status=lost.http_status,
                    ) from lost
        return await self._accepted(prediction)

    async def _accepted(self, prediction: Prediction) -> Prediction:
        """The provider has taken it: its id goes into the journal before anything waits for it."""
        self.owed = True
        if prediction.id is not None:
            self.job_id = prediction.id
            # when the disk is full now: it runs and is paid for, so go on and fetch it
            await self.run.noted(self._journal.submitted(self.number, prediction.id))
            self.run.emit(Submitted(task=self.task.planned.index, job_id=prediction.id))
        return prediction

    async def _last_look(self, lost: OutcomeUnknownError) -> Prediction | None:
        """A lost create is not given up before a list that lags behind had time to catch up."""
        await asyncio.sleep(self.run.batch.policy.min_s)
        try:
            found = await self._found(lost)
        except OutcomeUnknownError as error:
            await self._unknown(error)
            raise
        return None if found is None else await self._accepted(found)

    async def _found(self, lost: OutcomeUnknownError) -> Prediction | None:
        """Look for a create that was lost; None when it provably never arrived."""
        try:
            return await self.tried(
                "find", lambda: self.backend.find(self.call, self._lost_at), self._read_turn
            )
        except NbimgError as error:
            raise lost from error

    async def wait(self, prediction: Prediction, pace: Pace) -> Prediction:
        """Poll until the job has ended, at the pace that the model has taught."""
        began, polls, last_s = self._began or time.monotonic(), 0, 0.0
        try:
            while not prediction.state.terminal:
                elapsed = time.monotonic() - began
                if elapsed > JOB_S:
                    raise JobFailedError(
                        f"still running after {JOB_S / 60:g} minutes; it stays in the journal.",
                        job_id=self.job_id,
                    )
                last_s = await pace.rest(elapsed, polls, self._lane.used("read"))
                assert prediction.id is not None
                look = functools.partial(self.backend.poll, prediction.id)
                prediction = await self.tried("poll", look, self._read_turn)
                polls += 1
                if prediction.progress is not None:
                    done = round(prediction.progress * 100)
                    self.run.emit(Step(task=self.task.planned.index, done=done, total=100))
        except asyncio.CancelledError:
            if self.job_id is not None:
                self.run.later(self._cancel(self.job_id))
            raise
        pace.learn(time.monotonic() - began, polls, last_s)
        self.task.spent(prediction.usage)
        return prediction

    async def _read_turn(self) -> Callable[[], None]:
        return await self._lane.turn("read", tell=self._tell)

    def _tell(self, reason: str, until_utc: float | None) -> None:
        """Say what is waited for, when that takes long."""
        self.run.emit(Waiting(task=self.task.planned.index, reason=reason, until_utc=until_utc))

    async def tried(
        self,
        stage: str,
        work: Callable[[], Awaitable[T]],
        turn: Callable[[], Awaitable[Callable[[], None]]] | None = None,
    ) -> T:
        """Retry a stage; every try waits for its turn and is written down, every wait is told."""

        async def once() -> T:
            answered = None if turn is None else await turn()
            at = time.time()
            try:
                value = await work()
            except NbimgError as error:
                self._failed_once(stage, at, error)
                raise
            finally:
                if answered is not None:
                    self._when_sent(answered)
            if stage not in ("poll", "find"):
                self.task.tried(self.call.ref.full, stage, at, None, self.job_id)
            if stage == "create":
                self._lane.went()
            if log.isEnabledFor(logging.DEBUG):
                self._log(stage, at, "ok")
            return value

        return await retrying(
            stage, once, self.run.batch.policy, self.run.waiting(self.task, stage)
        )

    def _when_sent(self, answered: Callable[[], None]) -> None:
        """Tell the window that a request is over; one that Stop has left is when it comes back."""
        if self._sending is None or self._sending.done():
            answered()
        else:
            self._sending.add_done_callback(lambda _: answered())

    def _failed_once(self, stage: str, at: float, error: NbimgError) -> None:
        self.task.tried(self.call.ref.full, stage, at, error, self.job_id)
        if isinstance(error, BusyError):
            self._slow_down(error, creates=stage == "create")
            refused = error.crowded or (error.http_status == 429 and error.retry_after_s is None)
            if stage == "create" and refused:
                self._lane.crowded()
        if log.isEnabledFor(logging.DEBUG):
            self._log(stage, at, f"{type(error).__name__}: {error}")

    def _slow_down(self, error: BusyError, *, creates: bool = True) -> None:
        self._lane.pause(error.retry_after_s or 0.0, creates=creates, sparse=error.sparse)

    def _log(self, stage: str, at: float, outcome: str) -> None:
        """One line an attempt, without a secret."""
        job, seconds = self.job_id or "-", time.time() - at
        index = self.task.planned.index
        log.debug(
            "task %s %s %s job %s %.3f s: %s",
            index,
            self.call.ref.full,
            stage,
            job,
            seconds,
            redact(" ".join(outcome.split())),
        )

    async def settle(self, state: str, images: Sequence[ImageRecord] = ()) -> None:
        """Write down how it ended: `done`, `failed`, `gone`, `cancelled`, `unknown` or `absent`."""
        self.owed = False
        if self.number:
            await self.run.noted(self._journal.settled(self.number, state, images))

    # ------------------------------------------------------------ when Stop comes

    async def _cancel_when_known(self, sending: asyncio.Future[Prediction], keep: Keep) -> None:
        try:
            prediction = await sending
        except OutcomeUnknownError as error:
            await self._unknown(error)
        except NbimgError as error:
            if isinstance(error, BusyError):
                self._slow_down(error)
            await self._absent_or_cancelled()
        else:
            if prediction.id is not None:
                await self._cancel(prediction.id)
            elif prediction.state is State.DONE and prediction.outputs:
                await keep(self, prediction)

    async def _absent_or_cancelled(self) -> None:
        """A create failed that nobody waits for; one before it that was lost may have arrived."""
        found = None
        if self._lost is not None:
            try:
                found = await self._last_look(self._lost)
            except OutcomeUnknownError:
                return
        if found is None:
            await self.settle("failed")
        elif found.id is not None:
            await self._cancel(found.id)

    async def _never_answered(self) -> None:
        """Nobody waits for the create any longer: unless its id is known, its fate is not."""
        if self.job_id is None:
            error = OutcomeUnknownError(
                f"{self.backend.name} had not answered when the call was stopped; "
                "the request may have been accepted and charged.",
                backend=self.backend.name,
                model=self.call.ref.model,
            )
            await self._unknown(error)

    async def _unknown(self, error: OutcomeUnknownError) -> None:
        self.task.failed(self.variant, error)
        await self._leave(error)

    async def _leave(self, error: OutcomeUnknownError) -> None:
        """Settle what nobody can ever tell; what can be looked up another day stays open for `resume`."""
        self.owed = True
        if isinstance(error.__cause__, OutcomeUnknownError):  # the provider has no list to look in
            await self.settle("unknown")

    async def _cancel(self, job_id: str) -> None:
        """Cancel at the provider; what cannot be cancelled or is paid for stays in the journal."""
        ask = functools.partial(self.backend.cancel, job_id)
        try:
            stands = await retrying("cancel", ask, self.run.batch.policy, lambda *_: None)
        except NbimgError as error:
            log.info("job %s could not be cancelled: %s", job_id, redact(str(error)))
            return
        if stands is not None and stands.state in (State.CANCELLED, State.FAILED):
            await self.settle(stands.state.value)
