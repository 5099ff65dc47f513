"""What a person asks for: one task, the model it goes to, the images it takes in.

Stage: part of the vocabulary (`nbimg.types`). Must not: choose a model, or read an image.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from types import MappingProxyType
from typing import Any, Self

from nbimg.errors import OptionError, UnknownNameError
from nbimg.types.plain import NOTHING, plain, put
from nbimg.types.size import Size, parse_ratio

__all__ = ["InputImage", "ModelRef", "Request", "placeless"]


@dataclass(frozen=True, slots=True)
class ModelRef:
    """A provider's model.

    Attributes:
        provider: Name of the backend, for example `replicate`.
        model: The provider's own id; empty where the provider has only one.
        alias: The short name that the user knows it by, when there is one.
    """

    provider: str
    model: str
    alias: str | None = None

    @property
    def full(self) -> str:
        """`provider:model`, or the provider alone."""
        return _full(self.provider, self.model)

    def __str__(self) -> str:
        return self.alias or self.full


@dataclass(frozen=True, slots=True)
class InputImage:
    """An image that a request takes in, by its content.

    Attributes:
        sha256: Of the upright bytes at `path`.
        mime: Their media type.
        width: Pixels.
        height: Pixels.
        path: Where the bytes are on this machine.
        source: What the user gave: a path, a URL, a variable; for captions only.
    """

    sha256: str
    mime: str
    width: int
    height: int
    path: str
    source: str | None = None


@functools.lru_cache(maxsize=256)
def _full(provider: str, model: str) -> str:
    """One text for all: every attempt and result of a batch holds it."""
    return f"{provider}:{model}" if model else provider


_INPUT_IMAGE = {spec.name for spec in fields(InputImage)}
_MAX_SEED = 2**32 - 1


@dataclass(frozen=True, slots=True)
class Request:
    """What a person asked for: one task.

    Args:
        prompt: The text.
        model: An alias, `provider:model`, or None for the default one.
        n: How many images.
        size: Pixels, a `Size` or `WxH`.
        ar: Aspect ratio `W:H`; together with `size`, the size wins.
        seed: Variant k uses `seed + k`; None lets nbimg draw one where the model takes seeds.
        negative: What should not be there.
        steps: Denoising steps.
        guidance: How strongly the prompt is followed, in the model's own unit.
        strength: For edits, 0 (keep) to 1 (make anew).
        image: What to edit or refer to: anything that `nbimg.edit` takes, or several of it.
        mask: Where to edit: white is changed.
        lora: Adapters, each a path, hub id or URL, `NAME:WEIGHT` for a weight.
        scheduler: Name of the sampler.
        params: Passed through to the model under its own names.
        output: File name template, see `nbimg.store.files`.
        task_id: A name of the caller's own for the task.

    Raises:
        OptionError: When a value cannot mean anything.
    """

    prompt: str
    model: str | None = None
    n: int = 1
    size: Size | None = None
    ar: str | None = None
    seed: int | None = None
    negative: str | None = None
    steps: int | None = None
    guidance: float | None = None
    strength: float | None = None
    image: tuple[Any, ...] = ()
    mask: Any = None
    lora: tuple[str, ...] = ()
    scheduler: str | None = None
    params: Mapping[str, Any] = field(default_factory=lambda: NOTHING)
    output: str | None = None
    task_id: str | None = None

    def __post_init__(self) -> None:
        _check_kinds(self)
        if self.size is not None:
            put(self, "size", Size.parse(self.size))
        if self.ar is not None:
            put(self, "ar", "{}:{}".format(*parse_ratio(self.ar)))
        if not isinstance(self.image, tuple):
            images = self.image if isinstance(self.image, list) else [self.image]
            put(self, "image", tuple(image for image in images if image is not None))
        if not isinstance(self.lora, tuple):
            put(self, "lora", (self.lora,) if isinstance(self.lora, str) else tuple(self.lora))
        if self.params is not NOTHING:
            put(self, "params", MappingProxyType(dict(self.params)) if self.params else NOTHING)
        _check_whole(self.n, "n", 1, 1000)
        _check_whole(self.seed, "seed", 0, _MAX_SEED)
        _check_whole(self.steps, "steps", 1, 1000)
        _check_number(self.guidance, "guidance", 0, 100)
        _check_number(self.strength, "strength", 0, 1)
        for name in ("guidance", "strength"):  # 3 and 3.0 are one request
            if isinstance(getattr(self, name), int):
                put(self, name, float(getattr(self, name)))

    def __reduce__(self) -> tuple[Any, ...]:
        return (_request_from_dict, (self.to_dict(),))

    def __hash__(self) -> int:
        return hash(self.key)

    def but(self, **changes: Any) -> Self:
        """Return the same request with some fields changed."""
        return replace(self, **changes)

    def to_dict(self) -> dict[str, Any]:
        """Return JSON data; only the fields that differ from their default.

        Raises:
            InputError: When an image is not yet a path, a URL or an `InputImage`.
        """
        known = {
            spec.name: plain(getattr(self, spec.name))
            for spec in fields(self)
            if spec.name != "params" and getattr(self, spec.name) != spec.default
        }
        if self.params:
            known["params"] = plain(self.params)
        return known

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Build a request from JSON data.

        Raises:
            UnknownNameError: When a key is not a field; it names the nearest.
        """
        known = [spec.name for spec in fields(cls)]
        for key in data:
            if key not in known:
                raise UnknownNameError("key", key, known=known)
        values = dict(data)
        values["image"] = tuple(map(_image_from_plain, _as_list(values.get("image"))))
        if "mask" in values:
            values["mask"] = _image_from_plain(values["mask"])
        return cls(**values)

    @property
    def key(self) -> str:
        """SHA-256 over what decides the pixels: neither file names nor task ids are in it."""
        pixels = placeless(self.but(output=None, task_id=None).to_dict())
        text = json.dumps(pixels, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
        return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def placeless(data: Any) -> Any:
    """Return JSON data in which no input image says where it is, or what it was called."""
    if isinstance(data, list):
        return [placeless(part) for part in data]
    if not isinstance(data, dict):
        return data
    dropped = ("path", "source") if data.keys() == _INPUT_IMAGE else ()
    return {name: placeless(part) for name, part in data.items() if name not in dropped}


def _check_kinds(request: Request) -> None:
    """Refuse what would fail later, and say less."""
    if not isinstance(request.prompt, str):
        raise OptionError(f"a prompt is a text, not {type(request.prompt).__name__}.")
    for name in ("model", "negative", "scheduler", "output"):
        if not isinstance(value := getattr(request, name), str | os.PathLike | None):
            raise OptionError(f"{name} {value!r} is not a text.")
    if not isinstance(request.lora, str | list | tuple):
        raise OptionError(f"lora {request.lora!r} is not a text or a list of texts.")
    if not isinstance(request.params, Mapping):
        raise OptionError(f"params {request.params!r} is not a dict.")
    if request.n is None:
        raise OptionError("n None is not a whole number from 1 to 1000.")


def _check_whole(value: Any, name: str, lowest: int, highest: int) -> None:
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, int) or not lowest <= value <= highest:
        raise OptionError(f"{name} {value!r} is not a whole number from {lowest} to {highest}.")


def _check_number(value: Any, name: str, lowest: float, highest: float) -> None:
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, int | float) or value != value:  # noqa: PLR0124
        raise OptionError(f"{name} {value!r} is not a number.")
    if not lowest <= value <= highest:
        raise OptionError(f"{name} {value!r} is not between {lowest:g} and {highest:g}.")


def _as_list(value: Any) -> list[Any]:
    if value is None:
        return []
    return list(value) if isinstance(value, list | tuple) else [value]


def _request_from_dict(data: dict[str, Any]) -> Request:
    return Request.from_dict(data)


def _image_from_plain(value: Any) -> Any:
    return InputImage(**value) if isinstance(value, dict) else value
