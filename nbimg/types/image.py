"""Images that were made: as a backend hands them over, and as files.

Stage: part of the vocabulary (`nbimg.types`). Must not: decide where a file goes.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nbimg.errors import ResultMissingError

if TYPE_CHECKING:
    import PIL.Image

__all__ = ["EncodedImage", "ImageRecord"]


@dataclass(frozen=True, slots=True)
class EncodedImage:
    """An image file in memory, as a backend hands it over.

    Attributes:
        data: The bytes as they came.
        seed: The seed that made it, where it is known.
        url: Where the provider keeps it.
        encoded_here: Whether nbimg encoded the bytes itself and may add metadata.
        peak_memory_bytes: The most memory of the device that making it took; 0: nobody counted.
        device_s: How long this machine's device took, in seconds: its share of a call that several share.
    """

    data: bytes
    seed: int | None = None
    url: str | None = None
    encoded_here: bool = False
    peak_memory_bytes: int = 0
    device_s: float = 0.0


@dataclass(frozen=True, slots=True)
class ImageRecord:
    """An image (or video) that was made, and where it is.

    Attributes:
        path: The file that the user sees; None with `--url-only`.
        url: The provider's address, which may expire within the hour.
        kind: `image` or `video`.
        mime: Media type of the file.
        width: Pixels.
        height: Pixels.
        sha256: Of the file's bytes, hexadecimal.
        seed: The seed that made it, where it is known.
    """

    path: Path | None
    url: str | None = None
    kind: str = "image"
    mime: str = "image/png"
    width: int = 0
    height: int = 0
    sha256: str = ""
    seed: int | None = None

    def read(self) -> bytes:
        """Return the bytes of the file.

        Raises:
            ResultMissingError: When there is no file.
        """
        if self.path is None:
            raise ResultMissingError(f"the image was not downloaded: {self.url}")
        try:
            return self.path.read_bytes()
        except OSError as error:
            raise ResultMissingError(f"{self.path} cannot be read: {error.strerror}.") from error

    def pil(self) -> PIL.Image.Image:
        """Return the decoded image, with shape (height, width).

        Raises:
            ResultMissingError: When there is no file.
            ImageInputError: When the file is not an image.
        """
        from nbimg.media import pixels

        return pixels.decode(self.read(), name=str(self.path))

    def save(self, path: str | Path) -> Path:
        """Copy the file to `path`, byte for byte; return where it is."""
        target = Path(path)
        if self.path is not None and self.path.exists():
            shutil.copyfile(self.path, target)
        else:
            target.write_bytes(self.read())
        return target

    async def aread(self) -> bytes:
        """`read` without blocking the loop."""
        import asyncio

        return await asyncio.to_thread(self.read)

    async def asave(self, path: str | Path) -> Path:
        """`save` without blocking the loop."""
        import asyncio

        return await asyncio.to_thread(self.save, path)


def _as_text(kind: type, name: str) -> None:
    """Keep a path of `kind` as one text: a `Path` is five objects, and a batch may have 50,000."""
    slot = getattr(kind, name)

    def get(self: Any) -> Path | None:
        text = slot.__get__(self)
        return None if text is None else Path(text)

    def put(self: Any, path: str | Path | None) -> None:
        slot.__set__(self, None if path is None else str(path))

    setattr(kind, name, property(get, put))


_as_text(ImageRecord, "path")
