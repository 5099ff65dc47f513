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
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

from nbimg.backends.base import Call, Prediction, RemoteBackend, State
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
from nbimg.events import Step, Submitted
from nbimg.keys import redact

__all__ = ["Order"]

T = TypeVar("T")

log = logging.getLogger("nbimg")

#: How long a job may run before the engine looks away; it stays in the journal then.
JOB_S = 15 * 60.0


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
    """

    run: BatchRun
    task: Task
    variant: int
    call: Call
    backend: RemoteBackend
    job_id: str | None = None

    def __post_init__(self) -> None:
        self._lane = self.run.lanes[self.backend.name]
        self._journal = self.run.journal
        self._number = 0  # of the call in the journal
        self._lost: OutcomeUnknownError | None = None  # a create of which nobody knows what became
        self._lost_at = 0.0
        self._in_flight = False  # Stop came while the create was on its way

    async def intend(self) -> None:
        """The intent is in the journal before the create is sent."""
        index = self.task.planned.index
        writing = asyncio.ensure_future(
            self._journal.intend(
                self.run.batch.id, index, self.variant, self.call.ref, self.call.seed
            )
        )
        try:
            self._number = await asyncio.shield(writing)
        except asyncio.CancelledError:
            self.run.later(self._never_sent(writing))
            raise

    async def _never_sent(self, writing: asyncio.Future[int]) -> None:
        with contextlib.suppress(StoreError):
            self._number = await writing
            await self.settle("cancelled")

    async def create(self) -> Prediction:
        """Send the job; its id is in the journal before anything waits for it."""
        try:
            with self._lane.passage() as passage:
                turn = functools.partial(self._lane.turn, "create", passage)
                return await self.tried("create", lambda: self._sent(passage), turn)
        except OutcomeUnknownError:
            await self.settle("unknown")
            raise
        except NbimgError:
            await self.settle("failed")
            raise
        except asyncio.CancelledError:
            if not self._in_flight:
                self.run.later(
                    self._unknown(self._lost) if self._lost else self.settle("cancelled")
                )
            raise

    async def _sent(self, passage: Passage) -> Prediction:
        # shielded: a create that Stop tears in two would be paid for, and nobody would know its id
        sending = asyncio.ensure_future(self._create_or_find())
        try:
            return await asyncio.shield(sending)
        except BusyError:
            await passage.claim()  # who was refused tries again first, not one that merely waits
            raise
        except asyncio.CancelledError:
            self._in_flight = True
            self.run.later(self._cancel_when_known(sending), self._never_answered)
            raise

    async def _create_or_find(self) -> Prediction:
        # a list may lag behind: what was lost is looked for once more before it is sent again
        prediction = None if self._lost is None else await self._found(self._lost)
        if prediction is None:
            began = time.time()
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
        if prediction.id is not None:
            self.job_id = prediction.id
            # when the disk is full now: it runs and is paid for, so go on and fetch it
            await self.run.noted(self._journal.submitted(self._number, prediction.id))
            self.run.emit(Submitted(task=self.task.planned.index, job_id=prediction.id))
        return prediction

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
        began, polls = time.monotonic(), 0
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
                prediction = await self.tried("poll", look, self._read_turn)
                polls += 1
                if prediction.progress is not None:
                    done = round(prediction.progress * 100)
                    self.run.emit(Step(task=self.task.planned.index, done=done, total=100))
        except asyncio.CancelledError:
            if self.job_id is not None:
                self.run.later(self._cancel(self.job_id))
            raise
        pace.learn(time.monotonic() - began, polls)
        return prediction

    async def _read_turn(self) -> None:
        await self._lane.turn("read")

    async def tried(
        self,
        stage: str,
        work: Callable[[], Awaitable[T]],
        turn: Callable[[], Awaitable[None]] | None = None,
    ) -> T:
        """Retry a stage; every try waits for its turn and is written down, every wait is told."""

        async def once() -> T:
            if turn is not None:
                await turn()
            at = time.time()
            try:
                value = await work()
            except NbimgError as error:
                self.task.tried(stage, at, error, self.job_id)
                log.debug("%s %s: %s", self.call.ref, stage, redact(str(error)))
                if isinstance(error, BusyError):
                    self._lane.pause(error.retry_after_s or 0.0)
                raise
            if stage not in ("poll", "find"):
                self.task.tried(stage, at, None, self.job_id)
            return value

        return await retrying(
            stage, once, self.run.batch.policy, self.run.waiting(self.task, stage)
        )

    async def settle(self, state: str) -> None:
        """Write down how it ended: `done`, `failed`, `cancelled` or `unknown`."""
        await self.run.noted(self._journal.settled(self._number, state))

    # ------------------------------------------------------------ when Stop comes

    async def _cancel_when_known(self, sending: asyncio.Future[Prediction]) -> None:
        try:
            prediction = await sending
        except OutcomeUnknownError as error:
            await self._unknown(error)
        except NbimgError:
            await self.settle("failed")
        else:
            if prediction.id is not None:
                await self._cancel(prediction.id)

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
        await self.settle("unknown")

    async def _cancel(self, job_id: str) -> None:
        """Cancel at the provider; what cannot be cancelled or is paid for stays in the journal."""
        ask = functools.partial(self.backend.cancel, job_id)
        try:
            stands = await retrying("cancel", ask, self.run.batch.policy, lambda *_: None)
        except NbimgError as error:
            log.info("job %s could not be cancelled: %s", job_id, redact(str(error)))
            return
        if stands is None or stands.state is not State.DONE:
            await self.settle("cancelled")
