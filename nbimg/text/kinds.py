"""A value as people bring it → the value that a field of `Request` takes.

Stage: beside `tasks`. Comes in: the name of a field and what a dict or a cell of a table holds for it. Goes
out: the value, of the right kind. Must not: check ranges, which `Request` does, or know the names that
people bring along. A ValueError says in its message what the value should have been.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from typing import Any

from nbimg.errors import OptionError
from nbimg.text.options import OPTIONS
from nbimg.types import InputImage, Size

__all__ = ["TEXT_FIELDS", "plain", "read"]

_PIXELS = 64  # no aspect ratio is written with two numbers as large as this


def plain(value: Any) -> Any:
    """Return a number of NumPy as one of Python, and None for the NaN, NA or NaT of a table."""
    if getattr(value, "shape", None) == () and hasattr(value, "item"):
        value = value.item()
    if type(value).__name__ in ("NAType", "NaTType"):
        return None
    return None if isinstance(value, float) and value != value else value  # noqa: PLR0124


def read(name: str, value: Any) -> Any:
    """Read a value by the kind of its field.

    >>> read("n", "2"), read("resolution", "16:9")
    (2, ('ar', '16:9'))

    Args:
        name: A field of `Request`; or `resolution`, which is one of two fields: its value is the field's
            name and value.
        value: Not None.

    Raises:
        ValueError: When it is of another kind; the message says which it should be.
    """
    return _READERS[name](value)


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError("a text")  # noqa: TRY004  # the one error of this module
    return str(value)


def _path(value: Any) -> str:
    return _text(os.fspath(value) if isinstance(value, os.PathLike) else value)


def _label(value: Any) -> str:
    whole = isinstance(value, int) and not isinstance(value, bool)
    return str(value) if whole else _text(value)


def _number(value: Any) -> float:
    try:
        if isinstance(value, str | int | float) and not isinstance(value, bool):
            return float(value)
    except (ValueError, OverflowError):
        pass
    raise ValueError("a number")


def _whole(value: Any) -> int:
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if isinstance(value, str) and value.strip().lstrip("+-").isdecimal() and len(value) < 100:
        return int(value)
    try:
        number = _number(value)  # "3.0": a column of numbers with a gap
    except ValueError:
        number = 0.5
    if not number.is_integer():
        raise ValueError("a whole number")
    return int(number)


def _size(value: Any) -> Size:
    pair = isinstance(value, list | tuple) and len(value) == 2
    try:
        return Size.parse("{}x{}".format(*value) if pair else value)
    except (OptionError, TypeError):
        raise ValueError("WxH in pixels, like 1024x768") from None


def _ratio(value: Any) -> str:
    try:
        ratio: str = _PARSE["ar"](value)
    except (OptionError, TypeError):
        raise ValueError("W:H, like 16:9") from None
    return ratio


def _resolution(value: Any) -> tuple[str, Any]:
    try:
        if isinstance(value, str) and ":" in value:
            sides = [int(side) for side in value.split(":")]
            if min(sides) < _PIXELS:
                return "ar", _ratio(value)
            return "size", _size(sides)
        return "size", _size(value)
    except ValueError:
        raise ValueError("W:H or WxH; a model's own kind goes into params") from None


def _listed(value: Any) -> Any:
    """Return what a text in JSON lists, which is how a cell of a table holds several."""
    if isinstance(value, str) and value.lstrip().startswith("["):
        try:
            return json.loads(value)
        except (ValueError, RecursionError):
            return value
    return value


def _image(value: Any) -> Any:
    try:
        return InputImage(**value) if isinstance(value, dict) else value
    except TypeError:
        raise ValueError("an image") from None


def _images(value: Any) -> tuple[Any, ...]:
    value = _listed(value)
    images = value if isinstance(value, list | tuple) else [value]
    return tuple(_image(image) for image in images if image is not None)


def _texts(value: Any) -> tuple[str, ...]:
    value = _listed(value)
    texts = [value] if isinstance(value, str) else value
    if not isinstance(texts, list | tuple) or not all(isinstance(text, str) for text in texts):
        raise ValueError("a text or a list of texts")
    return tuple(texts)


def _params(value: Any) -> dict[str, Any]:
    if isinstance(value, Mapping):
        return {str(key): item for key, item in value.items()}
    if not isinstance(value, str):
        raise ValueError("a dict")  # noqa: TRY004
    try:
        if value.lstrip().startswith("{"):
            return _params(json.loads(value))
        params: dict[str, Any] = _PARSE["params"](value)
    except (ValueError, RecursionError):
        raise ValueError("KEY=VALUE or a dict in JSON") from None
    return params


_PARSE = {row.name: row.parse for row in OPTIONS}
_READERS: Mapping[str, Callable[[Any], Any]] = {
    **dict.fromkeys(("prompt", "model", "negative", "scheduler"), _text),
    **dict.fromkeys(("n", "seed", "steps"), _whole),
    **dict.fromkeys(("guidance", "strength"), _number),
    "size": _size,
    "ar": _ratio,
    "resolution": _resolution,
    "image": _images,
    "mask": _image,
    "lora": _texts,
    "params": _params,
    "output": _path,
    "task_id": _label,
}
#: Fields whose value is the text as typed, whatever a format takes it for.
TEXT_FIELDS = frozenset(
    name for name, reader in _READERS.items() if reader in (_text, _path, _label)
)
