r"""Which values of a workflow's inputs are files, and what is sent in their place.

Stage: beside the SpeedPix backend. Comes in: the inputs of a call. Goes out: the same, each file as an
address or as base64. A text is a file only where its input takes files, or where it is written as a path
(`/…`, `./…`, `../…`, `~/…`, `C:\…`) and a picture, a video or a sound is there; a prompt never is. Must
not: send anything itself.
"""

from __future__ import annotations

import asyncio
import base64
import mimetypes
import re
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from nbimg.errors import InputError, OptionError
from nbimg.media import inputs, pixels
from nbimg.types import InputImage

__all__ = ["MAX_INLINE_BYTES", "STRATEGIES", "File", "Sender"]

#: Largest file that may be sent as base64, in bytes: the official client's limit.
MAX_INLINE_BYTES = 1024 * 1024
STRATEGIES = ("auto", "base64", "url")

_WRITTEN_AS_PATH = re.compile(r"(/|\.{1,2}[\\/]|~[\\/]|[A-Za-z]:[\\/])[^\n\0]{1,4000}")
_INPUT_IMAGE = {spec.name for spec in fields(InputImage)}


@dataclass(frozen=True, slots=True)
class File:
    """A file that is sent.

    Attributes:
        name: With an extension.
        mime: Media type.
        data: The bytes.
    """

    name: str
    mime: str
    data: bytes


class Sender:
    """Turns the inputs of one call into what is sent.

    Args:
        strategy: `base64`: inside the request; `url`: uploaded first; `auto`: inside while all of them
            together stay within the limit.
        upload: Uploads a file, and returns its address.

    Raises:
        OptionError: When there is no such strategy.
    """

    def __init__(self, strategy: str, upload: Callable[[File], Awaitable[str]]) -> None:
        if strategy not in STRATEGIES:
            raise OptionError(
                f"file_encoding_strategy {strategy!r} is not one of {', '.join(STRATEGIES)}.",
                allowed=list(STRATEGIES),
            )
        self._strategy = strategy
        self._upload = upload
        self._inlined_bytes = 0

    async def inputs(
        self, values: Mapping[str, Any], *, texts: Collection[str], files: Collection[str]
    ) -> dict[str, Any]:
        """Return the inputs as they are sent.

        Args:
            values: Name → value, of any depth.
            texts: The inputs whose text is never a file: the prompt's.
            files: The inputs whose text is always one, where a file of that name exists.

        Raises:
            InputError: When a file cannot be read, or is too large for base64.
        """
        return {
            name: value if name in texts else await self._sent(value, named=name in files)
            for name, value in values.items()
        }

    async def image(self, image: InputImage) -> str:
        """Return the address, or the base64, of an input image."""
        return await self._file(await asyncio.to_thread(_kept, image))

    async def _sent(self, value: Any, *, named: bool) -> Any:
        if isinstance(value, list | tuple):
            return [await self._sent(part, named=named) for part in value]
        if isinstance(value, Mapping) and value.keys() == _INPUT_IMAGE:
            value = InputImage(**value)  # as the journal gives it back
        if isinstance(value, InputImage):
            return await self.image(value)
        if isinstance(value, Mapping):
            return {name: await self._sent(part, named=named) for name, part in value.items()}
        if isinstance(value, Path):
            return await self._file(await asyncio.to_thread(_read, value, "a path"))
        if isinstance(value, str):
            found = await asyncio.to_thread(_found, value, named=named)
            return value if found is None else await self._file(found)
        return value

    async def _file(self, file: File) -> str:
        size = len(file.data)
        if self._strategy == "base64" and size > MAX_INLINE_BYTES:
            raise InputError(
                f"{file.name} has {size:,} bytes; as base64 speedpix takes {MAX_INLINE_BYTES:,}.",
                hint="Leave file_encoding_strategy out: large files are uploaded.",
            )
        fits = self._inlined_bytes + size <= MAX_INLINE_BYTES
        if self._strategy == "base64" or (self._strategy == "auto" and fits):
            self._inlined_bytes += size
            return f"data:{file.mime};base64,{base64.b64encode(file.data).decode('ascii')}"
        return await self._upload(file)


def _kept(image: InputImage) -> File:
    """An image of the store: upright and clean already."""
    suffix = pixels.EXTENSIONS.get(image.mime, ".png")
    try:
        data = Path(image.path).read_bytes()
    except OSError as error:
        raise InputError(f"{image.path} cannot be read: {error.strerror}.") from error
    return File(f"{image.sha256[:16]}{suffix}", image.mime, data)


def _found(text: str, *, named: bool) -> File | None:
    """The file that a text names; None where it is a text."""
    if not (named or _WRITTEN_AS_PATH.fullmatch(text)) or len(text) > 4096:
        return None
    try:
        path = Path(text).expanduser()
        if not path.is_file():
            return None
    except (OSError, ValueError, RuntimeError):  # no text that a path can be
        return None
    file = _read(path, text)
    return file if file.mime.startswith(("image/", "video/", "audio/")) else None


def _read(path: Path, what: str) -> File:
    """A file with its media type, by its bytes where they tell; pictures upright, without location."""
    try:
        data = path.expanduser().read_bytes()
    except (OSError, RuntimeError) as error:
        raise InputError(f"{path} ({what}) cannot be read: {error}.") from error
    mime = pixels.sniff(data) or mimetypes.guess_type(path.name)[0] or "application/octet-stream"
    if mime.startswith("image/"):
        data = inputs.clean(data, path.name)
        mime = pixels.sniff(data) or mime
    return File(path.name, mime, data)
