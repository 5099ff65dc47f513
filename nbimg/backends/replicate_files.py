"""The input files of a Replicate request: inside it while they are small, else uploaded once.

Stage: below the Replicate backend. Comes in: an `InputImage`. Goes out: the text that stands for it in the
request, and later whether such a text stood for that image. Must not: know a prediction.

Source: https://replicate.com/docs/reference/http#predictions.create (data addresses up to 256 kB) and
#files.create, read 2026-11-22. An upload's address has no extension, and some models look at it
(replicate-python issue 475): for these a large image is made small enough to go inside.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from nbimg.backends.base import report
from nbimg.credentials.given import account
from nbimg.events import Notice
from nbimg.media import pixels
from nbimg.types import InputImage

__all__ = ["MAX_INLINE_BYTES", "Files", "extension", "smaller"]

#: Largest input sent inside the request, in bytes of the request; larger ones are uploaded first.
MAX_INLINE_BYTES = 256_000
#: How long the address of an upload is used again; files are kept for a day.
UPLOAD_S = 3600.0

Upload = Callable[[str, bytes, str], Awaitable[str]]


class Files:
    """What was uploaded so far, and what models made of it.

    Args:
        upload: Takes name, bytes and media type of a file; returns its address.

    Attributes:
        most_bytes: What is larger than this, as base64, is uploaded; 0 once the API refused less.
    """

    def __init__(self, upload: Upload) -> None:
        self._upload = upload
        self._uploading: dict[tuple[str, str], asyncio.Lock] = {}
        self._uploads: dict[
            tuple[str, str], tuple[float, str]
        ] = {}  # account, sha256 → until, address
        self._contents: dict[str, str] = {}  # address → sha256 of its content
        self.most_bytes = MAX_INLINE_BYTES

    async def text(self, image: InputImage, *, inside: bool = False) -> str:
        """Return what stands for an image: a data address, or that of its upload.

        Args:
            image: The image.
            inside: Whether the model takes data addresses only.
        """
        data = await asyncio.to_thread(Path(image.path).read_bytes)
        mime = image.mime
        if inside and not _fits(data):
            data, mime = await asyncio.to_thread(smaller, data)
            report(Notice(text="The model takes small images only: the input was made smaller."))
        if inside or len(data) * 4 / 3 <= self.most_bytes:
            return f"data:{mime};base64,{base64.b64encode(data).decode('ascii')}"
        key = account("replicate"), image.sha256  # one account cannot read the files of another
        async with self._uploading.setdefault(key, asyncio.Lock()):
            until, url = self._uploads.get(key, (0.0, ""))
            if time.monotonic() >= until:
                name = f"{image.sha256[:16]}.{extension(mime)}"
                url = await self._upload(name, data, mime)
                self._uploads[key] = (time.monotonic() + UPLOAD_S, url)
                self._contents[url] = hashlib.sha256(data).hexdigest()
        return url

    async def stands_for(
        self, text: str, image: InputImage, ask: Callable[[str], Awaitable[str | None]]
    ) -> bool | None:
        """Tell whether `text` of a request was sent for `image`; None: that cannot be told.

        Args:
            text: A data address, or another one.
            image: The image.
            ask: Takes the address of an upload, returns the SHA-256 of its content; None: unknown.
        """
        data = await asyncio.to_thread(Path(image.path).read_bytes)
        if text.startswith("data:"):
            _, _, payload = text.partition(",")
            if _fits(data):
                return payload == base64.b64encode(data).decode("ascii")
            data, _ = await asyncio.to_thread(smaller, data)
            # another version of Pillow makes other bytes of the same picture
            return payload == base64.b64encode(data).decode("ascii") or None
        content = self._contents.get(text) or await ask(text)
        return None if content is None else content == hashlib.sha256(data).hexdigest()


def extension(mime: str) -> str:
    """Return how the name of a file of this media type ends.

    >>> extension("image/jpeg")
    'jpg'
    """
    return mime.rpartition("/")[2].replace("jpeg", "jpg")


def _fits(data: bytes) -> bool:
    return len(data) * 4 / 3 <= MAX_INLINE_BYTES


def smaller(data: bytes, most_bytes: int = MAX_INLINE_BYTES * 3 // 4) -> tuple[bytes, str]:
    """Return the image in at most so many bytes, coarser first, then smaller, and its media type."""
    picture = pixels.decode(data)
    mime = "image/webp" if "A" in picture.getbands() else "image/jpeg"
    while True:
        for quality in (92, 80, 65):
            encoded = pixels.encode(picture, mime, quality=quality)
            if len(encoded) <= most_bytes or max(picture.size) < 64:
                return encoded, mime
        picture = picture.resize((max(1, picture.width * 3 // 4), max(1, picture.height * 3 // 4)))
