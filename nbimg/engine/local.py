"""Run local calls that can share one call of a pipeline: each image is saved as it is ready.

Stage: a worker of the engine. Comes in: calls with the same share key. Goes out: files and results.
Must not: let one image that cannot be saved cost another.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field, replace

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


@dataclass(slots=True)
class _Use:
    """How long a device works for one call.

    Attributes:
        at_utc: When it had its turn, Unix time in seconds.
        counted_s: What is on the account of pictures that were made, in seconds.
    """

    at_utc: float = field(default_factory=time.time)
    counted_s: float = 0.0

    def begin(self) -> None:
        """The call has its turn."""
        self.at_utc = time.time()

    def made(self, image: EncodedImage) -> float:
        """Return what a picture took: by its backend's count, else since the one before."""
        took_s = image.device_s or self.rest(1)
        self.counted_s += took_s
        return took_s

    def rest(self, parts: int) -> float:
        """Return what each of so many that were not made has to bear of the rest."""
        return max(0.0, time.time() - self.at_utc - self.counted_s) / max(1, parts)


async def run_local(
    run: BatchRun, backend: LocalBackend, members: Sequence[Member]
) -> list[tuple[Member, Exception]]:
    """Make the images of `members` in one call; each is written down as it is on disk.

    Returns:
        The members that were not made, each with the reason.
    """
    use = _Use()
    failure: Exception

    try:
        async for position, image in _generated(run, backend, members, use):
            await _keep(run, use, members[position], image)
    except asyncio.CancelledError as error:
        _write_off(members, use, error)
        raise
    except NbimgError as error:
        failure = error
    except Exception as error:  # a defect in a plug-in must not cost the other tasks
        log.exception("%s failed unexpectedly", backend.name)
        failure = error
    else:
        failure = ReplyError(f"{backend.name} made fewer images than it was asked for.")
    return [(member, failure) for member in _write_off(members, use, failure)]


def _write_off(members: Sequence[Member], use: _Use, error: BaseException) -> list[Member]:
    """Write down that the members that are left were not made; return them."""
    left = [member for member in members if member[1] in member[0].open_variants()]
    each_s = use.rest(len(left))
    for task, _, call in left:
        task.tried(call.ref.full, "local", use.at_utc, error, None, took_s=each_s)
    return left


async def make_alone(
    run: BatchRun, backend: LocalBackend, member: Member
) -> tuple[ImageRecord, ...]:
    """Make the images of one call.

    Raises:
        NbimgError: When it fails.
    """
    task, variant, call = member
    use, images = _Use(), []
    try:
        async for _, image in _generated(run, backend, [member], use):
            images.append(await run.save(task, call, image, variant + 1))
            _count(use, member, image)
    except (NbimgError, asyncio.CancelledError) as error:
        _write_off([member], use, error)
        raise
    if not images:
        raise ReplyError(f"{backend.name} made fewer images than it was asked for.")
    return tuple(images)


async def _generated(
    run: BatchRun, backend: LocalBackend, members: Sequence[Member], use: _Use
) -> AsyncIterator[tuple[int, EncodedImage]]:
    """Hold the permit, keep to the time-out, and tell what happens."""

    def report(position: int, event: Event) -> None:
        task, variant, _ = members[position]
        if isinstance(event, Preview | Step):
            event = replace(event, variant=variant)
        run.emit(replace(event, task=task.planned.index))

    async with run.lane(backend).permit(run.held_up):
        use.begin()
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


def _count(use: _Use, member: Member, image: EncodedImage, error: NbimgError | None = None) -> None:
    """Write down what a picture took; `error` where it could not be kept."""
    task, _, call = member
    peak, took_s = image.peak_memory_bytes, use.made(image)
    task.tried(call.ref.full, "local", use.at_utc, error, None, peak, took_s)


async def _keep(run: BatchRun, use: _Use, member: Member, image: EncodedImage) -> None:
    task, variant, call = member
    try:
        record = await run.save(task, call, image, variant + 1)
    except NbimgError as error:
        _count(use, member, image, error)
        task.failed(variant, error)
    else:
        _count(use, member, image)
        task.done(variant, [record])
    await run.report(task)
