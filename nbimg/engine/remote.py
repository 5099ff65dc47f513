"""One remote call to one model, from its permit to its files.

Stage: below the chain. Permit · an order (`order`) that is created, or taken up, and waited for ·
download · the file on disk. Comes in: a call. Goes out: the files, and the order, which whoever writes
down the result settles. Must not: settle an order while anything that was paid is left to fetch.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import mimetypes
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from urllib.parse import urlsplit

from nbimg.backends.base import Call, Output, Prediction, RemoteBackend, State
from nbimg.engine.batch import BatchRun
from nbimg.engine.order import Order
from nbimg.engine.pace import Pace
from nbimg.engine.retry import retrying
from nbimg.engine.task import Task
from nbimg.errors import (
    ImageInputError,
    JobFailedError,
    NbimgError,
    OutcomeUnknownError,
    ReplyError,
)
from nbimg.store.journal import SentCall
from nbimg.types import EncodedImage, ImageRecord

__all__ = ["Made", "RemoteCall"]

log = logging.getLogger("nbimg")

#: What the file host says of an output that it keeps no longer.
_GONE = (404, 410)


@dataclass(frozen=True, slots=True)
class Made:
    """What a call made: its images, and the order that is to be settled; None for a local one."""

    images: tuple[ImageRecord, ...]
    order: Order | None = None


@dataclass(eq=False, slots=True)
class RemoteCall:
    """One remote call on its way.

    Attributes:
        run: The batch that it belongs to.
        task: Its task.
        variant: Its 0-based number in the task.
        call: What is sent.
        backend: To whom.
        pace: What is known of how long the model takes.
        order: The latest one.
        final: Whether no other model may follow: no time is left, or somebody cancelled the job.
    """

    run: BatchRun
    task: Task
    variant: int
    call: Call
    backend: RemoteBackend
    pace: Pace
    order: Order | None = None
    final: bool = False

    @property
    def owed(self) -> bool:
        """Whether a job was left behind that runs or is paid for, or no other may follow."""
        return self.final or (self.order is not None and self.order.owed)

    async def make(self, admit: Callable[[], None]) -> Made:
        """Have it made, and fetch it.

        Args:
            admit: Called when it is its turn; raises when the model is not to be tried now.

        Raises:
            NbimgError: When it failed, for good or within its time-out.
        """

        async def made() -> tuple[Order, Prediction]:
            told = self.run.waiting(self.task, "run")
            return await retrying("run", self._ordered, self.run.batch.policy, told)

        return await self._bounded(made, admit)

    async def take_up(self, sent: SentCall) -> Made:
        """Fetch what an earlier kernel ordered; nothing is created.

        Raises:
            AbsentError: When it provably never arrived.
            NbimgError: When it failed, or what became of it cannot be told.
        """

        async def taken() -> tuple[Order, Prediction]:
            order = self._order()
            return order, await self._waited(order, await order.take_up(sent))

        return await self._bounded(taken)

    async def _bounded(
        self,
        work: Callable[[], Awaitable[tuple[Order, Prediction]]],
        admit: Callable[[], None] = lambda: None,
    ) -> Made:
        """Do the work with a permit, then fetch without one, all within the task's time-out."""
        try:
            async with asyncio.timeout(None) as bound, AsyncExitStack() as held:
                self._bind(bound)
                lane = self.run.lane(self.backend)
                await held.enter_async_context(lane.permit(self.run.held_up))
                admit()
                self.run.start(self.task)
                self._bind(bound)
                try:
                    order, made = await work()
                except asyncio.CancelledError:
                    self._hold_on(held)
                    raise
                await held.aclose()
                began = time.monotonic()
                if order.job_id is None:  # nobody can be asked for it again
                    bound.reschedule(None)
                images = await self._brought(order, made)
                self.task.download_s = max(self.task.download_s, time.monotonic() - began)
                return Made(tuple(images), order)
        except TimeoutError:
            self.final = True
            limit_s = self.run.batch.timeout_s or 0
            what = f"the time-out of {limit_s:g} s"
            if self.order is not None and self.order.in_flight:
                raise OutcomeUnknownError(
                    f"{self.backend.name} had not answered within {what}; the request may have been "
                    "accepted and charged.",
                    backend=self.backend.name,
                    model=self.call.ref.model,
                ) from None
            raise JobFailedError(
                f"not finished within {what}.",
                hint="%imgresume fetches what is made all the same." if self.order else None,
                backend=self.backend.name,
            ) from None

    def _hold_on(self, held: AsyncExitStack) -> None:
        """A create that Stop or the time-out has left on its way keeps its permit until it is over."""
        landing = None if self.order is None else self.order.landing
        if landing is None:
            return
        permit = held.pop_all()

        async def give_back() -> None:
            try:
                await asyncio.wait({landing})
            finally:
                await permit.aclose()

        self.run.keep(give_back())

    def _bind(self, bound: asyncio.Timeout) -> None:
        """Bound what follows by what is left of the task's time, which begins with its first permit."""
        limit_s = self.run.batch.timeout_s
        if limit_s is None or not self.task.started:
            return
        left_s = self.task.left_s(limit_s)
        if left_s <= 0:  # before anything is sent
            raise TimeoutError
        bound.reschedule(asyncio.get_running_loop().time() + left_s)

    def _order(self) -> Order:
        self.order = Order(self.run, self.task, self.variant, self.call, self.backend)
        return self.order

    async def _brought(self, order: Order, made: Prediction) -> list[ImageRecord]:
        """Fetch and save; what has no job that can be asked again is saved though Stop comes."""
        if order.job_id is not None:
            return await self._downloaded(order, made)
        saving = asyncio.ensure_future(self._downloaded(order, made))
        try:
            return await asyncio.shield(saving)
        except asyncio.CancelledError:
            self.run.later(self._kept(order, saving))
            raise

    async def _keep(self, order: Order, made: Prediction) -> None:
        """Save what a provider without jobs has answered after Stop: it is paid for."""
        await self._kept(order, self._downloaded(order, made))

    async def _kept(self, order: Order, saving: Awaitable[list[ImageRecord]]) -> None:
        try:
            images = await saving
        except NbimgError as error:
            log.warning("%s", error)
            return
        self.task.done(self.variant, images)
        await order.settle("done", images)

    async def _ordered(self) -> tuple[Order, Prediction]:
        """Order a job and wait for its success; one that failed for a passing reason may be run again."""
        order = self._order()
        await order.intend()
        return order, await self._waited(order, await order.create(self._keep))

    async def _waited(self, order: Order, prediction: Prediction) -> Prediction:
        at = time.time()
        made = await order.wait(prediction, self.pace)
        error = made.error
        self.final = made.state is State.CANCELLED
        if made.state is not State.DONE:
            error = error or JobFailedError(
                "the job was cancelled at the provider.", job_id=order.job_id
            )
        elif not made.outputs:
            error = ReplyError("the job succeeded without an image.", job_id=order.job_id)
        if error is not None:
            self.task.tried(self.call.ref.full, "run", at, error, order.job_id)
            await order.settle("failed" if made.state is State.DONE else made.state.value)
            raise error
        return made

    async def _downloaded(self, order: Order, made: Prediction) -> list[ImageRecord]:
        """Fetch and save every output, in order."""
        several = len(made.outputs) > 1
        saving = [
            self._saved(order, output, self.variant + place, several)
            for place, output in enumerate(made.outputs, 1)
        ]
        done = await asyncio.gather(*saving, return_exceptions=True)
        images = [record for record in done if isinstance(record, ImageRecord)]
        failures = [error for error in done if isinstance(error, BaseException)]
        if failures:
            if images:
                self.task.done(self.variant, images)
            if all(getattr(error, "http_status", None) in _GONE for error in failures):
                self.final = True  # paid for and gone: there is nothing left to fetch
                await order.settle("gone")
            raise failures[0]
        return images

    async def _saved(self, order: Order, output: Output, number: int, several: bool) -> ImageRecord:
        if self.run.batch.url_only and output.data is None:
            kind = _kind(output.url or "")
            return ImageRecord(path=None, url=output.url, kind=kind, seed=self.call.seed)

        async def fetch() -> ImageRecord:
            data = output.data
            if data is None:
                assert output.url is not None
                data = await self.backend.fetch(output.url)
            cover = None
            if output.cover is not None:
                with contextlib.suppress(NbimgError):  # a video is worth showing without one
                    cover = await self.backend.fetch(output.cover)
            url = output.url if output.url and not output.url.startswith("data:") else None
            image = EncodedImage(data, seed=self.call.seed, url=url)
            try:
                return await self.run.save(
                    self.task, self.call, image, number, several=several, cover=cover
                )
            except ImageInputError as error:
                # truncated or not an image: fetched again, not paid again
                raise ReplyError(
                    f"the image did not arrive whole: {error.message}",
                    backend=self.backend.name,
                    job_id=order.job_id,
                    transient=output.url is not None,
                ) from error

        return await order.tried("download", fetch)


def _kind(url: str) -> str:
    """What an address leads to, by its name: nothing was downloaded."""
    mime = mimetypes.guess_type(urlsplit(url).path)[0] or ""
    return "video" if mime.startswith("video/") else "image"
