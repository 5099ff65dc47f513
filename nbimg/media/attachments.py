"""Files among the parameters of a request: each kept by its content, as an input image is.

Stage: beside `inputs`, below the intake. Comes in: the `params` of a request, where a value of any depth may
be a `Path`, bytes, an open file, a PIL image, an array, a record or a result. Goes out: the same with an
`InputImage` in the place of each. A text is left as it is: only a backend knows which of its inputs take
files. Must not: read a file that nobody gave.
"""

from __future__ import annotations

import mimetypes
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

from nbimg.errors import InputError, OptionError
from nbimg.media import inputs, pixels
from nbimg.types import ImageRecord, InputImage, Result

__all__ = ["attach", "refuse", "replaced"]

Take = Callable[[bytes, str], InputImage]


def attach(params: Mapping[str, Any], take: Take) -> Mapping[str, Any]:
    """Return the parameters with every file in them kept.

    Args:
        params: Of a request; given back as it is when it holds no file.
        take: Keeps the bytes of a picture or a video under a name for captions, see `Store.take`.

    Raises:
        InputError: When a file cannot be read, or is neither a picture nor a video.
    """
    taken = {name: _attached(value, take) for name, value in params.items()}
    return taken if any(taken[name] is not params[name] for name in params) else params


async def replaced(value: Any, send: Callable[[InputImage], Awaitable[Any]]) -> Any:
    """Return a value with what `send` gives in the place of every file in it."""
    if isinstance(value, InputImage):
        return await send(value)
    if isinstance(value, Mapping):
        return {name: await replaced(part, send) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [await replaced(part, send) for part in value]
    return value


def refuse(values: Mapping[str, Any], what: str) -> Mapping[str, Any]:
    """Return the values, if none of them is a file.

    Args:
        values: Parameters of a call.
        what: Whose parameters they are.

    Raises:
        OptionError: When one is a file; it names it.
    """
    for name, value in values.items():
        parts = value if isinstance(value, list | tuple) else [value]
        if any(isinstance(part, InputImage) for part in parts):
            raise OptionError(f"{what} takes no file as {name}.", hint="Give images with -i.")
    return values


def _attached(value: Any, take: Take) -> Any:
    if value is None or isinstance(value, str | int | float | InputImage):
        return value
    if isinstance(value, Mapping):
        return attach(value, take)
    if isinstance(value, list | tuple):
        parts = [_attached(part, take) for part in value]
        same = all(one is other for one, other in zip(parts, value, strict=True))
        return value if same else parts
    if isinstance(value, Path) and not _shows(value):
        return value  # weights, a sound: for the backend to read
    return take(*_read(value)) if _is_file(value) else value


def _shows(path: Path) -> bool:
    """Whether a path names a picture or a video: by its name, as it may not be there."""
    return str(mimetypes.guess_type(path.name)[0]).startswith(("image/", "video/"))


def _is_file(value: Any) -> bool:
    """Whether a value is a file: NumPy's numbers look like arrays, and are none."""
    flat = hasattr(value, "__array__") and getattr(value, "ndim", 2) < 2
    kinds = Path | bytes | bytearray | ImageRecord | Result
    files = isinstance(value, kinds) or any(
        hasattr(value, name) for name in ("read", "__array__", "__array_interface__")
    )
    return files and not flat


def _read(value: Any) -> tuple[bytes, str]:
    """The bytes of a file and its name; a video as it is, a picture upright and without location."""
    name = "video"
    if isinstance(value, Path):
        value = value.expanduser()
        name = value.name
        if value.is_file():
            try:
                data = value.read_bytes()
            except OSError as error:
                raise InputError(f"{value} cannot be read: {error.strerror}.") from error
            if _moves(data):
                return data, name
    elif isinstance(value, bytes | bytearray):
        if _moves(bytes(value)):
            return bytes(value), name
    elif isinstance(value, ImageRecord) and value.kind == "video":
        return value.read(), value.path.name if value.path else name
    elif hasattr(value, "read") and hasattr(value, "seek") and not hasattr(value, "__array__"):
        start = value.read(64)
        value.seek(0)
        if isinstance(start, bytes) and _moves(start):
            return value.read(), Path(str(getattr(value, "name", "") or name)).name
    return inputs.read(value)


def _moves(data: bytes) -> bool:
    return str(pixels.sniff(data)).startswith("video/")
