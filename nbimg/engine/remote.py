"""One remote call, from its permit to its files.

Stage: a worker of the engine. For each call: permit · an order (`order`) that is created and waited for ·
download · the file on disk · the order settled. Comes in: a call. Goes out: what became of it, in its
task. Must not: settle an order while anything that was paid is left to fetch.
"""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import dataclass

from nbimg.backends.base import Call, Output, Prediction, RemoteBackend, State
from nbimg.engine.batch import BatchRun
from nbimg.engine.order import Order
from nbimg.engine.pace import Pace
from nbimg.engine.retry import retrying
from nbimg.engine.task import Task
from nbimg.errors import ImageInputError, JobFailedError, NbimgError, ReplyError
from nbimg.types import EncodedImage, ImageRecord

__all__ = ["RemoteCall"]

log = logging.getLogger("nbimg")


@dataclass(eq=False)
class RemoteCall:
    """One remote call on its way.

    Attributes:
        run: The batch that it belongs to.
        task: Its task.
        variant: Its 0-based number in the task.
        call: What is sent.
        backend: To whom.
        pace: What is known of how long the model takes.
    """

    run: BatchRun
    task: Task
    variant: int
    call: Call
    backend: RemoteBackend
    pace: Pace

    async def run_to_end(self) -> None:
        """Go from permit to file; every way it can end is written down."""
        try:
            await self._finish()
        except TimeoutError:
            error = JobFailedError(
                f"not finished within the time-out of {self.run.batch.timeout_s or 0:g} s.",
                backend=self.backend.name,
            )
            self.task.failed(self.variant, error)
        except NbimgError as error:
            self.task.failed(self.variant, error)
        except Exception as error:  # a defect here or in a plug-in must not cost the other tasks
            log.exception("task %s failed unexpectedly", self.task.planned.index)
            self.task.failed(self.variant, error)
        await self.run.report(self.task)

    async def _finish(self) -> None:
        batch = self.run.batch
        async with asyncio.timeout(None) as bound:
            async with self.run.lanes[self.backend.name].permit():
                if batch.timeout_s is not None:
                    bound.reschedule(asyncio.get_running_loop().time() + batch.timeout_s)
                self.run.start(self.task)
                told = self.run.waiting(self.task, "run")
                order, made = await retrying("run", self._ordered, batch.policy, told)
            began = time.monotonic()
            images = await self._downloaded(order, made)
            self.task.download_s = max(self.task.download_s, time.monotonic() - began)
            self.task.done(self.variant, images)
        await order.settle("done")

    async def _ordered(self) -> tuple[Order, Prediction]:
        """Order a job and wait for its success; one that failed for a passing reason may be run again."""
        at = time.time()
        order = Order(self.run, self.task, self.variant, self.call, self.backend)
        await order.intend()
        made = await order.wait(await order.create(), self.pace)
        error = made.error
        if made.state is not State.DONE:
            error = error or JobFailedError(
                "the job was cancelled at the provider.", job_id=order.job_id
            )
        elif not made.outputs:
            error = ReplyError("the job succeeded without an image.", job_id=order.job_id)
        if error is not None:
            self.task.tried("run", at, error, order.job_id)
            await order.settle("failed" if made.state is State.DONE else made.state.value)
            raise error
        return order, made

    async def _downloaded(self, order: Order, made: Prediction) -> list[ImageRecord]:
        """Fetch and save every output, in order."""
        if self.run.batch.url_only:
            return [
                ImageRecord(path=None, url=output.url, seed=self.call.seed)
                for output in made.outputs
                if output.url
            ]
        several = len(made.outputs) > 1
        saving = [
            self._saved(order, output, self.variant + place, several)
            for place, output in enumerate(made.outputs, 1)
        ]
        done = await asyncio.gather(*saving, return_exceptions=True)
        images = [record for record in done if isinstance(record, ImageRecord)]
        failure = next((error for error in done if isinstance(error, BaseException)), None)
        if failure is not None:
            if images:
                self.task.done(self.variant, images)
            raise failure
        return images

    async def _saved(self, order: Order, output: Output, number: int, several: bool) -> ImageRecord:
        async def fetch() -> ImageRecord:
            data = output.data
            if data is None:
                assert output.url is not None
                data = await self.backend.fetch(output.url)
            url = output.url if output.url and not output.url.startswith("data:") else None
            image = EncodedImage(data, seed=self.call.seed, url=url)
            try:
                return await self.run.save(self.task, self.call, image, number, several=several)
            except ImageInputError as error:
                # truncated or not an image: fetched again, not paid again
                raise ReplyError(
                    f"the image did not arrive whole: {error.message}",
                    backend=self.backend.name,
                    job_id=order.job_id,
                    transient=output.url is not None,
                ) from error

        return await order.tried("download", fetch)
