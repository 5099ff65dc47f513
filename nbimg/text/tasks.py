"""A task's dict, with the names that people bring along → a `Request`.

Stage: beside `expand`, before planning. Comes in: dicts, texts and `Request`s, and the options of their
call. Goes out: `Request`s in the same order. Must not: read a file or a cell (`tasklist` does), resolve
an image, or know a model.

The keys are the fields of `Request`; `_BROUGHT` lists the other names for them. Capitals, blanks and
hyphens in a key do not matter. Beyond other names:

- `width` and `height` are a `size`.
- `resolution` is an aspect ratio (`16:9`), or a size where it is written `1024x768`, or `1024:768` as
  Tencent does: both numbers are 64 or more.
- `style` is added to the prompt, `a car` and `watercolor` giving `a car, watercolor`, since every model
  reads that. The style field of a model that has one goes into `params`.
- `kwargs` is joined with `params`.
- None, an empty text (but for a negative prompt, which may be wanted empty) and the NaN or NA of a table
  are fields that were not given. Numbers may be texts.
"""

from __future__ import annotations

import reprlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from typing import Any

from nbimg.errors import InputError, OptionError, UnknownNameError
from nbimg.text import kinds
from nbimg.text.options import find_names
from nbimg.types import Request

__all__ = ["NAMES", "TEXTS", "key_of", "read_task", "requests_of", "spread_seeds"]

#: Field → what else people call it.
_BROUGHT: Mapping[str, tuple[str, ...]] = {
    "model": ("model_name", "model_id"),
    "n": ("num_outputs", "num_images", "num_images_per_prompt"),
    "ar": ("aspect_ratio",),
    "negative": ("negative_prompt",),
    "steps": ("num_inference_steps",),
    "guidance": ("guidance_scale", "cfg_scale"),
    "strength": ("prompt_strength", "denoising_strength"),
    "image": (
        "images", "image_path", "image_paths", "image_url", "image_urls", "input_image",
        "input_images", "reference_images",
    ),
    "mask": ("mask_image", "mask_path"),
    "lora": ("loras",),
    "scheduler": ("sampler",),
    "params": ("kwargs",),
    "output": ("output_filename", "output_path", "output_filepath", "filename", "file_name"),
    "task_id": ("id",),
}  # fmt: skip
_FIELD = {spec.name: spec.name for spec in fields(Request)} | {
    brought: name for name, others in _BROUGHT.items() for brought in others
}
#: Every key that a task may have.
NAMES = (*_FIELD, "resolution", "width", "height", "style")
#: Keys whose value is the text as typed, whatever a format takes it for.
TEXTS = frozenset(["style", *(key for key, name in _FIELD.items() if name in kinds.TEXT_FIELDS)])


def key_of(key: Any) -> str:
    """Return a key as the tables here write it.

    >>> key_of("Negative Prompt")
    'negative_prompt'
    """
    return str(key).strip().lower().replace(" ", "_").replace("-", "_")


def read_task(data: Mapping[Any, Any], *, where: str = "") -> dict[str, Any]:
    """Turn a task's dict into fields of `Request`.

    >>> read_task({"prompt": "a car", "output_filename": "car.jpg", "num_outputs": "2"})
    {'prompt': 'a car', 'output': 'car.jpg', 'n': 2}

    Args:
        data: What a person or a table holds for one task.
        where: What errors call it, for example `task 3`.

    Returns:
        The fields that are given, checked one by one but for the ranges of numbers.

    Raises:
        UnknownNameError: When a key is no name of a field; it names the nearest.
        OptionError: When a value is of the wrong kind, or two names of one field disagree.
    """
    given = _given(data, where)
    values: dict[str, Any] = {}
    said: dict[str, Any] = {}  # field → the key that said it, for errors
    for key, (typed, value) in given.items():
        if key in _FIELD:
            _put(values, said, _FIELD[key], typed, _read(_FIELD[key], typed, value, where), where)
    if "resolution" in given:
        typed, value = given["resolution"]
        name, shape = _read("resolution", typed, value, where)
        _put(values, said, name, typed, shape, where)
    sides = [side for side in ("width", "height") if side in given]
    if len(sides) == 1:
        missing = "height" if sides == ["width"] else "width"
        raise OptionError(_at(where, f"there is a {sides[0]}, but no {missing}."))
    if sides:
        width, height = (_read("steps", given[side][0], given[side][1], where) for side in sides)
        size = _read("size", "size", f"{width}x{height}", where)
        _put(values, said, "size", given["width"][0], size, where)
    if "style" in given:
        style = _read("prompt", *given["style"], where)
        values["prompt"] = ", ".join(filter(str.strip, (values.get("prompt", ""), style)))
    return values


def requests_of(
    tasks: Iterable[Any], defaults: Mapping[str, Any], *, images_follow: bool = False
) -> list[Request]:
    """Build the requests of a list of tasks.

    Args:
        tasks: Texts, dicts and `Request`s.
        defaults: Fields of `Request` that hold where a task has none of its own; `params` are
            joined. A tuple of one model is that model.
        images_follow: Whether every request gets an image later, so that a dict needs no prompt.

    Raises:
        InputError: When a task cannot be read; with its number, when there are several.
    """
    items = list(tasks)
    shared = dict(defaults)
    models = shared.get("model")
    if isinstance(models, list | tuple):
        if len(models) > 1:
            raise OptionError(
                f"a list of tasks has one model, not {', '.join(map(str, models))}.",
                hint="Give each task its own: model is a key.",
            )
        shared["model"] = models[0] if models else None
    shared = {
        name: _read(name, name, _unboxed(value), "")
        for name, value in shared.items()
        if value is not None
    }
    return [
        _request(item, shared, images_follow, f"task {number}" if len(items) > 1 else "")
        for number, item in enumerate(items, 1)
    ]


def spread_seeds(requests: Sequence[Request], seeds: Iterable[Any]) -> list[Request]:
    """Give every request one seed of a list; a request that has its own keeps it.

    Raises:
        OptionError: When there are more or fewer seeds than requests, or one is no whole number.
    """
    own = list(seeds)
    if len(own) != len(requests):
        tasks = f"{len(requests)} task{'s' * (len(requests) != 1)}"
        raise OptionError(
            f"{tasks} cannot share {len(own)} seed{'s' * (len(own) != 1)}.",
            hint="Give one seed for all, or one for each task.",
        )
    return [
        request.but(seed=_read("seed", "seed", kinds.plain(seed), f"task {number}"))
        if request.seed is None
        else request
        for number, (request, seed) in enumerate(zip(requests, own, strict=True), 1)
    ]


def _request(item: Any, defaults: Mapping[str, Any], images_follow: bool, where: str) -> Request:
    if isinstance(item, Request):
        if not defaults:
            return item
        own = {
            spec.name: getattr(item, spec.name)
            for spec in fields(item)
            if not _is_default(spec.name, getattr(item, spec.name))
        }
    elif isinstance(item, str):
        own = {"prompt": item}
    elif isinstance(item, Mapping):
        own = read_task(item, where=where)
    else:
        what = f"{reprlib.repr(item)} is neither a text, a dict nor a Request."
        raise InputError(_at(where, what))
    values = {**defaults, **own}
    if "params" in defaults and "params" in own:
        values["params"] = {**defaults["params"], **own["params"]}
    if "ar" in own and "size" not in own:
        values.pop("size", None)  # where both stand, the size wins: the call's over the task's
    try:
        request = Request(**{"prompt": "", **values})
    except OptionError as error:  # a range
        raise OptionError(_at(where, error.message), hint=error.hint) from None
    missing = isinstance(item, Mapping) and not request.prompt.strip()
    if missing and not (images_follow or request.image or "prompt" in request.params):
        raise InputError(f"{where or 'the task'} has no prompt.", hint="Its key is prompt.")
    return request


_BLANK = Request("")


def _is_default(name: str, value: Any) -> bool:
    """Whether a field has its default; an array, which compares piece by piece, has not."""
    blank = getattr(_BLANK, name)
    return name != "prompt" and type(value) is type(blank) and bool(value == blank)


def _given(data: Mapping[Any, Any], where: str) -> dict[str, tuple[Any, Any]]:
    """Return what a task says: key of `NAMES` → the key as typed, and the value."""
    given: dict[str, tuple[Any, Any]] = {}
    for typed, held in data.items():
        key, value = key_of(typed), kinds.plain(held)
        if key not in NAMES:
            raise _unknown(key, str(typed), where)
        blank = isinstance(value, str) and value == ""
        if value is None or (blank and _FIELD.get(key) != "negative"):
            continue
        if key in given and not _same(given[key][1], value):
            raise _torn(given[key][0], typed, where)
        given[key] = (typed, value)
    return given


def _same(one: Any, other: Any) -> bool:
    """Whether two values are equal; what cannot say so, as arrays, is not."""
    try:
        return one is other or bool(one == other)
    except (TypeError, ValueError):
        return False


def _put(
    values: dict[str, Any], said: dict[str, Any], name: str, typed: Any, value: Any, where: str
) -> None:
    before = values.get(name, value)
    if name == "params" and name in values:
        if any(key in value and not _same(before[key], value[key]) for key in before):
            raise _torn(said[name], typed, where)
        value = {**before, **value}
    elif not _same(before, value):
        raise _torn(said[name], typed, where)
    values[name] = value
    said.setdefault(name, typed)


def _at(where: str, message: str) -> str:
    return f"{where}: {message}" if where else message


def _torn(one: Any, other: Any, where: str) -> OptionError:
    message = f"{str(one)!r} and {str(other)!r} say different things."
    return OptionError(_at(where, message), hint="Keep one of them.")


def _unknown(key: str, typed: str, where: str) -> InputError:
    if key in find_names("call"):
        message = f"{key} holds for the whole call."
        return OptionError(_at(where, message), hint="Give it there, not in a task.")
    return UnknownNameError(
        "key", typed, known=NAMES, hint=f"It stands in {where}." if where else None
    )


def _unboxed(value: Any) -> Any:
    """Return a number of NumPy as one of Python; a NaN of Python's own is a mistake, not a gap."""
    return value if type(value) is float else kinds.plain(value)


def _read(name: str, typed: Any, value: Any, where: str) -> Any:
    """Read a value by the kind of its field."""
    try:
        return kinds.read(name, value)
    except ValueError as error:
        shown = " ".join(reprlib.repr(value).split())  # that of an array has several lines
        raise OptionError(_at(where, f"{typed} {shown} is not {error}.")) from None
