"""Call a pipeline for many images at once, each with a generator of its own.

Stage: below the local backend, on its worker thread. Comes in: calls that differ only in prompts, images
and seed. Goes out: pictures, as each micro-batch ends. Must not: load a pipeline, or let one
image that fails cost those that were made.

What a list of images means differs from class to class (`families`). Pairs of prompt and image share a call
when they are brought to one size; references of one prompt share one through copies of the prompt; all else
is called one by one. `num_images_per_prompt` is never used with a list, which pipelines pair wrongly.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from nbimg.backends.base import Call
from nbimg.errors import JobFailedError, NbimgError, ReplyError
from nbimg.events import Notice
from nbimg.local import arguments as told
from nbimg.local.adapters import applied
from nbimg.local.arguments import Bucket, Member
from nbimg.local.device import Device, needed, quiet
from nbimg.local.memory import Sizes, first_guess, first_line, forget, out_of_memory
from nbimg.local.steps import Report, Steps, StoppedError, Watch, network_of
from nbimg.local.threads import shared as shared_cores

__all__ = ["Bench", "Made", "StoppedError", "run"]

log = logging.getLogger("nbimg")

CPU = Device("cpu")
#: So many calls that fail in a row with the same words fail for all.
ENOUGH = 3


class Relieve(Protocol):
    """What makes room on a device."""

    def __call__(self, *, alone: bool) -> str | None:
        """Make room; `alone` for a single image, which may make the model slower from now on."""


def _no_relief(*, alone: bool) -> str | None:  # noqa: ARG001
    return None


@dataclass(frozen=True)
class Bench:
    """Where calls are run, and what is known from earlier ones.

    Attributes:
        device: Where.
        sizes: What was learned of micro-batches.
        key: Names the model, its number format and its device.
        relieve: Makes room (`alone`: for a single image): what it did, in words, or None.
        watch: Makes the previews; None: there are none.
    """

    device: Device = CPU
    sizes: Sizes = field(default_factory=Sizes)
    key: str = ""
    relieve: Relieve = _no_relief
    watch: Watch | None = None


@dataclass(frozen=True, slots=True)
class Made:
    """A picture that was made.

    Attributes:
        position: Of its call.
        image: Decoded.
        seed: That made it.
        peak_bytes: The most memory that its micro-batch took, the weights included.
        device_s: Its share of the seconds that its micro-batch took.
    """

    position: int
    image: Any
    seed: int | None
    peak_bytes: int
    device_s: float


@dataclass(frozen=True, slots=True)
class _Failure:
    """Why a call of the pipeline failed, in words; nothing of the call itself."""

    message: str
    memory: bool = False
    error: NbimgError | None = None


def run(
    pipe: Any,
    calls: Sequence[Call],
    defaults: Mapping[str, Any],
    size_px: tuple[int, int] | None,
    report: Report,
    stop: threading.Event,
    bench: Bench | None = None,
) -> Iterator[Made]:
    """Make one image a call.

    Args:
        pipe: The pipeline.
        calls: With equal arguments but for prompts, images, mask and seed.
        defaults: Arguments that hold where the calls say nothing.
        size_px: Width and height that input images are brought to; None: what suits each.
        report: Told about steps, with the position of a call.
        stop: Set by Stop; the pipeline is left before its next step.
        bench: Where, and what is known.

    Raises:
        StoppedError: After `stop`.
        JobFailedError: When the pipeline fails, or one image alone does not fit into memory.
        ReplyError: When it returns another number of images than it was asked for.
    """
    work = _Work(pipe, defaults, report, stop, bench or Bench())
    for bucket in told.buckets(pipe, calls, size_px):
        yield from work.through(bucket)
    if work.failures:  # the others are made all the same
        raise work.failures[0]


class _Work:
    """The calls of one run, bucket by bucket.

    Attributes:
        failures: Of calls that were made alone and failed.
    """

    def __init__(
        self,
        pipe: Any,
        defaults: Mapping[str, Any],
        report: Report,
        stop: threading.Event,
        bench: Bench,
    ) -> None:
        self._pipe, self._defaults = pipe, defaults
        self._report, self._stop, self._bench = report, stop, bench
        self._said: set[str] = set()
        self.failures: list[NbimgError] = []
        self._row = 0

    def through(self, bucket: Bucket) -> Iterator[Made]:
        """Make the images of a bucket, in micro-batches that fit."""
        left, alone = list(bucket.members), 0
        key = (self._bench.key, type(self._pipe).__name__, bucket.width, bucket.height)
        while left:
            size = 1 if alone else self._size(key, bucket, len(left))
            part = left[:size]
            outcome = self._tried(key, bucket, part)
            if not isinstance(outcome, _Failure):
                self._row, alone = 0, max(0, alone - 1)
                del left[:size]
                yield from outcome
            elif outcome.memory and not self._made_smaller(key, part):
                self.failures.append(self._too_large(key))
                return  # the others of this size are no smaller
            elif not outcome.memory and size > 1:
                alone = size  # one of them fails; the others shall not
            elif not outcome.memory:
                self._given_up(outcome)
                alone = max(0, alone - 1)
                del left[:1]

    def _size(self, key: tuple[Any, ...], bucket: Bucket, left: int) -> int:
        bench = self._bench
        if bucket.reading == "single":
            return 1
        first = first_guess(bench.device, _weights(self._pipe), bucket.width * bucket.height)
        return bench.sizes.size(key, left, first, bench.device.free_bytes())

    def _tried(
        self, key: tuple[Any, ...], bucket: Bucket, part: Sequence[Member]
    ) -> list[Made] | _Failure:
        """Make one micro-batch, and learn from it."""
        bench = self._bench
        if len(part) > 1 and getattr(self._pipe, "dtype", None) in _halves():
            self._say(part, "in half precision an image depends a little on its batch: no two "
                            "batch sizes give the same bytes.")  # fmt: skip
        bench.device.begin_peak()
        before, began = bench.device.used_bytes(), time.perf_counter()
        outcome = self._called(bucket, part)
        if isinstance(outcome, _Failure):
            return outcome
        images, steps = outcome
        bench.device.finish()
        seconds, peak = time.perf_counter() - began, bench.device.peak_bytes()
        if len(images) != len(part):
            raise ReplyError(
                f"{type(self._pipe).__name__} made {len(images)} images of {len(part)}.",
                backend="local",
            )
        bench.sizes.worked(key, len(part), seconds / max(1, steps), max(0, peak - before))
        return [
            Made(position, image, call.seed, peak, seconds / len(part))
            for (position, call), image in zip(part, images, strict=True)
        ]

    def _called(self, bucket: Bucket, part: Sequence[Member]) -> tuple[list[Any], int] | _Failure:
        """Call the pipeline once; whatever it raises becomes words, and nothing of it is kept."""
        pipe, failure, stopped = self._pipe, None, False
        torch, _ = needed()
        steps = Steps(pipe, part, self._report, self._stop, bucket, self._bench.watch)
        # hooks that move weights would make tensors that nobody may change any more
        moved = bool(getattr(pipe, "_all_hooks", None)) or hasattr(network_of(pipe), "_hf_hook")
        try:
            with contextlib.ExitStack() as around:
                shared = around.enter_context(applied(pipe, bucket.shared))
                given, lost = told.arguments(pipe, bucket, part, {**self._defaults, **shared})
                for line in lost:
                    self._say(part, line)
                around.enter_context(steps.counted(given))
                if self._bench.device.kind == "cpu":
                    around.enter_context(shared_cores(torch))
                around.enter_context(torch.no_grad() if moved else torch.inference_mode())
                around.enter_context(quiet())  # a long prompt would be printed whole
                images = list(pipe(**given).images)
        except StoppedError as error:
            stopped = True
            forget(error)
        except NbimgError as error:
            failure = _Failure(error.message, error=error)
            forget(error)
        except Exception as error:  # whatever the libraries below raise
            log.debug("%s", "".join(traceback.format_exception(error)))
            failure = _Failure(first_line(error), memory=out_of_memory(error))
            forget(error)
        if failure is None and not stopped:
            return images, steps.total
        self._clean()
        if stopped:
            raise StoppedError
        assert failure is not None
        return failure

    def _clean(self) -> None:
        """Bring a pipeline that was left in the middle back to where the next call can begin."""
        pipe = self._pipe
        with contextlib.suppress(AttributeError):
            pipe.maybe_free_model_hooks()  # a call that ends does it itself
        scheduler = getattr(pipe, "scheduler", None)
        if scheduler is not None:  # it keeps tensors of the call, and where it stood
            pipe.scheduler = type(scheduler).from_config(scheduler.config)
        self._bench.device.release()

    def _made_smaller(self, key: tuple[Any, ...], part: Sequence[Member]) -> bool:
        """After running out of memory: make room, halve the micro-batch, make the model smaller."""
        sizes, number = self._bench.sizes, len(part)
        done = self._bench.relieve(alone=number == 1)
        if done is None and number > 1:
            sizes.failed(key, number)
            done = f"going on with {sizes.limit(key)} at once"
        if done is not None:
            images = f"{number} images" if number > 1 else "one image"
            self._say(part, f"out of memory with {images}: {done}.")
        return done is not None

    def _too_large(self, key: tuple[Any, ...]) -> NbimgError:
        return JobFailedError(
            f"one image of {key[2]}x{key[3]} does not fit into the memory of "
            f"{self._bench.device.name}.",
            hint="Take a smaller --size or a smaller model, or free memory: "
            "%imgmodels --unload all, other kernels.",
            backend="local",
        )

    def _given_up(self, failure: _Failure) -> None:
        """Keep why a call failed; raise it at once when it is plain that all will."""
        error = failure.error or JobFailedError(
            f"{type(self._pipe).__name__} failed: {failure.message}", backend="local"
        )
        same = bool(self.failures) and self.failures[-1].message == error.message
        self._row = self._row + 1 if same else 1
        self.failures.append(error)
        if self._row >= ENOUGH:
            raise error

    def _say(self, part: Sequence[Member], line: str) -> None:
        if line not in self._said:
            self._said.add(line)
            self._report(part[0][0], Notice(text=line))


def _weights(pipe: Any) -> int:
    network = network_of(pipe)
    return sum(one.numel() for one in network.parameters()) if network is not None else 1 << 40


def _halves() -> tuple[Any, ...]:
    torch, _ = needed()
    return (torch.float16, torch.bfloat16)
