"""Run local calls that can share one call of a pipeline: each image is saved as it is ready.

Stage: a worker of the engine. Comes in: calls with the same share key. Goes out: files and results.
Must not: let one image that cannot be saved cost another.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace

from nbimg.backends.base import Call, LocalBackend
from nbimg.engine.batch import BatchRun
from nbimg.engine.task import Task
from nbimg.errors import JobFailedError, NbimgError, ReplyError
from nbimg.events import Event, Preview, Step
from nbimg.types import EncodedImage, ImageRecord

__all__ = ["Member", "make_alone", "run_local"]

log = logging.getLogger("nbimg")

#: A task, the 0-based number of a call in it, and the call.
Member = tuple[Task, int, Call]


async def run_local(
    run: BatchRun, backend: LocalBackend, members: Sequence[Member]
) -> list[tuple[Member, Exception]]:
    """Make the images of `members` in one call; each is written down as it is on disk.

    Returns:
        The members that were not made, each with the reason.
    """
    at = time.time()
    failure: Exception

    try:
        async for position, image in _generated(run, backend, members):
            await _keep(run, at, members[position], image)
    except NbimgError as error:
        failure = error
    except Exception as error:  # a defect in a plug-in must not cost the other tasks
        log.exception("%s failed unexpectedly", backend.name)
        failure = error
    else:
        failure = ReplyError(f"{backend.name} made fewer images than it was asked for.")
    left = [member for member in members if member[1] in member[0].open_variants()]
    for task, _, call in left:
        task.tried(call.ref.full, "local", at, failure, None)
    return [(member, failure) for member in left]


async def make_alone(
    run: BatchRun, backend: LocalBackend, member: Member
) -> tuple[ImageRecord, ...]:
    """Make the images of one call.

    Raises:
        NbimgError: When it fails.
    """
    task, variant, call = member
    images = [
        await run.save(task, call, image, variant + 1)
        async for _, image in _generated(run, backend, [member])
    ]
    if not images:
        raise ReplyError(f"{backend.name} made fewer images than it was asked for.")
    return tuple(images)


async def _generated(
    run: BatchRun, backend: LocalBackend, members: Sequence[Member]
) -> AsyncIterator[tuple[int, EncodedImage]]:
    """Hold the permit, keep to the time-out, and tell what happens."""

    def report(position: int, event: Event) -> None:
        task, variant, _ = members[position]
        if isinstance(event, Preview | Step):
            event = replace(event, variant=variant)
        run.emit(replace(event, task=task.planned.index))

    async with run.lane(backend).permit(run.held_up):
        for task, _, _ in members:
            run.start(task)
        limit_s, loop = run.batch.timeout_s, asyncio.get_running_loop()
        try:
            async with asyncio.timeout(limit_s) as bound:
                async for position, image in backend.generate([m[2] for m in members], report):
                    yield position, image
                    if limit_s is not None:  # each picture has the time, not all of them together
                        bound.reschedule(loop.time() + limit_s)
        except TimeoutError:
            raise JobFailedError(
                f"not finished within the time-out of {run.batch.timeout_s or 0:g} s.",
                backend=backend.name,
            ) from None


async def _keep(run: BatchRun, at: float, member: Member, image: EncodedImage) -> None:
    task, variant, call = member
    try:
        record = await run.save(task, call, image, variant + 1)
    except NbimgError as error:
        task.tried(call.ref.full, "local", at, error, None)
        task.failed(variant, error)
    else:
        task.tried(call.ref.full, "local", at, None, None, image.peak_memory_bytes)
        task.done(variant, [record])
    await run.report(task)
