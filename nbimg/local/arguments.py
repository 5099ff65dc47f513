"""What a pipeline is told: which calls share one of it, at which size, under which arguments.

Stage: beside batching. Comes in: calls, and a pipeline. Goes out: buckets of calls of one size, and the
arguments of each. Must not: run a pipeline, or stretch a picture.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nbimg.backends.base import Call
from nbimg.errors import JobFailedError
from nbimg.local.device import needed
from nbimg.local.families import Family, Reading, family_of
from nbimg.media import pixels
from nbimg.types import InputImage

__all__ = ["Bucket", "Member", "arguments", "buckets"]

#: A call and its position in what was asked for.
Member = tuple[int, Call]

#: Arguments of single calls, which may differ within a bucket.
_OWN = ("seed", "negative_prompt", "width", "height")
_MEGAPIXEL = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Bucket:
    """Calls that may share calls of the pipeline.

    Attributes:
        members: In order.
        reading: `pairs`: a list of prompts, and of images; `references`: copies of one prompt, which sees
            all images; `single`: one at a time.
        width: Of the images that are made, in pixels, as far as is known.
        height: The same.
        resized: Whether input images are brought to that size.
        sized: Whether the pipeline is told the size.
        shared: The arguments that all have in common, under the pipeline's names.
    """

    members: tuple[Member, ...]
    reading: Reading
    width: int
    height: int
    resized: bool
    sized: bool
    shared: Mapping[str, Any]


def buckets(pipe: Any, calls: Sequence[Call], size_px: tuple[int, int] | None) -> Iterator[Bucket]:
    """Sort calls into buckets; within one, and between them, the order of the calls is kept.

    Args:
        pipe: The pipeline.
        calls: With equal arguments but for prompts, images, mask, size and seed.
        size_px: The only width and height that the model makes; None: any.
    """
    family = family_of(type(pipe).__name__)
    found: dict[tuple[Any, ...], list[Member]] = {}
    for position, call in enumerate(calls):
        asked = _asked(call)
        composed = bool(call.images) and family.reading == "references"
        target = None
        if call.images and not composed:
            target = size_px or _target(pipe, family, call.images[0], asked)
        elif not call.images and size_px is not None:
            target = size_px
        apart: tuple[Any, ...] = ()
        if composed:  # one prompt and its references, however many images of it
            shas = tuple(image.sha256 for image in call.images)
            apart = (call.prompt, call.arguments.get("negative_prompt"), shas)
        elif call.images and len(call.images) > 1:
            raise JobFailedError(
                f"{type(pipe).__name__} does not combine {len(call.images)} images.",
                hint="Leave --combine out to edit each.",
                backend="local",
            )
        found.setdefault((target, asked, *apart), []).append((position, call))
    for (target, asked, *_), members in found.items():
        first = members[0][1]
        reading: Reading = family.reading if first.images else _making(family)
        width, height = target or asked or _native(pipe)
        yield Bucket(
            tuple(members),
            reading,
            width,
            height,
            resized=bool(first.images) and target is not None,
            sized=asked is not None or (target is not None and size_px is None),
            shared={k: v for k, v in first.arguments.items() if k not in _OWN},
        )


def arguments(
    pipe: Any, bucket: Bucket, part: Sequence[Member], shared: Mapping[str, Any]
) -> tuple[dict[str, Any], list[str]]:
    """Return what the pipeline is called with for a part of a bucket, and what was left out.

    Args:
        pipe: The pipeline.
        bucket: The bucket.
        part: Some of its calls.
        shared: Arguments that hold for all of them, defaults included.
    """
    family = family_of(type(pipe).__name__)
    taken = inspect.signature(pipe.__call__).parameters
    calls = [call for _, call in part]
    lost = [
        f"{type(pipe).__name__} takes no {name}: dropped."
        for name in bucket.shared
        if name not in taken and name in shared
    ]
    given = {name: value for name, value in shared.items() if name in taken}
    alone, copies = bucket.reading == "single", bucket.reading == "references"
    one = alone or copies
    given["prompt"] = calls[0].prompt if one else [call.prompt for call in calls]
    torch, _ = needed()
    generators = [torch.Generator("cpu").manual_seed(call.seed or 0) for call in calls]
    given["generator"] = generators[0] if alone else generators
    if copies:
        given["num_images_per_prompt"] = len(calls)
    if (negatives := _negatives(calls, given, taken, family, lost)) is not None:
        given["negative_prompt"] = negatives[0] if one else negatives
    if bucket.sized and {"width", "height"} <= taken.keys():
        given |= {"width": bucket.width, "height": bucket.height}
        if family.exact:
            exact = {"max_area": bucket.width * bucket.height, "_auto_resize": False}
            given |= {name: value for name, value in exact.items() if name in taken}
    if calls[0].images:
        given |= _pictures(bucket, calls, taken, family)
    return given, lost


def _pictures(
    bucket: Bucket, calls: Sequence[Call], taken: Collection[str], family: Family
) -> dict[str, Any]:
    """The input images and masks, decoded, as the class wants them."""
    size = (bucket.width, bucket.height) if bucket.resized else None
    if bucket.reading == "references":
        several: Any = [_picture(image, None) for image in calls[0].images]
        given = {family.image: [several] if family.nested else several}
    else:
        pictures = [_picture(call.images[0], size) for call in calls]
        given = {family.image: pictures if len(pictures) > 1 else pictures[0]}
    masks = [_picture(call.mask, size, "L") for call in calls if call.mask is not None]
    if masks and "mask_image" in taken:
        given["mask_image"] = masks if len(masks) > 1 else masks[0]
    return given


def _making(family: Family) -> Reading:
    """How a class is called that makes from text alone: lists of prompts are lists everywhere."""
    return "single" if family.reading == "single" else "pairs"


def _negatives(
    calls: Sequence[Call],
    given: Mapping[str, Any],
    taken: Mapping[str, inspect.Parameter],
    family: Family,
    lost: list[str],
) -> list[str] | None:
    """The negative prompts; one of a blank where guidance would have no effect without."""
    own = [call.arguments.get("negative_prompt") for call in calls]
    any_given = any(text is not None for text in own)
    if "negative_prompt" not in taken:
        if any_given:
            lost.append("the pipeline takes no negative prompt: dropped.")
        return None
    if not family.negative:
        return [text or "" for text in own] if any_given else None
    scale = given.get("true_cfg_scale", taken["true_cfg_scale"].default)
    if (scale or 1) > 1:
        return [text or " " for text in own]
    if any_given:
        lost.append("a negative prompt has no effect here without -p true_cfg_scale=4.")
    return None


def _asked(call: Call) -> tuple[int, int] | None:
    width, height = call.arguments.get("width"), call.arguments.get("height")
    return (int(width), int(height)) if width and height else None


def _target(
    pipe: Any, family: Family, image: InputImage, asked: tuple[int, int] | None
) -> tuple[int, int]:
    """The size of an edited picture: what was asked, else the model's own area in the picture's shape."""
    processor = getattr(getattr(pipe, "image_processor", None), "config", None)
    own: Any = getattr(processor, "vae_scale_factor", None)
    multiple = family.multiple or int(own or getattr(pipe, "vae_scale_factor", 8))
    if asked is not None:
        width, height = asked
        return _rounded(width, multiple), _rounded(height, multiple)
    area = family.area_px or math.prod(_native(pipe))
    scale = math.sqrt(area / (image.width * image.height))
    return _rounded(image.width * scale, multiple), _rounded(image.height * scale, multiple)


def _rounded(side: float, multiple: int) -> int:
    return max(multiple, round(side / multiple) * multiple)


def _native(pipe: Any) -> tuple[int, int]:
    """The width and height that a model was trained for; a megapixel where it does not tell."""
    network = getattr(pipe, "unet", None) or getattr(pipe, "transformer", None)
    sample = getattr(pipe, "default_sample_size", None)
    sample = sample or getattr(getattr(network, "config", None), "sample_size", None)
    if not sample:
        side = math.isqrt(_MEGAPIXEL)
        return side, side
    rows, columns = sample if isinstance(sample, list | tuple) else (sample, sample)
    factor = int(getattr(pipe, "vae_scale_factor", 8))
    return int(columns) * factor, int(rows) * factor


def _picture(source: InputImage, size_px: tuple[int, int] | None, mode: str = "RGB") -> Any:
    """The input image; where it has to have a size, its middle in that shape, not stretched."""
    image = pixels.decode(Path(source.path).read_bytes(), name=source.source or source.path)
    image = image.convert(mode)
    if size_px is None or image.size == size_px:
        return image
    scale = max(size_px[0] / image.width, size_px[1] / image.height)
    grown = image.resize(
        (
            max(size_px[0], round(image.width * scale)),
            max(size_px[1], round(image.height * scale)),
        )
    )
    left, top = (grown.width - size_px[0]) // 2, (grown.height - size_px[1]) // 2
    return grown.crop((left, top, left + size_px[0], top + size_px[1]))
