"""Run local calls that can share one call of a pipeline: each image is saved as it is ready.

Stage: a worker of the engine. Comes in: calls with the same share key. Goes out: files and results.
Must not: let one image that cannot be saved cost another.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence
from dataclasses import replace

from nbimg.backends.base import Call, LocalBackend
from nbimg.engine.batch import BatchRun
from nbimg.engine.task import Task
from nbimg.errors import JobFailedError, NbimgError, ReplyError
from nbimg.events import Event
from nbimg.types import EncodedImage

__all__ = ["Member", "run_local"]

log = logging.getLogger("nbimg")

#: A task, the 0-based number of a call in it, and the call.
Member = tuple[Task, int, Call]


async def run_local(run: BatchRun, backend: LocalBackend, members: Sequence[Member]) -> None:
    """Make the images of `members` in one call; every way it can end is written down."""
    at = time.time()
    failure: Exception

    def report(position: int, event: Event) -> None:
        run.emit(replace(event, task=members[position][0].planned.index))

    try:
        async with run.lanes[backend.name].permit():
            for task, _, _ in members:
                run.start(task)
            async with asyncio.timeout(run.batch.timeout_s):
                async for position, image in backend.generate([m[2] for m in members], report):
                    await _keep(run, at, members[position], image)
    except TimeoutError:
        failure = JobFailedError(
            f"not finished within the time-out of {run.batch.timeout_s or 0:g} s.",
            backend=backend.name,
        )
    except NbimgError as error:
        failure = error
    except Exception as error:  # a defect in a plug-in must not cost the other tasks
        log.exception("%s failed unexpectedly", backend.name)
        failure = error
    else:
        failure = ReplyError(f"{backend.name} made fewer images than it was asked for.")
    for task, variant, _ in members:
        if variant in task.open_variants():
            task.tried("local", at, failure, None)
            task.failed(variant, failure)
            await run.report(task)


async def _keep(run: BatchRun, at: float, member: Member, image: EncodedImage) -> None:
    task, variant, call = member
    try:
        record = await run.save(task, call, image, variant + 1)
    except NbimgError as error:
        task.tried("local", at, error, None)
        task.failed(variant, error)
    else:
        task.tried("local", at, None, None)
        task.done(variant, [record])
    await run.report(task)
