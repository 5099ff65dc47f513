"""Call a pipeline for many images at once, each with a generator of its own.

Stage: below the local backend, on its worker thread. Comes in: calls that can share a call of the
pipeline. Goes out: encoded images, in the order of the calls, as each micro-batch ends. Must not: load
a pipeline, or decide which calls share one.

What a list of images means differs from pipeline to pipeline, and two wrong readings are silent, so
only classes that are known to take them one for each prompt get a list; any other is called image by
image. `num_images_per_prompt` is never used with a list: pipelines pair those wrongly.
"""

from __future__ import annotations

import inspect
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from nbimg import pixels
from nbimg.backends.base import Call
from nbimg.errors import JobFailedError, ReplyError
from nbimg.events import Event, Step
from nbimg.local.pipelines import needed, quiet
from nbimg.types import EncodedImage

__all__ = ["StoppedError", "run"]

#: Pipelines in which `prompt=[…], image=[…]` are pairs, tried by test.
PAIRS = frozenset({"StableDiffusionInstructPix2PixPipeline"})
#: Largest micro-batch of a model below this many parameters; larger models go one by one.
SMALL_PARAMETERS = 200_000_000
SMALL_BATCH = 8


class StoppedError(Exception):
    """Raised inside a pipeline to leave it between two steps."""


def run(
    pipe: Any,
    calls: Sequence[Call],
    defaults: Mapping[str, Any],
    size_px: tuple[int, int] | None,
    report: Callable[[int, Event], None],
    stop: threading.Event,
) -> Iterator[tuple[int, EncodedImage]]:
    """Make one image a call.

    Args:
        pipe: The pipeline.
        calls: With equal arguments but for prompt, image and seed.
        defaults: Arguments that hold where the calls say nothing.
        size_px: Width and height that input images are brought to; None: as they are.
        report: Told about steps, with the position of a call.
        stop: Set by Stop; the pipeline is left before its next step.

    Raises:
        StoppedError: After `stop`.
        JobFailedError: When the pipeline fails.
        ReplyError: When it returns another number of images than it was asked for.
    """
    editing = bool(calls[0].images)
    size = _micro_batch(pipe) if not editing or type(pipe).__name__ in PAIRS else 1
    for start in range(0, len(calls), size):
        part = list(enumerate(calls))[start : start + size]

        def step(done: int, total: int, part: Sequence[tuple[int, Call]] = part) -> None:
            if stop.is_set():
                raise StoppedError
            for position, _ in part:
                report(position, Step(done=done, total=total))

        images = _call(pipe, [call for _, call in part], defaults, size_px, step)
        if len(images) != len(part):
            raise ReplyError(
                f"{type(pipe).__name__} made {len(images)} images of {len(part)}.", backend="local"
            )
        for (position, call), image in zip(part, images, strict=True):
            data = pixels.encode(image, "image/png")
            yield position, EncodedImage(data, seed=call.seed, encoded_here=True)


def _micro_batch(pipe: Any) -> int:
    network = getattr(pipe, "unet", None) or getattr(pipe, "transformer", None)
    count = sum(weight.numel() for weight in network.parameters()) if network is not None else None
    return SMALL_BATCH if count is not None and count < SMALL_PARAMETERS else 1


def _call(
    pipe: Any,
    calls: Sequence[Call],
    defaults: Mapping[str, Any],
    size_px: tuple[int, int] | None,
    step: Callable[[int, int], None],
) -> Sequence[Any]:
    torch, _ = needed()
    taken = inspect.signature(pipe.__call__).parameters
    arguments = {**defaults, **{k: v for k, v in calls[0].arguments.items() if k != "seed"}}
    if "negative_prompt" in arguments:
        arguments["negative_prompt"] = [arguments["negative_prompt"]] * len(calls)
    arguments = {name: value for name, value in arguments.items() if name in taken}
    total = int(arguments.get("num_inference_steps") or taken["num_inference_steps"].default)
    if "callback_on_step_end" in taken:

        def on_step(_: Any, index: int, __: Any, values: dict[str, Any]) -> dict[str, Any]:
            step(index + 1, total)
            return values

        arguments["callback_on_step_end"] = on_step
    if calls[0].images:
        pictures = [_picture(call, size_px) for call in calls]
        arguments["image"] = pictures if len(pictures) > 1 else pictures[0]
    step(0, total)
    generators = [torch.Generator("cpu").manual_seed(call.seed or 0) for call in calls]
    try:
        with torch.inference_mode(), quiet():  # a long prompt would be printed whole
            out = pipe(prompt=[call.prompt for call in calls], generator=generators, **arguments)
    except StoppedError:
        raise
    except (RuntimeError, ValueError, TypeError, IndexError) as error:
        line = (str(error).splitlines() or [type(error).__name__])[0]
        raise JobFailedError(f"{type(pipe).__name__} failed: {line}", backend="local") from error
    return list(out.images)


def _picture(call: Call, size_px: tuple[int, int] | None) -> Any:
    """The input image as RGB; for a model with one size, its middle in that shape, not stretched."""
    source = call.images[0]
    image = pixels.decode(Path(source.path).read_bytes(), name=source.source or source.path)
    image = image.convert("RGB")
    if size_px is None or image.size == size_px:
        return image
    scale = max(size_px[0] / image.width, size_px[1] / image.height)
    grown = image.resize((round(image.width * scale), round(image.height * scale)))
    left, top = (grown.width - size_px[0]) // 2, (grown.height - size_px[1]) // 2
    return grown.crop((left, top, left + size_px[0], top + size_px[1]))
