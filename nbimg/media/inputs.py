"""Anything that a person calls an image → its bytes, upright and without location data.

Stage: between the call and planning. Comes in: a path, address, bytes, open file, PIL image, array,
`replicate` output, record or result. Goes out: bytes and a name for captions. Must not: change pixels
that need no change: a file without such data is passed on as it is.
"""

from __future__ import annotations

import base64
import glob
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from nbimg.errors import ImageInputError, InputError, UnknownNameError
from nbimg.media import pixels
from nbimg.types import ImageRecord, InputImage, Request, Result

__all__ = ["clean", "expand_paths", "is_url", "pair", "read", "several"]

_IMAGE_SUFFIXES = tuple(pixels.MIMES)
#: Where Pillow puts XMP and IPTC, which may say where a picture was taken.
_TELLING = {"xmp", "XML:com.adobe.xmp", "photoshop"}


def is_url(value: object) -> bool:
    """Whether a value is an address that must be fetched."""
    return isinstance(value, str) and value.startswith(("http://", "https://"))


def expand_paths(words: Iterable[str], names: Mapping[str, Any]) -> list[Any]:
    """Turn what was typed after `%%imgedit` into images, in order.

    Args:
        words: Paths, globs, folders, addresses or names of variables; `{name}` is always a variable.
        names: The notebook's variables.

    Raises:
        UnknownNameError: When a word is none of these.
    """
    found: list[Any] = []
    for word in words:
        variable = word[1:-1] if word.startswith("{") and word.endswith("}") else word
        path = _path(word)
        matches = glob.glob(str(path), recursive=True)  # noqa: PTH207  # absolute ones too
        if is_url(word) or path.is_file():
            some: list[Any] = [word]
        elif path.is_dir():
            some = several(path)
        elif files := sorted(match for match in matches if Path(match).is_file()):
            some = list(files)
        elif variable in names:
            some = several(names[variable])
        else:
            near = [str(path.with_name(item.name)) for item in _siblings(path)]
            own = [name for name in names if not name.startswith("_")]
            raise UnknownNameError("image file or variable", word, known=[*near, *own])
        if not some:
            raise ImageInputError(f"{word} holds no images.")
        found += some
    return found


def several(value: Any) -> list[Any]:
    """Return the images in a value: a list, a result or a folder holds many, anything else is one."""
    if isinstance(value, Result):
        return list(value.images)
    if isinstance(value, str | Path) and not is_url(value) and (folder := _path(value)).is_dir():
        return sorted(
            str(item)
            for item in folder.iterdir()
            if item.suffix.lower() in _IMAGE_SUFFIXES and item.is_file()
        )
    if isinstance(value, str | bytes) or not isinstance(value, Sequence):
        return [value]
    return [image for item in value for image in several(item)]


def pair(requests: Sequence[Request], images: Sequence[Any], *, combine: bool) -> list[Request]:
    """Give every request its images, before those that it names itself.

    Args:
        requests: One for all images, or one for each.
        images: What is edited, in order.
        combine: Whether all images are references of every request.

    Raises:
        InputError: When requests and images do not pair.
    """
    if combine:
        return [request.but(image=(*images, *request.image)) for request in requests]
    if len(requests) == 1:
        requests = [requests[0]] * len(images)
    if len(requests) != len(images):
        raise InputError(
            f"{len(requests)} prompts do not pair with {len(images)} images.",
            hint="Give one prompt for all, or one for each image.",
        )
    return [
        request.but(image=(image, *request.image))
        for request, image in zip(requests, images, strict=True)
    ]


def _path(value: str | Path) -> Path:
    try:
        return Path(value).expanduser()
    except RuntimeError:  # ~ of nobody is a name like any other
        return Path(value)


def _siblings(path: Path) -> list[Path]:
    try:
        return list(path.parent.iterdir())
    except OSError:
        return []


def read(value: Any) -> tuple[bytes, str]:
    """Return the bytes of an image and a name for it.

    Raises:
        UnknownNameError: When a path does not exist; it names the nearest file.
        ImageInputError: When the value is no image.
    """
    for matches, reader in _READERS:
        if matches(value):
            data, name = reader(value)
            return clean(data, name), name
    raise ImageInputError(
        f"a {type(value).__name__} is not an image.",
        hint="Give a path, an address, bytes, an open file, a PIL image, an array or a result.",
    )


def clean(data: bytes, name: str) -> bytes:
    """Return the image upright and without EXIF, XMP and IPTC; the same bytes when there is nothing to do."""
    probe = pixels.probe(data, name=name)
    image = pixels.decode(data, name=name)
    if not image.getexif() and not _TELLING & image.info.keys():
        return data
    mime = probe.mime if probe.mime in ("image/jpeg", "image/webp") else "image/png"
    return pixels.encode(pixels.upright(image), mime)


def _from_path(value: str | Path) -> tuple[bytes, str]:
    path = _path(value)
    if not path.is_file():
        raise UnknownNameError("file", str(value), known=[item.name for item in _siblings(path)])
    try:
        return path.read_bytes(), path.name
    except OSError as error:
        raise ImageInputError(f"{path} cannot be read: {error.strerror}.") from error


def _from_data_url(value: str) -> tuple[bytes, str]:
    head, _, payload = value.partition(",")
    try:
        return base64.b64decode(payload, validate=True), head[5:].split(";")[0] or "image"
    except ValueError:
        raise ImageInputError("a data: address that is not base64 is not an image.") from None


def _from_result(value: Result) -> tuple[bytes, str]:
    if len(value.images) != 1:
        raise ImageInputError(
            f"the result holds {len(value.images)} images.", hint="Pick one: result.images[0]."
        )
    return _from_record(value.images[0])


def _from_record(value: ImageRecord) -> tuple[bytes, str]:
    return value.read(), value.path.name if value.path else "image"


def _from_stream(value: Any) -> tuple[bytes, str]:
    data = value.read()
    if data == b"" and hasattr(value, "seek"):  # just written, or read before
        value.seek(0)
        data = value.read()
    if not isinstance(data, bytes):
        raise ImageInputError("the file is open as text.", hint="Open it with mode 'rb'.")
    return data, Path(str(getattr(value, "name", "") or "image")).name


def _from_picture(value: Any) -> tuple[bytes, str]:
    picture = pixels.to_pil(value)
    return pixels.encode(pixels.upright(picture), "image/png"), "image"


def _is_picture(value: Any) -> bool:
    return hasattr(value, "__array__") or hasattr(value, "__array_interface__")


#: What a value looks like → how it is read; the first that matches. A `FileOutput` of the `replicate`
#: client has `read()`, as open files have.
_READERS: tuple[tuple[Callable[[Any], bool], Callable[[Any], tuple[bytes, str]]], ...] = (
    (lambda value: isinstance(value, InputImage), lambda value: _from_path(value.path)),
    (lambda value: isinstance(value, ImageRecord), _from_record),
    (lambda value: isinstance(value, Result), _from_result),
    (lambda value: isinstance(value, str) and value.startswith("data:"), _from_data_url),
    (lambda value: isinstance(value, str | Path), _from_path),
    (lambda value: isinstance(value, bytes | bytearray), lambda value: (bytes(value), "image")),
    (_is_picture, _from_picture),
    (lambda value: hasattr(value, "read"), _from_stream),
)
